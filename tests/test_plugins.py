"""Hydra's sweepers that learn from what a run returns, and its launchers that run jobs side by side."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from rcm.errors import InputError
from rcm.record.stored import stored_runs
from rcm.running.objective import objective
from tests.forked import Done
from tests.test_launch import launched, launched_anew

# Hydra instantiates sweepers only out of the namespace package hydra_plugins.
SWEEPER = """
import json
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class Listening(BasicSweeper):
    def sweep(self, arguments):
        jobs = [job for batch in super().sweep(arguments) for job in batch]
        Path("returned.json").write_text(json.dumps([job.return_value for job in jobs]))
        if all(job.return_value is None for job in jobs):
            raise ValueError("No trials are completed yet.")
"""


def plugin(name: str) -> pytest.MarkDecorator:
    absent = find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{name}") is None
    return pytest.mark.skipif(absent, reason=f"{name} is not installed")


def listened(folder: Path, *arguments: str) -> Done:
    """A multirun whose sweeper writes down what the jobs return."""
    place = folder / "plugins" / "hydra_plugins" / "listening" / "__init__.py"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(SWEEPER)
    sweeper = "hydra.sweeper._target_=hydra_plugins.listening.Listening"
    return launched(folder, "-m", sweeper, *arguments, PYTHONPATH=str(folder / "plugins"))


def test_a_sweeper_gets_the_figure_of_a_run_now_and_when_it_has_finished_already(tmp_path: Path) -> None:
    for _ in range(2):
        done = listened(tmp_path, "optimize=stub/low", "seed=0,1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads((tmp_path / "returned.json").read_text()) == [0.25, 0.25]
    assert done.stdout.count("Finished already") == 2
    done = listened(tmp_path, "optimize=stub/nothing", "seed=0,1")  # which it could not measure
    assert json.loads((tmp_path / "returned.json").read_text()) == [None, None]
    assert done.stdout.count("could not measure it") == 2
    assert done.stderr == (
        "Hydra's plugin listening failed (ValueError: No trials are completed yet); what was logged before says why\n"
    )
    assert done.returncode == 1
    done = launched(tmp_path, "optimize=stub/loww")
    (line,) = [line for line in done.stdout.splitlines() if "ERROR" in line]
    assert re.search(r"optimize=stub/loww: \S+ has no such figure; choose one of stub/alive, stub/nothing, ", line)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_is_no_figure_cannot_be_optimised(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"a/rate": 1, "a/rate_low": 0.5, "a/outcome": "found", "a/kl": null}')
    assert objective(tmp_path, "a/rate_low") == 0.5
    assert objective(tmp_path, "a/kl") is None
    assert objective(tmp_path, None) is None
    with pytest.raises(InputError, match=r"^optimize=a/outcome: \S+ has no such figure; choose one of a/rate, a/kl$"):
        objective(tmp_path, "a/outcome")


@plugin("hydra_optuna_sweeper")
@pytest.mark.slow
def test_optuna_optimises(tmp_path: Path) -> None:
    study = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1")
    done = launched_anew(tmp_path, "-m", *study, "optimize=stub/random", "method.stub.top_k=range(1,9)", "seed=0")
    assert done.returncode == 0, done.stdout + done.stderr
    value = {run.metrics["stub/random"] for run in stored_runs(tmp_path / "runs")}
    assert f"Best value: {value.pop()}" in done.stdout


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_a_plugin_that_is_not_there_is_one_line_with_its_package(tmp_path: Path) -> None:
    done = launched(tmp_path, "-m", "hydra/launcher=ray", "seed=0,1")
    told = "hydra/launcher=ray needs what is not installed here: pip install hydra-ray-launcher\n"
    assert (done.returncode, done.stderr) == (1, told)


@plugin("hydra_joblib_launcher")
def test_a_launcher_is_not_passed_over_for_a_single_run(tmp_path: Path) -> None:
    done = launched(tmp_path, "hydra/launcher=joblib")
    (line,) = done.stdout.splitlines()
    assert line.endswith("hydra/launcher=joblib starts the jobs of a multirun: write -m, also for a single one.")
    assert (done.returncode, done.stderr) == (1, "")
    assert stored_runs(tmp_path / "runs") == []


@plugin("hydra_joblib_launcher")
@pytest.mark.slow
def test_jobs_side_by_side_end_as_those_in_turn(tmp_path: Path) -> None:
    jobs = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "method.stub.fails_at=1", "seed=-1,0,1,2")
    done = launched_anew(tmp_path, *jobs)
    assert done.returncode == 1
    runs = {run.config["seed"]: run for run in stored_runs(tmp_path / "runs")}
    assert {seed: run.status for seed, run in runs.items()} == {0: "finished", 1: "failed", 2: "finished"}
    for seed, run in runs.items():
        assert run.directory.name == run.id
        assert "hydra/launcher=joblib" in run.provenance["command"]
        log = (run.directory / "launch.log").read_text()
        assert log.count(f"Run {run.id} in ") == 1
        assert ("the stub breaks" in log) == (seed == 1)
    assert "seed=-1: Input should be greater than or equal to 0" in done.stdout
    assert "Traceback" not in done.stderr
    again = launched_anew(tmp_path, *jobs[:-1], "seed=0,2")
    assert (again.returncode, again.stdout.count("Finished already")) == (0, 2)


@plugin("hydra_joblib_launcher")
@pytest.mark.slow
def test_of_two_jobs_that_are_the_same_run_one_is_kept_out(tmp_path: Path) -> None:
    done = launched_anew(tmp_path, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,0")
    assert done.stdout.count("Another process is at this very run") + done.stdout.count("Finished already") == 1
    (run,) = stored_runs(tmp_path / "runs")
    assert run.status == "finished"
