"""What makes two runs the same run, and under what circumstances a run was made.

A run's id is a hash over the settings that change its numbers. Equal settings, equal id: it names the run's directory
and its W&B run, so that the same command finds its earlier results again, whoever gives it and wherever. Where a run
happens (device), who watches (tracker) and which version of the code it was are recorded, and are not part of the id.

A setting that names a file or folder (key `path`, `adapter`, `harmful`, `harmless`, or `..._path`) enters by content:
an edited prompt file makes another run, the same file in another place does not, nor one at an address that gives its
sha256. So does a `source` that is a direction of somebody else's. One that names earlier runs enters by the names of
those that have a direction to give: once there are more, it is another run. That one of them was run again does not
count; that takes `rerun=true`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcm.errors import InputError, first_sentence
from rcm.packaged import PACKAGED, located
from rcm.record.digests import CHECKSUM, checksum_digest, content_digest, file_digest

IDENTITY = ("model", "dataset", "method", "judge", "seed")
PATH_KEYS = ("path", "adapter", "harmful", "harmless", "lookalikes")
SOURCE_KEY, TEMPLATE_KEY = "source", "template"
VECTOR = "direction.pt"  # in a folder of the published reference's, whose content counts
RECORD, METRICS = "run.json", "metrics.json"  # written last: that it exists means that the run finished
FORMAT = 2  # of a run's files: one more whenever an earlier rcm could no longer read them rightly
BEFORE = ".before"  # where a finished run lies while it is run anew
NOT_WEIGHTS = ("family", "stage", "refusal_tokens")  # of a model's settings
NO_PATHS = ("pairs",)  # words that a path's key also takes, whatever lies in the working directory
SIZES = ("train", "validation", "test")  # of a data set's: how many of its prompts are used


def run_id(settings: Mapping[str, Any]) -> str:
    """Eight hex digits that name a run, from the plain values of all its groups."""
    return settings_digest(settings)[:8]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """The sha256 that a run's id is the beginning of: it tells apart what the id does not."""
    return _digest({group: settings[group] for group in IDENTITY if group in settings})


def weights_digest(model: Mapping[str, Any]) -> str:
    """Eight hex digits that name what a model's settings load: the same for the same weights under another name."""
    return _digest({key: value for key, value in model.items() if key not in NOT_WEIGHTS})[:8]


def data_digest(dataset: Mapping[str, Any]) -> str:
    """Eight hex digits that name a data set; how many of its prompts are used does not count."""
    return _digest({key: value for key, value in dataset.items() if key not in SIZES})[:8]


def _digest(settings: Any) -> str:
    text = json.dumps(by_content(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def finished(directory: Path) -> bool:
    """Whether the run in this directory ended well."""
    return (directory / METRICS).exists()


def other_run(directory: Path, digest: str) -> str | None:
    """The id of the run that lies in this directory, if it is another one than that of this digest of settings."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        id, found = record["id"], record.get("digest") or digest  # earlier runs have only the id
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or none that says so
    return str(id) if (id, found) != (digest[:8], digest) else None


def sweep_agent() -> bool:
    """Whether a W&B sweep agent started this process; then it has chosen the run's id in W&B, and waits for a run."""
    return "WANDB_SWEEP_ID" in os.environ


def by_content(value: Any, key: str = "", *, whole: bool = False) -> Any:
    """The settings, with every path under a path's key replaced by the digest of what lies there.

    `whole`: for what is kept of them, which must not outlive a change. Then earlier runs, too, count by what they
    found, files and checkpoints under any key, and what cannot be read is an InputError.
    """
    if isinstance(value, dict):
        return {name: by_content(part, str(name), whole=whole) for name, part in value.items()}
    if isinstance(value, list):
        return [by_content(part, key, whole=whole) for part in value]
    if not isinstance(value, str):
        return value
    if value.startswith(PACKAGED):
        return f"sha256:{content_digest(located(value))}"
    if names_a_path(key) and CHECKSUM in value:
        return f"sha256:{checksum_digest(value.partition(CHECKSUM)[2])}"
    is_path = names_a_path(key) or key == SOURCE_KEY or (key == TEMPLATE_KEY and value.startswith("of:"))
    path = located(value.removeprefix("of:"))
    try:
        if whole and not is_path:
            is_path = path.is_file() or (path / "config.json").is_file()
        if not is_path or value in NO_PATHS or not path.exists():
            return value
        if key == SOURCE_KEY and path.is_dir() and not is_published(path):
            return _contents_of_runs(path) if whole else [run.name for run in _runs_with_directions(path)]
        return f"sha256:{content_digest(path)}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not whole:
            return value  # what cannot be read is told by those who read it
        raise InputError(
            f"{key}={value} cannot be read whole ({first_sentence(error)}), so that nothing found with it can be kept; "
            "mend that, or use reuse=false."
        ) from error


def _runs_with_directions(place: Path) -> list[Path]:
    """Those finished runs among this one, or those right below, that looked for a direction."""
    runs = [place, *(path for path in place.glob("*") if not path.name.startswith("."))]
    found = [run.resolve() for run in runs if any(map(_has_direction, (run / METRICS, run / BEFORE / METRICS)))]
    return sorted(found, key=lambda run: run.name)


def _contents_of_runs(place: Path) -> list[list[str]]:
    """Of each, in the order in which they started, what it is called, what it is of, and what it found; not when, where
    and by which command."""
    contents = []
    for run in _runs_with_directions(place):
        own = run if (run / METRICS).exists() else run / BEFORE
        record = json.loads((own / RECORD).read_text(encoding="utf-8"))
        of = hashlib.sha256(json.dumps([record.get("choices"), record.get("config")], sort_keys=True).encode())
        files = sorted(path for path in own.glob("*") if path.suffix in (".json", ".jsonl", ".safetensors"))
        told = (f"{path.name} {file_digest(path)}" for path in files if path.name != RECORD)
        contents.append((record["provenance"]["started"], [run.name, of.hexdigest(), *told]))
    return [content for _, content in sorted(contents)]


def _has_direction(metrics: Path) -> bool:
    try:
        return "direction/layer" in json.loads(metrics.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # off a full disk, or another program's: its run is told as unreadable later
        return False


def is_published(place: Path) -> bool:
    """Whether a source of directions is somebody else's direction, and no run or folder of runs."""
    return place.is_file() or (place / VECTOR).is_file()


def names_a_path(key: str) -> bool:
    """Whether the value of a setting with this key is a file or folder."""
    return key in PATH_KEYS or key.endswith("_path")


def prompt_digest(prompt: str) -> str:
    """Sixteen hex digits that name a prompt, so that cards and recordings can list prompts without repeating them."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]
