"""Transcripts: their columns, the choices to filter by, and how often each verdict fell under each condition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcm.record.results import Transcripts
from rcm.record.transcripts import by_condition, cell, condition_names
from rcm.report.cells import titled
from rcm.report.formatting import visible

TEXTS = ("prompt", "completion")
LAST = (*TEXTS, "verdict")
VERDICTS = ("refusal", "partial", "compliance", "invalid")


@dataclass(frozen=True)
class Counted:
    """A condition, and how often each of VERDICTS fell under it."""

    condition: Sequence[str]
    verdicts: Sequence[int]


def title(transcripts: Transcripts) -> str:
    """With its caveat."""
    return titled(transcripts.label or transcripts.name, transcripts.caveat)


def replies(transcripts: Transcripts) -> str:
    """How many there are."""
    return "1 reply" if len(transcripts.rows) == 1 else f"{len(transcripts.rows)} replies"


def columns(transcripts: Transcripts) -> list[str]:
    """Conditions first, then prompt and reply, then anything else."""
    names = list(dict.fromkeys(key for row in transcripts.rows for key in row))
    first = [name for name in (*condition_names(transcripts), "category", *LAST) if name in names]
    return [*first, *(name for name in names if name not in first)]


def rows(transcripts: Transcripts) -> list[list[str]]:
    """Every cell as the page shows it, column by column."""
    names = columns(transcripts)
    return [[visible(cell(row, name)) for name in names] for row in transcripts.rows]


def choices(transcripts: Transcripts) -> dict[str, list[str]]:
    """For each column worth filtering by, its values."""
    filters = [*condition_names(transcripts), "verdict", "category"]
    values = {name: list(dict.fromkeys(cell(row, name) for row in transcripts.rows)) for name in filters}
    return {name: sorted(options) for name, options in values.items() if len(options) > 1}


def counts(transcripts: Transcripts) -> list[Counted]:
    """The verdicts under each condition."""
    fell = {
        condition: Counter(cell(row, "verdict") for row in rows)
        for condition, rows in by_condition(transcripts).items()
    }
    return [Counted(condition, [counter[verdict] for verdict in VERDICTS]) for condition, counter in fell.items()]


def samples(transcripts: Transcripts, most: int) -> list[Mapping[str, str | float]]:
    """The first rows of each condition."""
    return [row for rows in by_condition(transcripts).values() for row in rows[:most]]
