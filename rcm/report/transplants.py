"""Transplants as one table: a row for every source in every target, in the columns of the runs' own tables."""

from collections.abc import Sequence

from rcm.comparison.names import MATRIX
from rcm.comparison.transplants import Transplant
from rcm.record.results import Column
from rcm.report import cells
from rcm.report.tables import Sheet, shown_columns

SOURCE, TARGET = Column("source", "direction of"), Column("target", "in")


def sheet(transplants: Sequence[Transplant]) -> Sheet | None:
    """None where nothing was transplanted."""
    stored = [table for one in transplants if (table := one.target.table(MATRIX))]
    if not stored:
        return None
    columns = [SOURCE, TARGET, *(column for column in shown_columns(stored[0]) if column.name != SOURCE.name)]
    rows = [{**one.row, SOURCE.name: one.source, TARGET.name: one.target.name} for one in transplants]
    drawn = [[cells.of_column(column, row) for column in columns] for row in rows]
    return Sheet("", stored[0].hint, columns, drawn)
