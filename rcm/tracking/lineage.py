"""Artifacts, and which artifacts of earlier runs a run reads: recorded offline, joined on the server by `publish`.

The client cannot tell offline that a run uses an artifact. So a run records name, digest and run of what it reads, in
its config and with each of its own artifacts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcm.record.encoding import file_names
from rcm.record.identity import RECORD, names_a_path
from rcm.record.results import Adapter, Tensors
from rcm.record.stored import StoredRun, stored_run

if TYPE_CHECKING:
    import wandb


def artifact(result: Tensors | Adapter, run_id: str, directory: Path, inputs: list[dict[str, str]]) -> "wandb.Artifact":
    """The files that lie in the run directory by now; the client notes where they are instead of copying them."""
    told = result.metadata if isinstance(result, Tensors) else result.card
    kind = type(result).__name__.lower()
    return _of_files(name_of(result.name, run_id), kind, directory, file_names(result), {**told, "inputs": inputs})


def name_of(result: str, run_id: str) -> str:
    """Without the slash, which W&B does not allow."""
    return f"{result.replace('/', '_')}-{run_id}"


def _of_files(
    name: str, kind: str, directory: Path, files: tuple[str, ...], metadata: Mapping[str, Any]
) -> "wandb.Artifact":
    import wandb

    made = wandb.Artifact(name, type=kind, metadata=dict(metadata))
    for file in files:
        made.add_file(str((directory / file).absolute()), name=Path(file).name, policy="immutable")
    return made


def inputs(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the settings read of earlier runs: `name`, `digest` and `run` of each artifact."""
    found = [one for path in _paths(config) for one in _read_from(path.absolute())]
    return sorted(found, key=lambda one: one["name"])


def _paths(value: Any, key: str = "") -> Iterator[Path]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _paths(part, str(name))
    elif isinstance(value, str) and names_a_path(key) and Path(value).exists():
        yield Path(value)


def _read_from(path: Path) -> Iterator[dict[str, str]]:
    """The tensors and adapters at or below a path that lies in a run directory."""
    directory = next((folder for folder in (path, *path.parents) if (folder / RECORD).is_file()), None)
    if directory is None:
        return
    run: StoredRun = stored_run(directory)
    for name, (kind, files) in run.files().items():
        if any((directory / file).is_relative_to(path) for file in files):
            made = _of_files(name_of(name, run.id), kind, directory, files, {})
            yield {"name": made.name, "digest": made.digest, "run": run.id}
