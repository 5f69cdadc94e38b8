"""A finished run has a picture; one that measured no model has none."""

from pathlib import Path

from matplotlib.image import imread

from rcm.record.results import Scalar
from rcm.running.pictured import pictured
from tests.comparison.made import a_run, measured


def test_a_run_that_measured_a_model_is_drawn(tmp_path: Path) -> None:
    run = a_run(tmp_path, "m", "chat", measured(0.9)).run
    found = pictured(run.directory)
    assert found == run.directory / "overview.png"
    assert imread(found)[..., :3].std() > 0.02
    assert not [one for one in run.directory.iterdir() if "partial" in one.name]


def test_a_run_of_another_method_is_not(tmp_path: Path) -> None:
    run = a_run(tmp_path, "m", "chat", [Scalar("other/x", 1.0)], methods={"other": {}}).run
    assert pictured(run.directory) is None
    assert not (run.directory / "overview.png").exists()
