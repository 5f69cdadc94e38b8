"""Tables and pictures for papers: complete, fit for their programs, and nothing that a model wrote is a command."""

import csv
import re
from pathlib import Path

import pytest

from rcm.record.results import Scalar
from rcm.report.__main__ import main
from rcm.report.paper import latex, stem
from tests.report.test_report import HOSTILE, a_run, base, store, tuned


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, stage, results in (("base", "base", base()), ("tuned", "safety", tuned())):
        store(a_run(folder / "runs", name, stage), results)
    assert main([str(folder / "runs"), "--out", str(folder / "page"), "--paper"]) == 0
    return folder / "page" / "paper"


def test_every_scalar_stands_in_one_line(paper: Path) -> None:
    rows = list(csv.DictReader((paper / "scalars.csv").open()))
    scalars = [one for one in (*base(), *tuned()) if isinstance(one, Scalar)]
    assert len(rows) == len(scalars)
    row = next(row for row in rows if row["model"] == "tuned" and row["figure"] == "direction/separation")
    one = next(one for one in tuned() if one.name == "direction/separation")
    assert float(row["value"]) == one.value
    assert (float(row["low"]), float(row["high"])) == one.interval


def test_tables_have_as_many_cells_in_each_row(paper: Path) -> None:
    tables = sorted((paper / "tables").glob("*.tex"))
    assert {path.stem.split("-")[0] for path in tables} >= {"figures"}
    for path in tables:
        lines = path.read_text().splitlines()
        columns = len(re.fullmatch(r"\\begin\{tabular\}\{(l+)\}", lines[0])[1])
        assert (lines[1], lines[3], lines[-2], lines[-1]) == (
            r"\toprule",
            r"\midrule",
            r"\bottomrule",
            r"\end{tabular}",
        )
        for line in (lines[2], *lines[4:-2]):
            assert line.endswith(r" \\")
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
        table = list(csv.reader(path.with_suffix(".csv").open()))
        assert {len(row) for row in table} == {columns}
        assert len(table) == len(lines) - 5


def test_every_map_and_curve_is_drawn_in_both_formats(paper: Path) -> None:
    drawn = {path.stem for path in (paper / "figures").iterdir()}
    names = {one.name for one in tuned() if type(one).__name__ in ("Heatmap", "Curve")} | {"direction/cosine"}
    assert len([stem_of for stem_of in drawn if stem_of.startswith("tuned")]) == len(names)
    for name in drawn:
        assert (paper / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (paper / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_text_is_no_command() -> None:
    assert latex(r"50 % of \input{x} & $y_1$ ~ #{} ^") == (
        r"50 \% of \textbackslash{}input\{x\} \& \$y\_1\$ \textasciitilde{} \#\{\} \textasciicircum{}"
    )
    assert not re.search(r"(?<!\\)[&%#_$]", latex(HOSTILE).replace("$<$", "").replace("$>$", ""))


def test_names_are_fit_for_files() -> None:
    assert stem("base → a/b: c..") == "base-a-b-c"
