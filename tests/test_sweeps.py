"""A sweep of the project under the real `wandb agent`, against the server in `tests/wandb_server`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rcm.record.stored import stored_runs
from tests import stubs
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
