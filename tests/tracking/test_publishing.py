"""What W&B has, after runs that went well, were killed, were repeated, or met a server that was out of order.

The client is the real one; what arrived is asserted on the state of the server in `tests/wandb_server`.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rcm.record.results import Adapter, Outcome, Table, Tensors
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_runs
from rcm.running.run import alone_in
from rcm.tracking.__main__ import main
from rcm.tracking.tracker import Wandb
from rcm.tracking.wandb_file import HEADER, OfflineRun, content
from tests import stubs
from tests.test_launch import command, kill_once, wait_for
from tests.tracking.test_tracking import BARE, FOUND, OFFLINE, a_run, recorded, track
from tests.wandb_server import Fault, WandbServer
from tests.wandb_server.state import Artifact
from tests.wandb_server.state import Run as Arrived

ONLINE = Wandb(project="rcm", entity=None, mode="online", wait=15.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return a_run(tmp_path / "runs" / "0a1b2c3d")


def sync(run: Run) -> int:
    return main(["sync", str(run.directory.parent)])


def has_everything(arrived: Arrived, found: OfflineRun) -> bool:
    """Every row once and in order, every figure, the bytes of every file and of every artifact."""
    assert [row["_step"] for row in arrived.history] == list(range(len(found.rows)))
    assert list(map(content, arrived.history)) == list(map(content, found.rows))
    assert {key: value for key, value in found.summary.items() if "/" in key}.items() <= arrived.summary.items()
    assert arrived.settings == {key: value for key, value in found.config.items() if key != "_wandb"}
    for name in found.files:
        path = arrived.files[name]
        assert path is not None
        assert path.read_bytes() == (found.path.parent / "files" / name).read_bytes()
    artifacts = {one.collection: one for one in arrived.logged}
    assert {name: one.digest for name, one in artifacts.items()} == found.artifacts
    assert {one.state for one in artifacts.values()} == {"COMMITTED"}
    for name, path in files_of(artifacts, found):
        assert path.read_bytes() == (found.path.parents[2] / name).read_bytes()
    return True


def files_of(artifacts: dict[str, Any], found: OfflineRun) -> Iterator[tuple[str, Path]]:
    """What lies in the run directory, of the artifacts that hold files of it."""
    for one in artifacts.values():
        for name, path in one.files.items():
            if not one.collection.startswith("run-"):  # of tables, W&B makes artifacts of its own
                (place,) = found.path.parents[2].glob(f"**/{name}")
                yield str(place.relative_to(found.path.parents[2])), path


def test_an_online_run_has_arrived_when_it_ends(wandb_server: WandbServer, run: Run) -> None:
    track(ONLINE, run, stubs.one_of_each())
    arrived = wandb_server.run("rcm", run.id)
    assert has_everything(arrived, recorded(run))
    assert (arrived.state, arrived.group, arrived.job_type) == ("finished", "tiny/demo", "chat")
    assert arrived.display_name == "tiny-chat/pairs/behaviour,direction"
    assert set(arrived.tags) == {"behaviour", "direction", "pairs", "prefix"}
    assert len(arrived.logged) == 10  # with the tables of figures and conclusions
    assert (run.directory / "wandb/data").is_dir()


def test_an_offline_run_is_published_later_and_only_once(
    wandb_server: WandbServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    track(OFFLINE, run, stubs.one_of_each())
    assert wandb_server.requests == 0
    for _ in range(2):
        assert sync(run) == 0
        assert has_everything(wandb_server.run("rcm", run.id), recorded(run))
    assert len(wandb_server.artifacts) == 10
    assert not list(Path.cwd().iterdir())  # the client's logs lie with the run


@pytest.mark.parametrize("mode", [ONLINE, OFFLINE])
def test_an_outcome_tags_its_run(wandb_server: WandbServer, run: Run, mode: Wandb) -> None:
    track(mode, run, [Outcome("direction/outcome", "nearest_miss", "", tag="selection: nearest_miss")])
    if mode is OFFLINE:
        assert sync(run) == 0
    wanted = {"behaviour", "direction", "pairs", "prefix", "selection: nearest_miss"}
    assert set(wandb_server.run("rcm", run.id).tags) == wanted


def test_what_did_not_arrive_is_told(wandb_server: WandbServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The client's own sync exits 0 here, and marks the run as synced."""
    track(OFFLINE, run, stubs.one_of_each())
    staged = run.directory / "wandb" / "data"
    staged.rename(staged.with_name("elsewhere"))  # as when the run directory was moved
    with caplog.at_level("INFO"):
        assert sync(run) == 1
    assert "NOT all arrived: 9/9 rows, 3/3 figures" in caplog.text
    assert "2/10 artifacts" in caplog.text
    staged.with_name("elsewhere").rename(staged)
    assert sync(run) == 0
    assert has_everything(wandb_server.run("rcm", run.id), recorded(run))


def test_a_changed_result_follows_what_is_there(wandb_server: WandbServer, run: Run) -> None:
    """As when the code has changed between two attempts: neither version is lost, and steps go on."""
    for cell in ("first", "second"):
        track(OFFLINE, run, [Table("stub/same", ("a",), (("b",),)), Table("stub/other", ("a",), ((cell,),))])
        assert sync(run) == 0
    arrived = wandb_server.run("rcm", run.id)
    assert [(row["_step"], next(key for key in row if key[0] != "_")) for row in arrived.history] == [
        (0, "stub_same"),
        (1, "stub_other"),
        (2, "stub_other"),
    ]
    assert arrived.summary["stub_other"]["sha256"] == recorded(run).rows[1]["stub_other"]["sha256"]


def test_the_figures_of_a_failed_attempt_are_followed_by_all_of_the_next(wandb_server: WandbServer, run: Run) -> None:
    def breaks() -> None:
        with OFFLINE.open(run) as track:
            track(FOUND)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        breaks()
    assert sync(run) == 0
    first = wandb_server.run("rcm", run.id)
    assert (first.state, len(first.history)) == ("failed", 1)
    track(OFFLINE, run, [FOUND, BARE])
    for _ in range(2):
        assert sync(run) == 0
        arrived = wandb_server.run("rcm", run.id)
        assert (arrived.state, [row["_step"] for row in arrived.history]) == ("finished", [0, 1])
        assert arrived.summary["figures"]["sha256"] == recorded(run).rows[0]["figures"]["sha256"]
        assert arrived.summary["figures"]["nrows"] == 2


def test_lineage_is_joined_once_its_ends_are_there(
    wandb_server: WandbServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    track(OFFLINE, run, [one for one in stubs.one_of_each() if isinstance(one, Tensors | Adapter)])
    reader = a_run(run.directory.with_name("11112222"), adapter=str(run.directory / "adapter"))
    track(OFFLINE, reader, stubs.one_of_each()[:1])
    assert main(["sync", str(reader.directory)]) == 0
    assert f"stub_adapter-{run.id}, which W&B has not got yet" in caplog.text
    assert sync(run) == 0
    assert sync(run) == 0
    assert [one.collection for one in wandb_server.run("rcm", reader.id).used] == [f"stub_adapter-{run.id}"]


def test_a_run_that_goes_on_is_left_alone(
    wandb_server: WandbServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with alone_in(run.directory), OFFLINE.open(run), caplog.at_level("INFO"):
        assert sync(run) == 0
    assert "goes on still" in caplog.text
    assert not wandb_server.runs


def test_nothing_recorded_and_nobody_there_are_one_sentence(
    wandb_server: WandbServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    assert sync(run) == 1
    assert "There is nothing recorded in" in caplog.text
    track(OFFLINE, run, [])
    wandb_server.fault = Fault.DEAD
    assert sync(run) == 1
    assert "does not answer; look at the network" in caplog.text


@pytest.mark.slow
def test_a_file_that_says_nothing_does_not_keep_the_others_back(
    wandb_server: WandbServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    file = run.directory / "wandb" / f"offline-run-20260101_000000-{run.id}" / f"run-{run.id}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(HEADER)  # killed at once
    other = a_run(run.directory.with_name("11112222"))
    track(OFFLINE, other, stubs.one_of_each())
    assert sync(run) == 1
    assert "No run can be read in" in caplog.text
    assert has_everything(wandb_server.run("rcm", other.id), recorded(other))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, *Fault])
def test_no_server_costs_a_run_its_data(
    wandb_server: WandbServer, run: Run, fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in mid-run; with None nobody was there from the start. The run ends well, and all arrives later."""
    if fault is None:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with Store(run) as store, ONLINE.model_copy(update={"wait": 1.0}).open(run) as track:
        for number, result in enumerate(stubs.one_of_each()):
            if number == 4 and fault is not None:
                wait_for(lambda: bool(wandb_server.runs))
                wandb_server.fault = fault
            store.save(result)
            track(result)
    found = recorded(run)
    assert (found.exit_code, len(found.rows), len(found.artifacts)) == (0, 9, 10)
    assert len(wandb_server.artifacts) < 8 or fault is not None
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    wandb_server.fault = None
    assert sync_again(run) == 0
    assert has_everything(wandb_server.run("rcm", run.id), found)


def sync_again(run: Run) -> int:
    """In a process of its own: this one's client remembers its server."""
    return subprocess.run([sys.executable, "-m", "rcm.tracking", "sync", str(run.directory)]).returncode


@pytest.mark.slow
def test_a_multirun_arrives_and_goes_on_where_it_was_killed(wandb_server: WandbServer, tmp_path: Path) -> None:
    """Online. What follows a run publishes what was recorded until the kill; the second attempt adds the rest."""
    jobs = command(tmp_path, "-m", "tracker=wandb", "tracker.mode=online", "seed=0,1")
    kill_once(lambda: any(map(is_half_way, tmp_path.glob("runs/*/wandb/*/run-*.wandb"))), tmp_path, jobs)
    wait_for(lambda: any(run.state == "failed" for run in wandb_server.runs.values()))
    (killed,) = wandb_server.runs.values()
    wait_for(lambda: len(killed.history) == 8 and len(committed(wandb_server)) == 8)
    assert "stub/low" not in killed.summary

    done = subprocess.run(jobs, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("W&B: offline-run") == 2
    runs = stored_runs(tmp_path / "runs")
    assert len(runs) == len(wandb_server.runs) == 2
    for run in runs:
        arrived = wandb_server.run("rcm", run.id)
        assert has_everything(arrived, recorded(run))
        assert arrived.state == "finished"
        assert arrived.settings["seed"] == run.config["seed"]
        assert arrived.summary["stub/random"] == run.metrics["stub/random"]
    assert len(committed(wandb_server)) == 22  # eight of the stub's results, targets, figures, conclusions


def committed(server: WandbServer) -> list[Artifact]:
    """The artifacts that are whole. One that a client begins again, because an answer came late, stays pending."""
    return [artifact for artifact in server.artifacts.values() if artifact.state == "COMMITTED"]


def is_half_way(record: Path) -> bool:
    found = OfflineRun.of(record)
    return (len(found.rows), len(found.artifacts)) == (8, 8)


def test_a_run_that_names_no_team_goes_to_that_of_the_environment(
    wandb_server: WandbServer, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With its artifacts, and only once; one that names a team, and any run's project, stay as they were recorded."""
    other = a_run(run.directory.with_name("11112222"))
    track(OFFLINE, run, stubs.one_of_each())
    track(OFFLINE.model_copy(update={"entity": "theirs"}), other, stubs.one_of_each())
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_PROJECT", "elsewhere")
    for _ in range(2):
        assert sync(run) == 0
        assert has_everything(wandb_server.run("rcm", run.id, "team"), recorded(run))
    assert {(entity, project) for entity, project, _ in wandb_server.runs} == {("team", "rcm"), ("theirs", "rcm")}
    assert {one.entity for one in wandb_server.run("rcm", run.id, "team").logged} == {"team"}
    assert {one.entity for one in wandb_server.artifacts.values()} == {"team", "theirs"}
    assert f"WANDB_PROJECT=elsewhere is not followed: run {run.id} goes to rcm" in caplog.text
    assert f"WANDB_ENTITY=team is not followed: run {other.id} goes to theirs" in caplog.text
    assert f"WANDB_ENTITY=team is not followed: run {run.id}" not in caplog.text


def test_what_is_turned_off_sends_nothing(
    wandb_server: WandbServer, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    track(OFFLINE, run, stubs.one_of_each())
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert sync(run) == 1
    assert "WANDB_MODE=disabled turns W&B off" in caplog.text
    assert wandb_server.requests == 0
    monkeypatch.setenv("WANDB_MODE", "offline")  # of runs; who syncs asks for it
    assert sync(run) == 0
    assert has_everything(wandb_server.run("rcm", run.id), recorded(run))
