"""`hydra/launcher=slurm` against a real Slurm on this machine: runs that fail, and that are killed or cancelled."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rcm.record.stored import StoredRun, stored_runs
from rcm.report.__main__ import main as report
from tests.cluster import waiting
from tests.cluster.slurm import Slurm, missing, wait_for
from tests.test_launch import LAUNCH, command
from tests.test_plugins import plugin

pytestmark = [
    plugin("hydra_submitit_launcher"),
    pytest.mark.skipif(bool(missing()), reason=f"of Slurm there is no {', '.join(missing())} here"),
    pytest.mark.slow,
]
JOBS = (
    *("-m", "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null"),
    *("hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1"),
)
Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        with Slurm(Path(folder)) as started:
            yield started
        assert started.processes() == []


def submitted(folder: Path, slurm: Slurm, *arguments: str, **environment: str) -> Process:
    """A multirun, whose command waits for its jobs."""
    path = os.pathsep.join([str(LAUNCH.parent), os.environ.get("PYTHONPATH", "")])  # which jobs inherit
    everything = {**slurm.environment, "PYTHONPATH": path, **environment}
    started = command(folder, *JOBS, *arguments)
    (folder / "conf" / "method" / "waiting.yaml").write_text(waiting.OPTION)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(started, cwd=folder, env=everything, **pipes)


@pytest.fixture(scope="module", autouse=True)
def cancelled(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A multirun whose only job is cancelled before it begins. submitit waits for a quarter of a minute for what it may
    have written; the other test goes on meanwhile."""
    path = os.pathsep.join([str(slurm.accounts), os.environ["PATH"]])
    held = "+hydra.launcher.additional_parameters.hold=true"
    with submitted(tmp_path_factory.mktemp("cancelled"), slurm, held, "seed=0", PATH=path) as process:
        wait_for(lambda: slurm.said("squeue", "--noheader", "--format=%A").strip() == "1")
        slurm.said("scancel", "1")
        yield process
        process.kill()


def test_of_four_jobs_one_fails_and_one_is_killed_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    methods = ("method=[stub,waiting]", "method.stub.fails_at=1", "method.waiting.seeds=[2]")
    go = tmp_path / "go"
    process = submitted(tmp_path, slurm, *methods, "seed=0,1,2,3", **{waiting.GO: str(go)})
    with process:
        wait_for(lambda: (run := of_seed(tmp_path).get(2)) is not None and reports(run, "waiting/before"), 120)
        job = pid_of(slurm, "2")
        number = job.environ()["SLURM_ARRAY_JOB_ID"]
        job.kill()
        wait_for(lambda: state(slurm, f"{number}_2") == "FAILED")
        assert of_seed(tmp_path)[2].status == "started"
        slurm.said("scontrol", "requeue", f"{number}_2")
        go.touch()
        out, err = process.communicate(timeout=120)

    runs = of_seed(tmp_path)
    statuses = {seed: run.status for seed, run in runs.items()}
    assert statuses == {0: "finished", 1: "failed", 2: "finished", 3: "finished"}
    assert process.returncode == 1
    assert f"\nRuntimeError: the stub breaks (see {runs[1].directory})" in err
    assert "Traceback" not in out + err
    log = (runs[2].directory / "launch.log").read_text()
    assert log.count(f"Run {runs[2].id} in {runs[2].directory}") == 2  # the same id, and the same place
    assert f"stub: found before, by run {runs[2].id}" in log  # the finished method is not run again
    assert (runs[2].reused["stub"], set(runs[2].reused)) == (runs[2].id, {"self_checks", "stub"})
    assert runs[2].metrics.keys() == runs[0].metrics.keys() == runs[3].metrics.keys()
    assert runs[2].metrics["waiting/after"] == 2
    for run in runs.values():
        assert run.directory == tmp_path / "runs" / run.id
        assert "hydra/launcher=slurm" in run.provenance["command"]
    assert len({run.reused.get("self_checks", run.id) for run in runs.values()}) == 1  # found by one, for all
    assert "Restarts=1" in slurm.said("scontrol", "show", "job", f"{number}_2")
    assert report([str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert [run.id for run in runs.values() if run.id not in page] == []


def test_a_job_that_is_cancelled_is_one_sentence(cancelled: Process) -> None:
    _, err = cancelled.communicate(timeout=60)
    assert cancelled.returncode == 1
    assert re.fullmatch(
        r"Slurm's job 1 ended without a result \(CANCELLED\); its log is \S+/runs/\.submitit/1_0_log\.err; the others "
        r"go on; `squeue` says which, and the same command again goes on where each was stopped\n",
        err,
    )


def test_what_slurm_does_not_take_is_one_sentence(slurm: Slurm, tmp_path: Path) -> None:
    with submitted(tmp_path, slurm, "hydra.launcher.partition=nowhere", "seed=0") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        "Slurm takes no such job (invalid partition specified: nowhere); other values: hydra.launcher.SETTING=VALUE"
    )
    assert "Traceback" not in err


def of_seed(folder: Path) -> dict[int, StoredRun]:
    return {run.config["seed"]: run for run in stored_runs(folder / "runs")} if (folder / "runs").exists() else {}


def reports(run: StoredRun, name: str) -> bool:
    lines = (run.directory / "results.jsonl").read_text().splitlines()
    return any(json.loads(line)["name"] == name for line in lines)


def pid_of(slurm: Slurm, task: str) -> psutil.Process:
    """The process of a job of the array: what runs the run."""
    (found,) = [
        process
        for process in slurm.processes()
        if process.environ().get("SLURM_ARRAY_TASK_ID") == task
        and process.cmdline()[:1] == [sys.executable]
        and "submitit.core._submit" in process.cmdline()
    ]
    return found


def state(slurm: Slurm, job: str) -> str:
    return slurm.said("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip()
