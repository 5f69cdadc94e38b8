"""Transplants as two tables, in the columns of the runs' own tables: what every source does in every target, and how
the target's own direction decomposes along the source's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rcm.comparison.names import DECOMPOSITION, MATRIX
from rcm.comparison.transplants import Transplant
from rcm.record.results import Column
from rcm.report import cells
from rcm.report.tables import Sheet, shown_columns

SOURCE, TARGET = Column("source", "direction of"), Column("target", "in")


def sheets(transplants: Sequence[Transplant]) -> list[Sheet]:
    """None where nothing was transplanted."""
    rows = {MATRIX: [(one, one.row) for one in transplants]}
    rows[DECOMPOSITION] = [(one, row) for one in transplants for row in one.parts.values()]
    return [sheet for name, of in rows.items() for sheet in _sheet(name, of)]


def _sheet(name: str, rows: Sequence[tuple[Transplant, Mapping[str, Any]]]) -> Iterator[Sheet]:
    stored = [table for one, _ in rows if (table := one.target.table(name))]
    if not stored:
        return
    columns = [SOURCE, TARGET, *(column for column in shown_columns(stored[0]) if column.name != SOURCE.name)]
    named = [{**row, SOURCE.name: one.source, TARGET.name: one.target.name} for one, row in rows]
    caveat = next((table.caveat for table in stored if table.caveat), "")
    yield Sheet(
        cells.titled(stored[0].label, caveat),
        stored[0].hint,
        columns,
        [[cells.of_column(c, row) for c in columns] for row in named],
    )
