"""The command `rcm` out of an installed wheel, in an empty folder."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from rcm.record.stored import stored_runs

pytest.importorskip("hatchling", reason="which builds the wheel, is not there")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command in an environment of its own, which sees the packages of this one and the clone not at all."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    said(folder, *pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (wheel,) = folder.glob("rcm-*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    said(folder, *pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (own,) = (folder / "venv").glob("lib/python*/site-packages")
    # Only now, or else pip would find the clone's rcm installed; a .pth file in those folders is not followed.
    (own / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return folder / "venv" / "bin" / "rcm"


def said(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_help_and_settings_are_those_of_the_clone(rcm: Path, tmp_path: Path) -> None:
    for flags in (["--help"], ["--cfg", "job"], ["--cfg", "job", "experiment=smoke"]):
        assert said(tmp_path, str(rcm), *flags) == said(tmp_path, sys.executable, str(ROOT / "launch.py"), *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_sentence_of_its_own_for_a_wrong_option(rcm: Path, tmp_path: Path) -> None:
    done = subprocess.run([rcm, "tracker=paper"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == "tracker=paper: there is no such option; choose one of disk, wandb\n"
    assert done.returncode == 1


@pytest.mark.slow
def test_a_run_is_the_same_run_as_the_clones(rcm: Path, tmp_path: Path) -> None:
    assert "Finished: " in said(tmp_path, str(rcm), "experiment=smoke")
    (run,) = stored_runs(tmp_path / "runs")
    assert (run.status, run.provenance["git"]) == ("finished", None)
    assert run.provenance["command"].endswith("rcm experiment=smoke")
    assert (run.directory / "launch.log").read_text().count("Finished: ") == 1
    assert "Finished already" in said(tmp_path, sys.executable, str(ROOT / "launch.py"), "experiment=smoke")
