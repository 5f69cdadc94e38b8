"""A full disk: a run ends in one sentence, or goes on without what it can do without; with room, it ends well."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from rcm.models.gguf import Gguf
from tests.conftest import UNSET
from tests.faults.disks import small_disk
from tests.faults.homes import a_home, check_whole, noting, what_runs_say
from tests.faults.methods import calls
from tests.faults.processes import NoMoreThan, Report, ended, launch
from tests.models.test_models import write_gguf

CURE = "choose another with hydra.run.dir=FOLDER, with -m hydra.sweep.dir=FOLDER."
RUN = launch("seed=0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run has ended undisturbed."""
    home = a_home(tmp_path_factory.mktemp("finished"))
    assert ended(home, RUN, environment=noting(home)).code == 0
    return home


@pytest.mark.parametrize("left", [0, 24, 70, 104])  # at its first file, at a table, at a long text, at the last tensors
def test_a_run_is_one_sentence_and_ends_well_once_there_is_room(finished: Path, tmp_path: Path, left: int) -> None:
    with small_disk(tmp_path / "home") as disk:
        disk.leave(left)
        done = ended(disk.folder, RUN, environment=noting(disk.folder))
        assert done.code == 1
        assert f"cannot be written: {disk.folder}/runs/" in done.sentence
        assert done.sentence.endswith(f"(No space left on device); make room there and run again, or {CURE}")
        assert check_whole(disk.folder) == []
        disk.make_room()
        assert ended(disk.folder, RUN, environment=noting(disk.folder)).code == 0
        assert what_runs_say(disk.folder) == what_runs_say(finished)


@pytest.mark.parametrize("size", [150, 2500, 9000])
def test_a_file_that_may_not_grow_is_one_sentence(finished: Path, tmp_path: Path, size: int) -> None:
    """What every system can do, without a disk of its own."""
    home = a_home(tmp_path)
    done = ended(home, RUN, NoMoreThan(size), environment=noting(home))
    assert done.code == 1
    assert done.sentence.endswith(f"(File too large); {CURE}")
    assert check_whole(home) == []
    assert ended(home, RUN, environment=noting(home)).code == 0
    assert what_runs_say(home) == what_runs_say(finished)


@pytest.mark.parametrize("left", [0, 40])
def test_what_had_finished_is_back_when_its_successor_finds_no_room(finished: Path, tmp_path: Path, left: int) -> None:
    with small_disk(tmp_path / "home") as disk:
        shutil.copytree(finished / "runs", disk.folder / "runs")
        before = what_runs_say(disk.folder)
        disk.leave(left)
        anew = launch("seed=0", "rerun=true", "reuse=false")
        done = ended(disk.folder, anew, environment=noting(disk.folder, 2))
        assert (done.code, "No space left" in done.sentence) == (1, True)
        assert what_runs_say(disk.folder) == before
        assert len(check_whole(disk.folder)) == 1
        disk.make_room()
        assert ended(disk.folder, anew, environment=noting(disk.folder, 2)).code == 0
        assert what_runs_say(disk.folder) != before


def test_where_findings_find_no_room_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    home = a_home(tmp_path)
    with small_disk(home / "runs" / ".findings", 256) as disk:
        disk.leave(8)
        done = ended(home, RUN, environment=noting(home))
        assert done.code == 0
        assert f"What show found is not kept ({disk.folder}" in done.said
        assert not list(disk.folder.glob("*.partial"))
        assert what_runs_say(home) == what_runs_say(finished)
        disk.make_room()
        assert ended(home, launch("seed=0", "rerun=true"), environment=noting(home)).code == 0
        assert ended(home, launch("seed=0", "rerun=true"), environment=noting(home)).code == 0
    assert calls(tmp_path / "calls").count("show 0") == 2  # kept from the second time on


def test_where_the_tracker_finds_no_room_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(finished, home)
    (run,) = check_whole(home)
    with small_disk(run.directory / "wandb", 128) as disk:
        disk.leave(16)
        done = ended(home, launch("seed=0", "rerun=true", "tracker=wandb"), environment=noting(home))
    assert (done.code, "Traceback" in done.said) == (0, False), done.said
    assert done.said.count("W&B does not get the rest of this run") == 1
    assert what_runs_say(home) == what_runs_say(finished)


@dataclass(frozen=True)
class Convert:
    """A GGUF file into the cache; exits with the sentence that it is refused in."""

    file: Path

    def __call__(self) -> str | None:
        from rcm.errors import InputError

        model = Gguf(path=str(self.file), dtype="float32", **UNSET)
        try:
            model.config()
        except InputError as error:
            return str(error)
        return None


def test_a_conversion_into_a_full_cache_leaves_nothing_there(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    convert = Convert(tmp_path / "tiny.gguf")
    with small_disk(tmp_path / "cache") as disk:
        disk.leave(20)
        done = ended(tmp_path, convert, environment={"RCM_CACHE": str(disk.folder)})
        assert done.code == 1
        told = done.said.splitlines()[-1]  # after transformers' bars
        assert f"cannot be kept in the cache {disk.folder}" in told
        assert told.endswith("make room there, or choose another with RCM_CACHE=FOLDER.")
        assert "Traceback" not in done.said
        assert os.listdir(disk.folder) == ["ballast"]
        disk.make_room()
        assert ended(tmp_path, convert, environment={"RCM_CACHE": str(disk.folder)}).code == 0


def test_a_report_that_finds_no_room_leaves_the_page_as_it_was(finished: Path, tmp_path: Path) -> None:
    runs = str(finished / "runs")
    with small_disk(tmp_path / "page") as disk:
        report = Report((runs, "--out", str(disk.folder)))
        assert ended(tmp_path, report).code == 0
        before = {path: path.read_bytes() for path in disk.folder.iterdir()}
        disk.leave(16)
        done = ended(tmp_path, report)
        assert done.code == 1
        assert done.sentence == (
            f"Cannot write to {disk.folder} (No space left on device); make room there, or name another folder with "
            "--out."
        )
        disk.make_room()
        assert {path: path.read_bytes() for path in disk.folder.iterdir()} == before
        assert ended(tmp_path, report).code == 0
