"""The rows of transcripts under each condition of an experiment."""

from collections.abc import Mapping

from rcm.record.results import Transcripts
from rcm.record.units import plain

REPLY = ("prompt", "completion", "verdict")  # what a row tells of; its other columns tell under which condition
CUT = "[redacted]"  # behind the opening words of a completion that went on
MOST_VALUES = 40  # a column with more of them numbers the rows rather than sorting them
Row = Mapping[str, str | float]


def cell(row: Row, column: str) -> str:
    value = row.get(column, "")
    return value if isinstance(value, str) else plain(value)


def condition_names(transcripts: Transcripts) -> list[str]:
    """The columns that tell conditions apart, in the order in which they came; categories sort prompts instead."""
    names = dict.fromkeys(key for row in transcripts.rows for key in row if key not in (*REPLY, "category"))
    return [name for name in names if len({cell(row, name) for row in transcripts.rows}) <= MOST_VALUES]


def by_condition(transcripts: Transcripts) -> dict[tuple[str, ...], list[Row]]:
    """The rows under each condition, in the order in which the conditions came."""
    names = condition_names(transcripts)
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in transcripts.rows:
        found.setdefault(tuple(cell(row, name) for name in names), []).append(row)
    return found


def is_cut(completion: str) -> bool:
    """Whether a stored completion is only the opening of what was said (`rcm.judges.redaction`)."""
    return completion.endswith(CUT)
