"""The tour runs as it stands, on the model that it names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_tour_finds_extracts_and_steers() -> None:
    asked = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, ROOT / "docs" / "tour.py"], capture_output=True, text=True, env=asked)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.count("of refusing goes with it") == 5
    assert "Position -1, layer" in said
    forced, freed = (
        next(line for line in said.splitlines() if line.startswith(part)) for part in ("harmless,", "harmful,")
    )
    assert forced.count("refusal") >= 5
    assert freed.count("compliance") >= 4
