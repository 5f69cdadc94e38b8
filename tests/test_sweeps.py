"""The project's sweeps, under the real `wandb agent` and against the server in `tests/wandb_server`; where they learn,
with W&B's own search.

That search is the package `sweeps`, which wants an older NumPy than rcm has, but works with this one:
`pip install --no-deps sweeps==0.3.0 jsonref==1.1.0`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from rcm.packaged import CONF
from rcm.record.results import Scalar
from rcm.record.run import Run
from rcm.record.stored import stored_runs
from rcm.running.chosen import chosen_settings
from rcm.running.identity import plain_settings
from tests import stubs
from tests.tracking.test_tracking import OFFLINE, recorded, track
from tests.wandb_server import WandbServer

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_an_agent_runs_a_sweep_to_its_end(wandb_server: WandbServer, tmp_path: Path) -> None:
    """`sweeps/models.yaml`, with models and methods that cost nothing, one of which fails."""
    for part in ("launch.py", "conf", "rcm", "tests"):
        (tmp_path / part).symlink_to(ROOT / part)
    failing = stubs.OPTIONS["method/stub.yaml"].replace("fails_at: null", "fails_at: 0")
    (stubs.write_options(tmp_path / "options") / "method" / "failing.yaml").write_text(failing)
    sweep = yaml.safe_load((ROOT / "sweeps/models.yaml").read_text())
    place = sweep["command"].index("${program}") + 1
    sweep["command"][place:place] = ["--config-dir=options", "dataset=stub"]
    sweep["parameters"] = {
        "model": {"values": ["stub"]},
        "model.path": {"value": "null"},
        "method": {"values": ["failing", "stub"]},
        "method.stub.places": {"value": [-1, -2]},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))

    (name,) = re.findall(r"wandb agent (\S+)", wandb(tmp_path, "sweep", "--project", "rcm", "sweep.yaml"))
    wandb(tmp_path, "agent", name, "--count", "4")
    assert_swept(wandb_server, tmp_path)


@pytest.mark.slow
def test_two_agents_side_by_side_share_a_sweep(wandb_server: WandbServer, tmp_path: Path) -> None:
    """As docs/cluster.md starts them, one for each GPU: no run twice, no folder twice, and what one has found the other
    takes. Here on the CPU."""
    for part in ("launch.py", "conf", "rcm", "tests"):
        (tmp_path / part).symlink_to(ROOT / part)
    stubs.write_options(tmp_path / "options")
    sweep = yaml.safe_load((ROOT / "sweeps/seeds.yaml").read_text())
    place = sweep["command"].index("${program}") + 1
    sweep["command"][place:place] = ["--config-dir=options", "model=stub", "dataset=stub", "method=stub", "device=cpu"]
    sweep["parameters"] = {"seed": {"values": [0, 1, 2, 3]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (name,) = re.findall(r"wandb agent (\S+)", wandb(tmp_path, "sweep", "--project", "rcm", "sweep.yaml"))

    agents = [agent(tmp_path, name, CUDA_VISIBLE_DEVICES=gpu) for gpu in ("0", "1")]
    for process in agents:
        told, _ = process.communicate(timeout=400)
        assert process.returncode == 0, told
    (swept,) = wandb_server.sweeps.values()
    assert len(set(swept.given_to.values())) == 2
    assert sorted(one["seed"] for one in swept.started.values()) == [0, 1, 2, 3]
    assert {wandb_server.run("rcm", run).state for run in swept.started} == {"finished"}
    runs = stored_runs(tmp_path / "runs")
    assert sorted(run.config["seed"] for run in runs) == [0, 1, 2, 3]
    assert {run.status for run in runs} == {"finished"}
    recorded = {path.resolve() for run in runs for path in run.directory.glob("wandb/*/run-*.wandb")}
    assert sorted(path.stem.removeprefix("run-") for path in recorded) == sorted(swept.started)
    assert len({run.reused.get("self_checks", run.id) for run in runs}) == 1  # found by one, for all
    assert sum("self_checks" in run.reused for run in runs) == 3


def agent(folder: Path, sweep: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    everything = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", WANDB, "agent", sweep]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=everything, **streams)


WANDB = """
import wandb.cli.cli, wandb.wandb_agent
wandb.wandb_agent.Agent.POLL_INTERVAL = 0.5  # its five seconds are only waiting
wandb.cli.cli.cli()
"""


def wandb(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # agents start `python`
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WANDB, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_swept(server: WandbServer, folder: Path) -> None:
    (sweep,) = server.sweeps.values()
    assert len(sweep.started) == 2
    directories = set()
    for name, arguments in sweep.started.items():
        run = server.run("rcm", name)  # the agent's id was kept
        assert run.sweep == sweep.name
        fails = arguments["method"] == "failing"
        assert run.state == ("failed" if fails else "finished")
        assert ("stub/low" in run.summary) is not fails
        assert "model.path" not in run.settings or run.settings["model.path"] == "null"  # as the sweep gave it
        assert run.settings["method.stub.places"] == [-1, -2]
        assert run.settings["method.stub.inner.rate"] == 0.5
        assert (run.settings["model"], run.settings["method"]) == ("stub", "stub")  # by the name of its settings
        directories |= {path.parents[2] for path in folder.glob(f"runs/*/wandb/*/run-{name}.wandb")}
    assert directories == {run.directory for run in stored_runs(folder / "runs")}
    assert len(directories) == 2


STRENGTH, MAX_KL = "method.steering.strengths.0", "method.direction.max_kl"
BEST = {STRENGTH: 1.4, MAX_KL: 0.15}  # where the planted figure is highest
RANGE = {STRENGTH: 2.25, MAX_KL: 0.25}
Objective = Callable[[float, float], float]


@pytest.mark.slow
def test_a_sweep_that_learns_comes_to_what_is_best(sweep_run: Callable[..., dict[str, Any]]) -> None:
    """`sweeps/strength.yaml`. Of what W&B recorded of the runs before, its search makes the next suggestion. Over
    nine seeds of it the distance is 0.07 to 0.30; where there is nothing to learn, 0.37 to 0.53."""
    later = suggested(lambda strength, kl: 1 - abs(strength - 1.4) - 4 * abs(kl - 0.15), sweep_run)[8:]
    assert distance(later) < 0.25


@pytest.mark.slow
def test_where_there_is_nothing_to_learn_it_keeps_looking(sweep_run: Callable[..., dict[str, Any]]) -> None:
    """The null: a figure that is the same everywhere draws nothing to what is best of another."""
    assert distance(suggested(lambda strength, kl: 0.5, sweep_run)[8:]) > 0.3


def distance(tried: list[dict[str, Any]]) -> float:
    """From the best setting, as a share of the ranges: the sum of both medians."""
    return sum(float(np.median([abs(one[key] - best) / RANGE[key] for one in tried])) for key, best in BEST.items())


def suggested(objective: Objective, sweep_run: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """What the search suggests, one after the other, each run having reported the objective of its settings."""
    sweeps = pytest.importorskip("sweeps")
    spec = yaml.safe_load((ROOT / "sweeps/strength.yaml").read_text())
    fixed = [part for part in spec["command"] if "=" in part]
    np.random.seed(0)  # the generator that the search uses
    runs: list[Any] = []
    for number in range(24):
        (suggestion,) = sweeps.next_runs(spec, runs, n=1)
        told = json.loads(json.dumps(suggestion.config, default=float))  # as it comes to an agent
        found = sweep_run(f"run{number}", fixed, told, spec["metric"]["name"], objective)
        runs.append(sweeps.SweepRun(name=f"run{number}", state="finished", **found))
    return [{key: one["value"] for key, one in run.config.items()} for run in runs]


@pytest.fixture
def sweep_run(tmp_path: Path, wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """One run of a sweep, but for the model: composed as by its agent, and recorded. Gives what W&B's search is given
    of it: of the config the sweep's own keys, and the summary."""

    def made(
        name: str, fixed: list[str], told: dict[str, Any], metric: str, objective: Objective
    ) -> dict[str, dict[str, Any]]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides=[*fixed, *(f"{key}={one['value']}" for key, one in told.items())])
        assert chosen_settings(cfg).methods.keys() == {"direction", "steering"}
        parameters = tmp_path / f"{name}.yaml"
        parameters.write_text(yaml.safe_dump({"wandb_version": 1, **told}))
        monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
        run = run_of(cfg, tmp_path / "runs" / name)
        at = [OmegaConf.select(cfg, key) for key in (STRENGTH, MAX_KL)]
        track(OFFLINE, run, [Scalar(metric, objective(*at))])
        found = recorded(run)
        return {
            "config": {key: {"value": found.config[key]} for key in told},
            "summary_metrics": {metric: found.summary[metric]},
        }

    return made


def run_of(cfg: DictConfig, directory: Path) -> Run:
    directory.mkdir(parents=True)
    choices = {"model": "smollm2-135m-refusal", "dataset": "pairs", "method": "direction,steering", "judge": "prefix"}
    return Run(directory.name, directory, choices, plain_settings(cfg), {"started": "2026-01-01T00:00:00+00:00"})
