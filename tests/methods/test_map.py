"""The main job on the planted model, and the user's own command on a hub that is a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rcm.record.results import Scalar
from rcm.record.stored import stored_runs
from rcm.running.summary import summary
from tests.conftest import commit
from tests.planted import MAP, by_name, composed, planted_map, planted_model, planted_prompts, reported

ROOT = Path(__file__).parents[2]
RATES = (
    "behaviour/refusal_rate_harmful",
    "behaviour/refusal_rate_harmless",
    "steering/force_rate",
    "steering/suppress_rate",
)


def test_summary_judges_the_four_figures() -> None:
    found = by_name(planted_map())
    table = found["summary/targets"]
    assert [row[0] for row in table.rows] == [
        "direction/separation",
        "direction/probe_accuracy",
        "steering/force_rate",
        "steering/suppress_rate",
    ]
    met = {row[0]: row[-1] for row in table.rows}
    for name, is_met in met.items():
        figure = found[name]
        assert is_met == (figure.value > figure.target and figure.value > figure.null.value)
    assert met["steering/force_rate"]
    assert met["steering/suppress_rate"]
    assert found["summary/outcome"].value == f"{sum(met.values())} of 4 met"


def test_no_refusal_is_honoured_by_every_later_step() -> None:
    model = planted_model()
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[model.template.tokenizer("R")["input_ids"][0]] = 0
    found = reported(composed(*MAP, max_new_tokens=4), model, planted_prompts())
    for step in ("behaviour", "direction", "steering"):
        assert found[f"{step}/outcome"].value == "no_refusal_behaviour"
    assert np.isnan(found["steering/force_rate"].value)
    assert found["direction/separation"].value > 2
    figures = [one for one in found.values() if isinstance(one, Scalar)]
    outcome = by_name(summary(figures))["summary/outcome"]
    assert outcome.value == f"{sum(bool(one.met) for one in figures)} of 4 met"
    assert "force rate" in outcome.because


@pytest.mark.slow
def test_the_command_of_the_readme(tmp_path: Path, hub_cache) -> None:
    """`python launch.py -m model=pythia-160m,pythia-410m`, exactly as it stands, offline."""
    names = ("EleutherAI/pythia-160m", "EleutherAI/pythia-410m")
    hub_cache(*names)
    for part in ("launch.py", "conf", "rcm"):
        (tmp_path / part).symlink_to(ROOT / part)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "launch.py", "-m", "model=pythia-160m,pythia-410m"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = stored_runs(tmp_path / "runs")
    assert [run.choices["model"] for run in runs] == ["pythia-160m", "pythia-410m"]
    for run, name in zip(runs, names, strict=True):
        metrics = json.loads((run.directory / "metrics.json").read_text())
        assert metrics["behaviour/outcome"] == "no_refusal_behaviour"
        assert np.isfinite(metrics["direction/separation"])
        assert 0 <= metrics["direction/probe_accuracy"] <= 1
        assert metrics["steering/force_rate"] is None
        for rate in RATES:
            assert {f"{rate}{end}" for end in ("_low", "_high", "_n", "_null")} <= set(metrics)
        assert any(commit(name) in str(result) for result in (run.directory / "results.jsonl").read_text().splitlines())
    assert list((tmp_path / "runs").glob("*/wandb/offline-run-*"))
