"""A folder in which runs are made, and what its files say when all of them are looked at."""

import json
from pathlib import Path

from safetensors import safe_open

from rcm.record.findings import FOLDER, Place
from rcm.record.storage import PARTIAL, records
from rcm.record.stored import StoredRun, stored_runs
from tests.faults.methods import CALLS, VALUE

OWN = (".json", ".jsonl", ".csv", ".safetensors")


def a_home(folder: Path) -> Path:
    (folder / "home").mkdir()
    return folder / "home"


def noting(home: Path, value: int = 1) -> dict[str, str]:
    return {CALLS: str(home.parent / "calls"), VALUE: str(value)}


def what_runs_say(home: Path) -> dict[str, bytes]:
    """Every file of every run, but run.json, which has times in it."""
    files = [path for path in (home / "runs").glob("[!.]*/**/*") if path.suffix in OWN and path.name != "run.json"]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


def check_whole(home: Path) -> list[StoredRun]:
    """The runs that have finished, after a look at every file: none is half, and all that a run names is there."""
    for path in home.rglob("*"):
        if path.name.endswith(PARTIAL) or any(part.endswith(PARTIAL) for part in path.parts):
            continue  # which nothing reads
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118 (not a dict)
    for folder in (home / "runs" / FOLDER).glob("*"):
        if folder.is_dir() and not folder.name.endswith(PARTIAL):
            assert Place(home / "runs", folder.name).read(None) is not None
    runs = stored_runs(home / "runs") if (home / "runs").exists() else []
    for run in runs:
        said = records(run.directory)  # each line is whole, but for what follows the last newline
        assert all((run.directory / name).is_file() for one in said for name in one["files"])
    return [run for run in runs if run.status == "finished"]


def kept_steps(home: Path) -> set[str]:
    """The steps, with their seeds, that nobody has to compute again."""
    found = set()
    for path in (home / "runs").glob("[!.]*/run.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        keys = {name: home / "runs" / FOLDER / key for name, key in told["findings"].items()}
        found |= {f"{name} {told['config']['seed']}" for name, folder in keys.items() if folder.exists()}
    return found
