"""Tables and pictures for papers: complete, fit for their programs, and nothing that a model wrote is a command."""

import csv
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from rcm.comparison import compare
from rcm.record.results import Curve, Diagram, Heatmap, Result, Scalar, Scatter
from rcm.record.stored import stored_runs
from rcm.report import matplotlib_figures
from rcm.report.__main__ import main
from rcm.report.paper import latex, pictures, stem, write
from tests.report.samples import HOSTILE, MAP, a_run, base, lens, store, tuned


def without_pictures(results: list[Result]) -> list[Result]:
    """Drawing takes a second for each."""
    return [one for one in results if not isinstance(one, Heatmap | Curve | Scatter | Diagram)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, stage, results in (("base", "base", base()), ("tuned", "safety", [*tuned(), *lens()])):
        store(a_run(folder, name, stage, [*MAP, "logit_lens"]), without_pictures(results))
    store(a_run(folder, "mine", "chat", ["logit_lens"], family="other"), lens())
    return folder


@pytest.fixture(scope="module")
def paper(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    assert main([str(runs), "--out", str(out), "--paper"]) == 0
    return out / "paper"


def scalars(paper: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((paper / "scalars.csv").open()))


def test_every_scalar_stands_in_one_line(paper: Path) -> None:
    rows = scalars(paper)
    every = [one for one in (*base(), *tuned(), *lens(), *lens()) if isinstance(one, Scalar)]
    assert len(rows) == len(every)
    row = next(row for row in rows if row["model"] == "tuned" and row["figure"] == "direction/separation")
    one = next(one for one in tuned() if one.name == "direction/separation")
    assert isinstance(one, Scalar)
    assert float(row["value"]) == one.value
    assert (float(row["low"]), float(row["high"])) == one.interval
    assert (row["label"], row["unit"], row["counts"], float(row["target"])) == ("separation", "sigma", "prompts", 2.0)
    assert (row["null"], row["null_of"], row["null_draws"], row["p"]) == ("0.41", "shuffled labels", "1000", "0.001")


def test_a_figure_of_an_outside_method_says_what_it_is(paper: Path) -> None:
    row = next(row for row in scalars(paper) if row["model"] == "mine" and row["figure"] == "logit_lens/depth")
    assert (row["label"], row["unit"], row["counts"]) == ("depth of the decision", "blocks", "replies")
    assert (row["null"], row["null_of"], row["null_draws"], row["p"]) == ("1.5", "shuffled layers", "20", "0.03")


def test_tables_have_as_many_cells_in_each_row(paper: Path) -> None:
    tables = sorted((paper / "tables").glob("*.tex"))
    names = {path.stem for path in tables}
    assert names >= {"figures", "figures-logit-lens", "changes-base-tuned"}
    assert names >= {"logit-lens-readings-mine-minechl", "patching-heads-tuned-unedsabdpsl"}
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


def test_tables_for_papers_have_all_their_rows(paper: Path) -> None:
    (path,) = (paper / "tables").glob("logit-lens-readings-mine-*.csv")
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["block", "what it reads"]
    assert rows[1][1].replace("\N{NO-BREAK SPACE}", " ") == "50.0 %; 95 %: 40.0 % to 60.0 % · n = 12"
    assert len(rows) == 21


def test_every_map_and_curve_is_drawn_in_both_formats(paper: Path, runs: Path) -> None:
    drawn = {path.stem for path in (paper / "pictures").iterdir()}
    of_lens = {f"mine-minechl-logit-lens-{name}" for name in ("circuit", "cloud", "curve", "grid")}
    assert drawn == of_lens | {"base-basebabdpsl-tuned-unedsabdpsl-direction-cosine"}
    assert drawn == {name for name, _ in pictures(compare(stored_runs(runs)))}
    for name in drawn:
        assert (paper / "pictures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (paper / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_carry_labels_and_take_them_for_text() -> None:
    grid, curve, cloud, circuit = (one for one in lens() if isinstance(one, Heatmap | Curve | Scatter | Diagram))
    assert matplotlib_figures.figure(grid).axes[0].get_title() == "what the lens reads"
    assert matplotlib_figures.figure(cloud).axes[0].get_xscale() == "log"
    told = {text.get_text() for text in matplotlib_figures.figure(circuit).axes[0].texts}
    assert told == {"source", "0", "1", "output", "the prompt", "0.1", "MLP 1", "refusal"}
    assert matplotlib_figures.figure(replace(grid, label="")).axes[0].get_title() == "logit_lens/grid"
    assert matplotlib_figures.files(replace(curve, label=r"$\frac{1}$", y_label="$"))["pdf"].startswith(b"%PDF")


def test_a_log_axis_is_labelled_in_plain_figures() -> None:
    """Its usual labels are formulas, which would stand there as they are typed."""
    (cloud,) = (one for one in lens() if isinstance(one, Scatter))
    for x in ([0.09, 0.75], [0.3, 0.4], [1e-6, 1.0]):
        drawn = matplotlib_figures.figure(replace(cloud, x=[x[0]] * (len(cloud.x) - 1) + [x[1]]))
        drawn.savefig(BytesIO())
        axis = drawn.axes[0].xaxis
        shown = [text.get_text() for text in (*axis.get_majorticklabels(), *axis.get_minorticklabels())]
        figures = [float(text) for text in shown if text]  # which fails at a formula
        assert len([one for one in figures if x[0] / 2 <= one <= x[1] * 2]) >= 2


def test_long_labels_lie_within_the_picture() -> None:
    words = "share of the gap that is closed where one part is taken from the harmless twin of the prompt"
    grid, curve, cloud = (one for one in lens() if isinstance(one, Heatmap | Curve | Scatter))
    for one in (replace(grid, label=words), replace(curve, label=words, y_label=words), replace(cloud, y_label=words)):
        drawn = matplotlib_figures.figure(one)
        drawn.savefig(BytesIO())
        axes, (width, height) = drawn.axes[0], drawn.get_size_inches() * drawn.dpi
        assert " ".join(axes.get_title().split()) == (one.label or one.name)
        for text in (axes.title, axes.yaxis.label, axes.xaxis.label):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height


def test_no_name_leads_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do two names that are the same once they are fit for files cost one of them its file."""
    monkeypatch.setattr(matplotlib_figures, "files", lambda picture: {"pdf": b"%PDF"})
    evil = replace(a_run(tmp_path, "../../up", "base", ["../logit_lens"], family="../../f"), id="../../../id")
    twice = [replace(one, name=one.name.replace("/grid", " grid")) for one in lens() if isinstance(one, Heatmap)]
    store(replace(evil, directory=tmp_path / "evil"), [*lens(), *twice])
    write(compare(stored_runs(tmp_path)), tmp_path / "deep" / "paper")
    written = {path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "evil"}
    assert all(path.is_relative_to(tmp_path / "deep" / "paper") for path in written)
    assert {path.name for path in written if "grid" in path.name} == {
        "up-id-logit-lens-grid.pdf",
        "up-id-logit-lens-grid-2.pdf",
    }


def test_text_is_no_command() -> None:
    assert latex(r"50 % of \input{x} & $y_1$ ~ #{} ^") == (
        r"50 \% of \textbackslash{}input\{x\} \& \$y\_1\$ \textasciitilde{} \#\{\} \textasciicircum{}"
    )
    assert not re.search(r"(?<!\\)[&%#_$]", latex(HOSTILE).replace("$<$", "").replace("$>$", ""))


def test_names_are_fit_for_files() -> None:
    assert stem("base → a/b: c..") == "base-a-b-c"
    assert stem("../..") == "unnamed"
    assert len(stem("x" * 300)) == 100
