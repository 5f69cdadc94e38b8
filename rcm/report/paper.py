r"""For papers: tables as CSV and as LaTeX (booktabs), pictures as PNG and PDF.

    scalars.csv                    every figure of every run, one to a line: for programs
    tables/figures.csv, .tex       the table that stands first on the page, and likewise its other tables
    figures/MODEL-RUN-NAME.pdf     every map and curve of every run

LaTeX needs \usepackage{booktabs} and nothing else.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rcm.comparison.reading import Comparison, Reading
from rcm.comparison.verdict import Tuning
from rcm.record.results import Curve, Heatmap, Result, Scalar
from rcm.record.units import TIED
from rcm.report import changes, equal_kl, heads, transplants
from rcm.report.figures import Cell
from rcm.report.formatting import visible
from rcm.report.matplotlib_figures import printed
from rcm.report.sections import sections

FORMATS = ("pdf", "png")
SCALARS = (
    "run",
    "model",
    "stage",
    "method",
    "seed",
    "figure",
    "value",
    "low",
    "high",
    "n",
    "null",
    "target",
    "unscored",
    "kappa",
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


class Sheet(NamedTuple):
    """A table of the page, by its file name."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write(comparison: Comparison, tunings: Sequence[Tuning], out: Path) -> None:
    """Write everything below `out`."""
    _scalars(comparison.finished, out / "scalars.csv")
    for sheet in sheets(comparison, tunings):
        _csv(sheet, out / "tables" / f"{sheet.name}.csv")
        _latex(sheet, out / "tables" / f"{sheet.name}.tex")
    for reading in comparison.finished:
        _figures(reading, reading.results, out / "figures")
    for one in tunings:
        _figures(one.after, [one.cosines], out / "figures")


def sheets(comparison: Comparison, tunings: Sequence[Tuning]) -> Iterator[Sheet]:
    """The tables of the page."""
    readings = comparison.compared
    if readings:
        rows = [
            [Cell(section.title), Cell(row.label), *row.cells] for section in sections(readings) for row in section.rows
        ]
        yield Sheet("figures", ["part", "figure", *(reading.name for reading in readings)], rows)
    for one in tunings:
        yield Sheet(f"changes-{stem(one.name)}", _names(changes.COLUMNS), changes.told(one.changes).rows)
    matrix = transplants.matrix(comparison.others)
    if matrix:
        yield Sheet("transplants", _names(transplants.COLUMNS), matrix.rows)
    for name, columns, found in (
        ("critical-heads", heads.COLUMNS, heads.critical_heads(comparison.finished)),
        ("equal-kl", equal_kl.COLUMNS, equal_kl.at_equal_kl(comparison.finished)),
    ):
        for reading, told in found:
            yield Sheet(f"{name}-{stem(reading.name)}-{reading.run.id}", _names(columns), told.rows)


def _names(columns: Sequence[tuple[str, str]]) -> list[str]:
    return [name.strip() for name, _ in columns]


def stem(text: str) -> str:
    """Fit for a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def _scalars(readings: Sequence[Reading], path: Path) -> None:
    rows = [
        [
            *(
                reading.run.id,
                reading.name,
                reading.stage,
                reading.run.choices["method"],
                reading.run.config.get("seed"),
            ),
            *(
                one.name,
                one.value,
                *(one.interval or (None, None)),
                one.n,
                one.null,
                one.target,
                one.unscored,
                one.kappa,
            ),
        ]
        for reading in readings
        for one in reading.every(Scalar)
    ]
    _lines(path, [SCALARS, *rows])


def _csv(sheet: Sheet, path: Path) -> None:
    rows = [
        [visible("; ".join(filter(None, (one.text, one.verdict, one.detail)))) for one in row] for row in sheet.rows
    ]
    _lines(path, [sheet.columns, *rows])


def _lines(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


def _latex(sheet: Sheet, path: Path) -> None:
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(sheet.columns)}}}",
        r"\toprule",
        rf"{' & '.join(map(latex, sheet.columns))} \\",
        r"\midrule",
        *(rf"{' & '.join(map(_latex_cell, row))} \\" for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _latex_cell(cell: Cell) -> str:
    """The detail in small print, as far as it is figures: sentences belong into the text."""
    detail = cell.detail if len(cell.detail) < 60 else ""
    return " ".join(filter(None, (latex(cell.text), rf"{{\scriptsize {latex(detail)}}}" if detail else "")))


def latex(text: str) -> str:
    """The text, with what LaTeX takes for commands taken for itself."""
    return "".join(IN_LATEX.get(character, character) for character in visible(text))


def _figures(reading: Reading, results: Sequence[Result | None], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        if isinstance(result, Heatmap | Curve):
            for format in FORMATS:
                path = folder / f"{stem(reading.name)}-{reading.run.id}-{stem(result.name)}.{format}"
                path.write_bytes(printed(result, format))
