"""Transcripts: their columns, the choices to filter by, and how often each verdict fell under each condition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcm.report.words import plain, visible
from rcm.results import Transcripts

FILTERS = ("kind", "verdict", "operation", "direction", "strength", "category")
CONDITION = ("kind", "operation", "strength", "direction")
WORDS = ("prompt", "completion")
LAST = (*WORDS, "verdict")
VERDICTS = ("refusal", "partial", "compliance", "invalid")
Said = Mapping[str, str | float]


@dataclass(frozen=True)
class Counted:
    """A condition, and how often each of VERDICTS fell under it."""

    condition: Sequence[str]
    verdicts: Sequence[int]


def columns(transcripts: Transcripts) -> list[str]:
    """Conditions first, then what was said, then anything else."""
    names = list(dict.fromkeys(key for row in transcripts.rows for key in row))
    first = [name for name in (*CONDITION, "category", *LAST) if name in names]
    return [*first, *(name for name in names if name not in first)]


def cell(row: Said, column: str) -> str:
    value = row.get(column, "")
    return value if isinstance(value, str) else plain(value)


def rows(transcripts: Transcripts) -> list[list[str]]:
    """Every cell as the page shows it, column by column."""
    names = columns(transcripts)
    return [[visible(cell(row, name)) for name in names] for row in transcripts.rows]


def choices(transcripts: Transcripts) -> dict[str, list[str]]:
    """For each column worth filtering by, its values."""
    values = {name: list(dict.fromkeys(cell(row, name) for row in transcripts.rows)) for name in FILTERS}
    return {name: sorted(options) for name, options in values.items() if len(options) > 1}


def condition_names(transcripts: Transcripts) -> list[str]:
    return [name for name in CONDITION if any(name in row for row in transcripts.rows)]


def by_condition(transcripts: Transcripts) -> dict[tuple[str, ...], list[Said]]:
    """The rows under each condition, in the order in which the conditions came."""
    names = condition_names(transcripts)
    found: dict[tuple[str, ...], list[Said]] = {}
    for row in transcripts.rows:
        found.setdefault(tuple(cell(row, name) for name in names), []).append(row)
    return found


def counts(transcripts: Transcripts) -> list[Counted]:
    """The verdicts under each condition."""
    fell = {
        condition: Counter(cell(row, "verdict") for row in rows)
        for condition, rows in by_condition(transcripts).items()
    }
    return [Counted(condition, [counter[verdict] for verdict in VERDICTS]) for condition, counter in fell.items()]


def samples(transcripts: Transcripts, most: int) -> list[Said]:
    """The first rows of each condition."""
    return [row for rows in by_condition(transcripts).values() for row in rows[:most]]
