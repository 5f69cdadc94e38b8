"""A method that lies outside the package, one file and one YAML, is shown wherever results are shown."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rcm.record.stored import stored_runs
from rcm.tracking.wandb_file import OfflineRun, offline_files
from tests import stubs

ROOT = Path(__file__).parents[1]
METHOD = """
from collections.abc import Iterator

import numpy as np
import torch

from rcm.methods import Method, Study
from rcm.record.results import Curve, Heatmap, Line, Null, Outcome, Result, Scalar, Table, Transcripts
from rcm.record.results import Column


class Kinds(Method):
    size: int

    def run(self, study: Study) -> Iterator[Result]:
        yield Scalar(
            "kinds/height", torch.tensor(1.75), (1.5, 2.0), 12, Null(0.5, "tossed coins", 99), label="how high it is",
            unit="furlongs", hint="measured with a rope", counts="sheep", good="high",
        )
        yield Heatmap(
            "kinds/field", np.arange(float(self.size)).reshape(1, -1), ["0"], list("abcdef"[: self.size]), "layer",
            "head", value_label="grass", label="where grass grows", hint="Greener is better.",
        )
        yield Curve(
            "kinds/growth", [0.0, 1.0], [Line("lambs", [2.0, 3.0])], "season", "flock",
            label="how flocks grow", hint="By the season.",
        )
        yield Table(
            "kinds/flock", ["name", "wool", "wool_low", "wool_high"], [("Dolly", 0.25, 0.125, 0.5)],
            label="the flock", hint="All of it.",
            shown=[Column("name", "sheep"), Column("wool", "its wool", "share", "of all")],
        )
        yield Transcripts(
            "kinds/bleats", [{"prompt": "Well?", "completion": "Baa, it said.", "verdict": "compliance"}],
            label="what they said", hint="Verbatim.",
        )
        yield Outcome("kinds/outcome", "grazing", "There is grass enough.")
"""


def ran(folder: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "WANDB_MODE": "offline"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it has run, beside another seed, and was compared."""
    folder = tmp_path_factory.mktemp("outside")
    options = stubs.write_options(folder / "options")
    (folder / "my_kinds.py").write_text(METHOD)
    (options / "method" / "kinds.yaml").write_text("# @package method.kinds\n_target_: my_kinds.Kinds\nsize: 3\n")
    given = ("--config-dir=options", "model=stub", "dataset=stub", "method=kinds", "method.kinds.size=4", "device=cpu")
    ran(folder, str(ROOT / "launch.py"), "-m", *given, "seed=0,1")
    ran(folder, "-m", "rcm.report", "runs", "--out", "page", "--paper")
    return folder


@pytest.mark.slow
def test_it_is_on_the_page_and_in_markdown(folder: Path) -> None:
    page, twin = (folder / "page" / "index.html").read_text(), (folder / "page" / "report.md").read_text()
    for text in (page, twin):
        shown = text.replace("\N{NO-BREAK SPACE}", " ").replace("&#46;", ".")
        for part in (
            "how high it is",
            "1.75 furlongs",
            "measured with a rope",
            "0.5 furlongs",
            "tossed coins",
            "12 sheep",
        ):
            assert part in shown, part
        for part in ("the flock", "its wool", "25.0 %", "12.5 %", "There is grass enough"):
            assert part in shown, part
        assert "what they said" in shown or "kinds/bleats" in shown
        assert "Baa, it said" in shown
    for part in ("where grass grows", "Greener is better.", "grass", "how flocks grow", "By the season.", "lambs"):
        assert part in page, part


@pytest.mark.slow
def test_it_is_in_the_paper(folder: Path) -> None:
    paper = folder / "page" / "paper"
    with (paper / "scalars.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["figure"] == "kinds/height"]
    assert len(rows) == 2
    assert {(row["label"], row["unit"], row["null"], row["null_of"]) for row in rows} == {
        ("how high it is", "furlongs", "0.5", "tossed coins")
    }
    names = {path.name for path in paper.rglob("*")}
    for part in ("kinds-field", "kinds-growth"):
        assert sum(part in name and name.endswith(".pdf") for name in names) == 2, part
    assert any("its wool" in path.read_text(encoding="utf-8") for path in paper.rglob("*.tex"))


@pytest.mark.slow
def test_it_is_in_wandb(folder: Path) -> None:
    for run in stored_runs(folder / "runs"):
        assert run.methods == ("kinds",)
        (path,) = offline_files(run.directory)
        found: Any = OfflineRun.of(path)
        assert found.summary["kinds/height"] == 1.75
        logged = {key for row in found.rows for key in row}
        assert {"kinds/field", "kinds/growth", "kinds_flock", "kinds_bleats", "figures"} <= logged
        tables = "".join(file.read_text() for file in path.parent.rglob("*.table.json"))
        for part in ("how high it is", "furlongs", "measured with a rope", "tossed coins", "Baa, it said."):
            assert part in tables, part
        figures = "".join(file.read_text() for file in path.parent.rglob("*.plotly.json"))
        assert "where grass grows" in figures
        assert "how flocks grow" in figures
