"""The rows of transcripts under each condition of an experiment."""

from collections.abc import Mapping

from rcm.record.results import Transcripts
from rcm.record.units import plain

CONDITION = ("kind", "operation", "strength", "direction")
Said = Mapping[str, str | float]


def cell(row: Said, column: str) -> str:
    value = row.get(column, "")
    return value if isinstance(value, str) else plain(value)


def condition_names(transcripts: Transcripts) -> list[str]:
    return [name for name in CONDITION if any(name in row for row in transcripts.rows)]


def by_condition(transcripts: Transcripts) -> dict[tuple[str, ...], list[Said]]:
    """The rows under each condition, in the order in which the conditions came."""
    names = condition_names(transcripts)
    found: dict[tuple[str, ...], list[Said]] = {}
    for row in transcripts.rows:
        found.setdefault(tuple(cell(row, name) for name in names), []).append(row)
    return found
