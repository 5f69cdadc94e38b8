"""What makes two runs the same run, and under what circumstances a run was made.

A run's id is a hash over the settings that change its numbers. Equal settings, equal id: it names the run's directory
and its W&B run, so that the same command finds its earlier results again, whoever gives it and wherever. Where a run
happens (device), who watches (tracker) and which version of the code it was are recorded, and are not part of the id.

A setting that names a file or folder (key `path`, `adapter`, `harmful`, `harmless`, or `..._path`) enters by content:
an edited prompt file makes another run, the same file in another place does not. A `source` names earlier runs, and
enters by the names of those that have a direction to give: once there are more, it is another run. That one of them was
run again does not count; that takes `rerun=true`.
"""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rcm.packaged import PACKAGED, located

IDENTITY = ("model", "dataset", "method", "judge", "seed")
PATH_KEYS = ("path", "adapter", "harmful", "harmless")
RUNS_KEY = "source"
METRICS = "metrics.json"  # written last: that it exists means that the run finished
PACKAGES = ("rcm", "torch", "transformers", "transformer-lens", "hydra-core", "wandb", "scikit-learn", "peft", "numpy")
SOURCE = Path(__file__).resolve().parents[1]
MIB = 2**20


def run_id(cfg: DictConfig) -> str:
    """Eight hex digits that name a run."""
    settings = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in IDENTITY if key in cfg]), resolve=True)
    text = json.dumps(_by_content(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _resolve(*, _root_: DictConfig) -> str:
    return run_id(_root_)


# `${rcm.run_id:}` names the run directory in conf/config.yaml; OmegaConf hands over the whole config as `_root_`.
OmegaConf.register_new_resolver("rcm.run_id", _resolve, replace=True)


def finished(directory: Path) -> bool:
    """Whether the run in this directory ended well."""
    return (directory / METRICS).exists()


def sweep_agent() -> bool:
    """Whether a W&B sweep agent started this process; then it has chosen the run's id in W&B, and waits for a run."""
    return "WANDB_SWEEP_ID" in os.environ


def _by_content(value: Any, key: str = "") -> Any:
    """The settings, with every path under a path's key replaced by the digest of what lies there."""
    if isinstance(value, dict):
        return {name: _by_content(part, str(name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_by_content(part, key) for part in value]
    if not isinstance(value, str):
        return value
    if value.startswith(PACKAGED):
        return f"sha256:{content_digest(located(value))}"
    if key == RUNS_KEY and os.path.isdir(value):
        return _runs_with_directions(Path(value))
    is_path = names_a_path(key) and os.path.exists(value)
    return f"sha256:{content_digest(Path(value))}" if is_path else value


def _runs_with_directions(place: Path) -> list[str]:
    """The names of those finished runs among this one, or those right below, that looked for a direction."""
    metrics = [path for path in (place / METRICS, *place.glob(f"*/{METRICS}")) if path.exists()]
    return sorted(path.resolve().parent.name for path in metrics if "direction/layer" in json.loads(path.read_text()))


def names_a_path(key: str) -> bool:
    """Whether the value of a setting with this key is a file or folder."""
    return key in PATH_KEYS or key.endswith("_path")


def prompt_digest(prompt: str) -> str:
    """Sixteen hex digits that name a prompt, so that cards and recordings can list prompts without repeating them."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def content_digest(path: Path) -> str:
    """A digest of a file, or of a folder's files: the name, the size, the first and the last MiB of each.

    Hidden files (version control, a downloader's notes) do not count.
    """
    digest = hashlib.sha256()
    for name, file in _files(path):
        digest.update(json.dumps([name, file.stat().st_size]).encode())
        digest.update(_ends(file))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Each file below `path` under its relative name; a single file has none, so that it may be renamed."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if file.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), file


def _ends(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(MIB)
        stream.seek(max(MIB, file.stat().st_size - MIB))
        return head + stream.read(MIB)


def provenance() -> dict[str, Any]:
    """Plain values for `run.json`: code, packages, machine, command line and the time of the call (UTC)."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git": _git(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpu": _gpu(),
    }


def _git() -> dict[str, str | bool] | None:
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu() -> str | None:
    import torch  # here, because launch.py imports this module and must answer at once

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
