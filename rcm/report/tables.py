"""Tables as they are shown: those that runs stored, and those of the comparison.

A stored table says which of its columns and rows pages show. Columns that speak of another one (its interval, n, null
and p) stand in its cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rcm.comparison.names import SUMMARY, TOGETHER
from rcm.comparison.reading import Reading, method_of
from rcm.record.encoding import file_names
from rcm.record.results import Column, Table
from rcm.report import cells
from rcm.report.cells import Cell
from rcm.report.pictures import merged, title_and_hint, titles, without

MOST, MOST_CHOSEN = 12, 24  # rows on a page; where the table says itself which ones to show


@dataclass(frozen=True)
class Sheet:
    """One table; `note` goes before it."""

    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Sheets:
    """The same table of several runs. `folded`: too long to be shown before someone asks for
    it. `missing`: which runs have none, and why."""

    title: str
    hint: str
    sheets: Sequence[Sheet]
    folded: bool = False
    missing: Sequence[str] = ()


def by_method(readings: Sequence[Reading]) -> list[tuple[str, list[Sheets]]]:
    """Every table that any of the runs stored, in the order in which the methods ran."""
    order = merged([[method_of(table.name) for table in reading.every(Table)] for reading in readings])
    names = [table.name for reading in readings for table in reading.every(Table)]
    chosen = [name for name in dict.fromkeys(names) if name not in TOGETHER and method_of(name) != SUMMARY]
    found = [
        (method, [_side_by_side(name, readings) for name in chosen if method_of(name) == method]) for method in order
    ]
    return [(method, own) for method, own in found if own]


def _side_by_side(name: str, readings: Sequence[Reading]) -> Sheets:
    stored = {reading.run.id: table for reading in readings if (table := reading.table(name))}
    sheets = [
        sheet(cells.titled(title, table.caveat), reading, table, MOST_CHOSEN if table.only else MOST)
        for title, reading in zip(titles(readings), readings, strict=True)
        for table in [stored.get(reading.run.id)]
        if table
    ]
    folded = any(not one.only and len(one.rows) > MOST for one in stored.values())
    return Sheets(*title_and_hint(stored.values()), sheets, folded, without(name, readings, stored))


def sheet(title: str, reading: Reading, table: Table, most: int | None = None) -> Sheet:
    """A stored table, at most so many rows of it."""
    columns = shown_columns(table)
    every = reading.rows(table.name)
    if not every:
        return Sheet(title, "It has no rows.", columns, [])
    shown = [row for row in every if not table.only or row.get(table.only) is True]
    note = _note(
        len(every), len(shown) if table.only else None, most if most is not None and len(shown) > most else None
    )
    where = f"All {len(every)} rows: {reading.run.id}/{file_names(table)[0]}."
    note = f"{note} {where}" if note else ""
    return Sheet(title, note, columns, [[cells.of_column(one, row) for one in columns] for row in shown[:most]])


def _note(every: int, chosen: int | None, first: int | None) -> str:
    """Which rows are shown; empty where all are."""
    if chosen is None:
        return f"The first {first} rows." if first else ""
    return f"{chosen or 'None'} of {every} rows{f', here the first {first}' if first else ''}."


def shown_columns(table: Table) -> list[Column]:
    """Those that the table says to show, or else every column that does not speak of another, under its own name."""
    if table.shown:
        return [column for column in table.shown if column.name in table.columns]
    beside = {f"{name}_{part}" for name in table.columns for part in cells.FOLDED}
    return [Column(name) for name in table.columns if name not in beside and name != table.only]
