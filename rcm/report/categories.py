"""How often prompts of each category are refused: a row for each category, a column for each kind of prompt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rcm.comparison.reading import Reading
from rcm.record.results import Scalar
from rcm.record.units import percent
from rcm.report.figures import Cell, detail

KINDS = {"harmful": "harmful", "harmless": "harmless", "lookalike": "safe lookalikes"}
HINT = "Few prompts stand behind each figure: differences within the intervals say nothing."


@dataclass(frozen=True)
class Categories:
    """`kinds`: those of the data set. `rows`: a category, and its cells as in `kinds`."""

    kinds: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def categories(readings: Sequence[Reading]) -> list[tuple[Reading, Categories]]:
    """Those of each run whose prompts have categories."""
    tables = [(reading, reading.table("behaviour/by_category")) for reading in readings]
    return [(reading, _categories(table.rows)) for reading, table in tables if table]


def _categories(rows: Iterable[Sequence[Any]]) -> Categories:
    shares = {(category, kind): _cell(*figures) for category, kind, *figures in rows}
    kinds = [kind for kind in KINDS if any(kind == of for _, of in shares)]
    names = dict.fromkeys(category for category, _ in shares)
    found = [(name or "(none)", [shares.get((name, kind), Cell("")) for kind in kinds]) for name in names]
    return Categories([KINDS[kind] for kind in kinds], found)


def _cell(n: int, rate: float, low: float, high: float) -> Cell:
    share = Scalar("share refused", rate, (low, high), n)
    return Cell(percent(rate), detail(share, percent), drawn=share)
