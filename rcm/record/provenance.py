"""Under what circumstances a run was made: code, packages, machine, command line."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rcm.errors import unsigned

PACKAGES = ("rcm", "torch", "transformers", "transformer-lens", "hydra-core", "wandb", "scikit-learn", "peft", "numpy")
COMMAND = "RCM_COMMAND"  # in the environment of jobs that a launcher starts, whose own command is the launcher's
SOURCE = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, Any]:
    """Plain values for `run.json`: code, packages, machine, command line and the time of the call (UTC)."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": unsigned(os.environ.get(COMMAND) or shlex.join(sys.argv)),
        "git": git(),
        "packages": {name: version_of(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": _gpu(),
    }


def commit_of(recorded: Mapping[str, Any]) -> str:
    """The code of a run, in words, from what `provenance` recorded of it."""
    git = recorded.get("git")
    if not git:
        return f"not from a repository (rcm {recorded.get('packages', {}).get('rcm') or 'of unknown version'})"
    return f"{git['commit'][:12]}{' with changes that are not committed' if git['dirty'] else ''}"


def git() -> dict[str, str | bool] | None:
    """Commit and dirty flag of the source tree; None where it is not one, as in an installed package."""
    if _git_says("rev-parse", "--show-toplevel") != str(SOURCE):  # also when it merely lies inside another tree
        return None
    commit = _git_says("rev-parse", "--verify", "HEAD")
    dirty = _git_says("status", "--porcelain", "--", "launch.py", "rcm", "conf") != ""
    return {"commit": commit, "dirty": dirty} if commit else None


def _git_says(*command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=SOURCE, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    import torch  # here, because launch.py imports this module and must answer at once

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
