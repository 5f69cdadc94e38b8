r"""For papers: tables as CSV and as LaTeX (booktabs), pictures as PNG and PDF.

    scalars.csv                       every figure of every run, one to a line: for programs
    tables/figures.csv, .tex          the table that stands first on the page; of other runs figures-METHODS
    tables/NAME-MODEL-RUN.csv, .tex   every table of every run, as the page shows it, with all its rows
    tables/changes-, emergence-       likewise the tables of the comparison
    pictures/MODEL-RUN-NAME.pdf       every map, curve and circuit of every run

LaTeX needs \usepackage{booktabs} and nothing else. No name can lead out of the folder: of names only letters, digits,
dots and hyphens are left (`stem`).
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rcm.comparison import Comparison
from rcm.comparison.names import SUMMARY, TOGETHER
from rcm.comparison.reading import Reading, method_of
from rcm.record.results import Curve, Diagram, Heatmap, Scalar, Scatter, Table
from rcm.record.storage import whole
from rcm.record.units import TIED
from rcm.report import changes, emergence, matplotlib_figures, transplants
from rcm.report.cells import Cell
from rcm.report.formatting import stem, visible
from rcm.report.pictures import titles
from rcm.report.sections import sections
from rcm.report.tables import Sheet, sheet

SCALARS = (
    *("run", "model", "stage", "method", "seed", "figure", "label", "value", "unit", "low", "high", "n", "counts"),
    *("null", "null_of", "null_draws", "p", "target", "unscored", "kappa", "judged_low", "judged_high"),
)
IN_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "σ": r"$\sigma$",
    "ρ": r"$\rho$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
    TIED: "~",
    "\n": " ",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


class Printed(NamedTuple):
    """A table by the name of its files."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write(comparison: Comparison, out: Path) -> None:
    """Write everything below `out`."""
    _lines(out / "scalars.csv", [SCALARS, *(_scalar(r, one) for r in comparison.finished for one in r.every(Scalar))])
    taken: set[str] = set()
    for table in printed(comparison):
        path = out / "tables" / _free(table.name, taken)
        _lines(path.with_name(f"{path.name}.csv"), [table.columns, *(map(_csv_cell, row) for row in table.rows)])
        with whole(path.with_name(f"{path.name}.tex")) as file:
            file.write_text(_latex(table), encoding="utf-8")
    taken = set()
    for name, picture in pictures(comparison):
        path = out / "pictures" / _free(name, taken)
        for format, content in matplotlib_figures.files(picture).items():
            with whole(path.with_name(f"{path.name}.{format}")) as file:
                file.write_bytes(content)


def printed(comparison: Comparison) -> Iterator[Printed]:
    """The tables of the page."""
    if comparison.compared:
        yield _first("figures", comparison.compared)
    for group in comparison.others:
        yield _first(f"figures-{stem(group.title)}", group.readings)
    for tuning in comparison.tunings:
        yield from (_of_sheet(f"changes-{stem(tuning.name)}", one) for one in changes.sheets(tuning))
    for series in comparison.emergence:
        yield _of_sheet(f"emergence-{stem(series.name)}", emergence.sheet(series))
    for one in transplants.sheets(comparison.transplants):
        yield _of_sheet(stem(one.title), one)
    for reading in comparison.finished:
        for table in reading.every(Table):
            if table.name not in TOGETHER and method_of(table.name) != SUMMARY:
                yield _of_sheet(f"{stem(table.name)}-{_run(reading)}", sheet(reading.name, reading, table))


def pictures(comparison: Comparison) -> Iterator[tuple[str, Heatmap | Curve | Scatter | Diagram]]:
    """Every map, curve, cloud of points and circuit, by the name of its files."""
    for reading in comparison.finished:
        for one in reading.results:
            if isinstance(one, Heatmap | Curve | Scatter | Diagram):
                yield f"{_run(reading)}-{stem(one.name)}", one
    for pair in (pair for tuning in comparison.tunings for pair in tuning.pairs):
        if pair.cosines:
            both = f"{pair.before.name} and {pair.after.name}"
            title = f"{pair.cosines.label or pair.cosines.name} {both}"
            name = f"{_run(pair.before)}-{_run(pair.after)}-{stem(pair.cosines.name)}"
            yield name, replace(pair.cosines, label=title)
    for series in comparison.emergence:
        yield from ((f"emergence-{stem(series.name)}-{stem(one.label)}", one) for one in emergence.curves(series))


def latex(text: str) -> str:
    """The text, with what LaTeX takes for commands taken for itself."""
    return "".join(IN_LATEX.get(character, character) for character in visible(text))


def _run(reading: Reading) -> str:
    return f"{stem(reading.name)}-{stem(reading.run.id)}"


def _free(name: str, taken: set[str]) -> str:
    """The name, or where it is taken the name with a number: two names may be the same once they are fit for files."""
    numbered = (name if i == 1 else f"{name}-{i}" for i in range(1, len(taken) + 2))
    found = next(one for one in numbered if one.lower() not in taken)
    taken.add(found.lower())
    return found


def _first(name: str, readings: Sequence[Reading]) -> Printed:
    rows = [
        [Cell(section.title), Cell(row.label), *row.cells] for section in sections(readings) for row in section.rows
    ]
    return Printed(name, ["part", "figure", *titles(readings)], rows)


def _of_sheet(name: str, one: Sheet) -> Printed:
    return Printed(name, [column.label or column.name for column in one.columns], one.rows)


def _scalar(reading: Reading, one: Scalar) -> list[object]:
    run, null = reading.run, one.null
    return [
        *(run.id, reading.name, reading.stage, run.choices["method"], run.config.get("seed"), one.name, one.label),
        *(one.value, one.unit, *(one.interval or (None, None)), one.n, one.counts),
        *((null.value, null.of, null.draws, null.p) if null else (None,) * 4),
        *(one.target, one.unscored, one.kappa, *(one.judged or (None, None))),
    ]


def _lines(path: Path, rows: Sequence[Iterator[object] | Sequence[object]]) -> None:
    with whole(path) as file, file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def _csv_cell(cell: Cell) -> str:
    return visible("; ".join(filter(None, (cell.text, cell.standing, cell.detail))))


def _latex(table: Printed) -> str:
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\toprule",
        rf"{' & '.join(map(latex, table.columns))} \\",
        r"\midrule",
        *(rf"{' & '.join(map(_latex_cell, row))} \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    """The details in small print, as far as they are figures: sentences belong into the text."""
    small = [detail for detail in cell.details if not detail.endswith(".") or not cell.text]
    small = [cell.caveat, *small] if cell.caveat else small
    return " ".join(filter(None, (latex(cell.text), rf"{{\scriptsize {latex('; '.join(small))}}}" if small else "")))
