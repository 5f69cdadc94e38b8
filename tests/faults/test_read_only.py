"""Folders that may be read and not written: one sentence where a run must write, a run where it need not."""

import os
from pathlib import Path

import pytest

from tests.faults.disks import read_only
from tests.faults.homes import a_home, check_whole, noting, what_runs_say
from tests.faults.methods import calls
from tests.faults.processes import Report, ended, launch
from tests.faults.test_full_disk import Convert
from tests.models.test_models import write_gguf


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return a_home(tmp_path)


@pytest.mark.parametrize("overrides", [("seed=0",), ("-m", "seed=0,1")])
def test_the_folder_of_runs(home: Path, overrides: tuple[str, ...]) -> None:
    with read_only(home / "runs"):
        done = ended(home, launch(*overrides), environment=noting(home))
        assert done.code == 1
        assert done.sentence.startswith("The run's folder cannot be written: ")
        assert "runs/" in done.sentence
        assert "choose another with hydra.run.dir=FOLDER" in done.sentence
        assert os.listdir(home / "runs") == []
    assert ended(home, launch(*overrides), environment=noting(home)).code == 0


def test_findings_and_the_home(home: Path) -> None:
    """Nothing is kept, and the run goes on; a home that is a read-only one is nothing to it."""
    with read_only(home / "runs" / ".findings"), read_only(home.parent / "user"):
        own = {**noting(home), "HOME": str(home.parent / "user"), "XDG_CACHE_HOME": "", "RCM_CACHE": ""}
        done = ended(home, launch("seed=0", "tracker=wandb"), environment=own)
        assert "Traceback" not in done.said
        assert (done.code, done.said.count("Nothing is kept beside the runs")) == (0, 4), done.said
        assert len(check_whole(home)) == 1
    assert ended(home, launch("seed=0", "rerun=true"), environment=noting(home)).code == 0
    assert ended(home, launch("seed=0", "rerun=true"), environment=noting(home)).code == 0
    assert calls(home.parent / "calls").count("find 0") == 2


def test_what_the_tracker_records(home: Path) -> None:
    assert ended(home, launch("seed=0"), environment=noting(home)).code == 0
    before = what_runs_say(home)
    (run,) = check_whole(home)
    with read_only(run.directory / "wandb"):
        done = ended(home, launch("seed=0", "rerun=true", "tracker=wandb"), environment=noting(home))
    assert (done.code, "Traceback" in done.said) == (0, False), done.said
    assert done.said.count("W&B does not get the rest of this run") == 1
    assert what_runs_say(home) == before


def test_a_report_reads_what_it_may_not_write(home: Path) -> None:
    assert ended(home, launch("seed=0"), environment=noting(home)).code == 0
    with read_only(home / "runs"), read_only(home / "page"):
        done = ended(home, Report(("runs",)))
        assert done.code == 1
        assert done.sentence.startswith("Cannot write to page (")
        assert done.sentence.endswith("name another folder with --out.")
        assert ended(home, Report(("runs", "--out", "other"))).code == 0
        finished = ended(home, launch("seed=0"), environment=noting(home))
        assert "The run's folder cannot be written" in finished.sentence  # its log is there
    assert (home / "other" / "index.html").exists()


def test_the_cache(home: Path) -> None:
    write_gguf(home / "tiny.gguf")
    convert, cache = Convert(home / "tiny.gguf"), home / "cache"
    with read_only(cache):
        done = ended(home, convert, environment={"RCM_CACHE": str(cache)})
        assert done.code == 1
        assert done.sentence.startswith(f"Nothing can be kept in the cache {cache} (")
        assert done.sentence.endswith("choose another with RCM_CACHE=FOLDER.")
    assert ended(home, convert, environment={"RCM_CACHE": str(cache)}).code == 0
    with read_only(cache):  # what is there already is read
        assert ended(home, convert, environment={"RCM_CACHE": str(cache)}).code == 0
