"""What a method found and reported, kept so that no run computes it again.

    RUNS/.findings/KEY/
        finding.json         what was found; what it is of, and which run made it; the digests of the files beside it,
                             and of all this
        finding.safetensors  the tensors of what was found
        results.jsonl        what the method reported, as in a run (`rcm.record.storage`)
        files                the tensors and adapters among that, as in a run, and no second time on the disk
    RUNS/.findings/KEY.lock  held by who reads or makes it

The key is a digest of all that a figure may depend on (`rcm.running.reuse`). A folder is written under another name and
renamed when it is whole; what cannot be read, or has been changed since, counts for nothing and is made again.
`python -m rcm.record prune RUNS` removes what no run names.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from safetensors.torch import load_file
from torch import Tensor

from rcm.errors import InputError, first_line
from rcm.record.encoding import encoded, file_names
from rcm.record.identity import BEFORE, RECORD
from rcm.record.locks import Timeout, held, left_behind
from rcm.record.results import Adapter, Result, Tensors
from rcm.record.storage import PARTIAL, RESULTS, link, loaded, records, write_tensors

log = logging.getLogger(__name__)
FOLDER, FINDING, TENSORS = ".findings", "finding.json", "finding.safetensors"
FORMAT = 2  # of these files
TENSOR, ARRAY = "__tensor__", "__array__"  # in place of one, its name in the file of tensors
# What a file raises that is cut, changed, or of another shape than ours.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class NotPlainError(ValueError):
    """What a method found has a part that cannot be written down and read back as it was."""


@dataclass(frozen=True)
class Kept:
    """What a method reported and found; `by`: the run that made it, in so many `seconds`."""

    results: Sequence[Result]
    finding: Any
    by: str
    seconds: float


@dataclass(frozen=True)
class Place:
    """Where what one method finds, of one model and with what went before, is kept."""

    runs: Path
    key: str

    @property
    def folder(self) -> Path:
        return self.runs / FOLDER / self.key

    @contextmanager
    def alone(self) -> Generator[None, None, None]:
        """Wait for another process that reads or makes it. The kernel lifts the lock when a process dies."""
        lock = _lock(self.folder)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(held(lock))
            except Timeout:
                log.info("Another run is at this very step; waiting for what it finds%s.", left_behind(lock))
                stack.enter_context(held(lock, wait=True))
            yield

    def read(self, kind: type | None) -> Kept | None:
        """What is kept; `kind`: of the finding. None where there is nothing, or nothing that is whole."""
        if not self.folder.exists():
            return None
        try:
            told = json.loads((self.folder / FINDING).read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"its format is {told['format']}, not {FORMAT}")
            if told.pop("digest") != _digest_of(told):
                raise ValueError(f"{FINDING} has changed")
            for name, digest in told["digests"].items():
                if _sha256(self.folder / name) != digest:
                    raise ValueError(f"{name} has changed")
            results = [loaded(record, self.folder) for record in records(self.folder)]
            tensors = load_file(self.folder / TENSORS)
            return Kept(results, decoded_finding(told["finding"], tensors, kind), told["by"], told["seconds"])
        except UNREADABLE as error:
            log.warning("What is kept in %s counts for nothing (%s); it is made again.", self.folder, first_line(error))
            return None

    @contextmanager
    def writing(self) -> Generator["Writer", None, None]:
        """A folder for what is given to the writer, which is gone when the block ends unless the writer finished."""
        partial = self.folder.with_name(self.key + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            yield Writer(partial, self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class Writer:
    """Takes results as they come, then the finding. Raises OSError where there is no room or no permission."""

    def __init__(self, folder: Path, goal: Path) -> None:
        self._folder, self._goal = folder, goal

    def add(self, result: Result, directory: Path) -> None:
        """A result that has been saved in a run's directory."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if isinstance(result, Tensors | Adapter):
            for name in file_names(result):
                link(directory / name, self._folder / name)
        with (self._folder / RESULTS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(encoded(result), ensure_ascii=False) + "\n")

    def finish(self, finding: Any, kind: type | None, of: Mapping[str, Any], by: str, seconds: float) -> None:
        """Write the finding, and keep it all; raises NotPlainError where it would not be read back as it is."""
        try:
            plain, tensors = encoded_finding(finding)
            again, same = encoded_finding(decoded_finding(plain, tensors, kind))
            if again != plain or not all(_equal(one, same[name]) for name, one in tensors.items()):
                raise NotPlainError(f"a {type(finding).__name__} is not the same when it is read back")
        except (ValueError, TypeError, KeyError, RuntimeError) as error:  # of whatever type somebody's method returns
            raise error if isinstance(error, NotPlainError) else NotPlainError(first_line(error)) from error
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / RESULTS).open("a"):
            pass  # there may be no results
        write_tensors(self._folder / TENSORS, tensors, {"format": "pt"})
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        told = {
            "format": FORMAT,
            "finding": plain,
            "of": of,
            "by": by,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "digests": {path.relative_to(self._folder).as_posix(): _sha256(path) for path in files},
        }
        told["digest"] = _digest_of(told)
        (self._folder / FINDING).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(self._goal, ignore_errors=True)
        self._folder.rename(self._goal)


def _digest_of(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:  # not the cached digest: a link to a file changes the time by which that is known
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())


def encoded_finding(finding: Any) -> tuple[Any, dict[str, Tensor]]:
    """What was found in JSON's types, and its tensors by the names that stand in their places; raises NotPlainError."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value.value if isinstance(value, Enum) else value
            case Enum():
                return plain(value.value)
            case Tensor() | np.ndarray():
                name = str(len(tensors))
                try:
                    tensors[name] = torch.as_tensor(value).detach().cpu()
                except TypeError as error:
                    raise NotPlainError(f"an array of {value.dtype} is no tensor") from error
                return {TENSOR if isinstance(value, Tensor) else ARRAY: name}
            case np.generic():
                return value.item()
            case Path():
                return str(value)
            case BaseModel():
                return {name: plain(getattr(value, name)) for name in type(value).model_fields}
            case _ if is_dataclass(value) and not isinstance(value, type):
                return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
            case Mapping() if all(isinstance(key, str) for key in value):
                return {key: plain(part) for key, part in value.items()}
            case list() | tuple():
                return [plain(part) for part in value]
            case set() | frozenset():
                return sorted(plain(part) for part in value)
            case _:
                raise NotPlainError(f"a {type(value).__name__} has no place in JSON")

    return plain(finding), tensors


def decoded_finding(plain: Any, tensors: Mapping[str, Tensor], kind: type | None) -> Any:
    """A finding of this kind again, read by the types that its fields say they have. No class is named in the file."""

    def filled(value: Any) -> Any:
        match value:
            case dict() if TENSOR in value:
                return tensors[value[TENSOR]]
            case dict() if ARRAY in value:
                return tensors[value[ARRAY]].numpy()
            case dict():
                return {key: filled(part) for key, part in value.items()}
            case list():
                return [filled(part) for part in value]
            case _:
                return value

    if kind is None:
        return None
    shape = create_model("Shape", finding=(kind, ...), __config__=ConfigDict(arbitrary_types_allowed=True))
    try:
        return getattr(shape(finding=filled(plain)), "finding")  # noqa: B009 (mypy does not know the field)
    except ValidationError as error:
        raise NotPlainError(f"no {kind.__name__} can be made of it ({error.errors()[0]['msg']})") from error


def prune(runs: Path) -> tuple[int, int]:
    """Remove what no run in this folder names, unless a process is at it; how many there were, and their bytes."""
    named = {key for path in runs.glob("*") for key in (*_named(path), *_named(path / BEFORE))}
    count = size = 0
    for folder in sorted(path for path in (runs / FOLDER).glob("*") if path.is_dir()):
        if folder.name in named:
            continue
        try:
            with held(_lock(folder.with_name(folder.name.removesuffix(PARTIAL)))):
                if folder.exists():  # else whoever was at it has just finished, and renamed it
                    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
                    size += sum(stat.st_size for stat in stats if stat.st_nlink == 1)  # others lie in a run, too
                    shutil.rmtree(folder)
                    count += 1
        except Timeout:
            continue
    return count, size


def _named(directory: Path) -> list[str]:
    """The findings that the run in a directory names, whatever became of it."""
    path = directory / RECORD
    if not path.is_file():
        return []
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return [str(key) for key in told.get("findings", {}).values()]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}), so what its run names is not known; move it away first."
        ) from error


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def key_of(of: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name what a finding is of."""
    return _digest_of(of)[:16]
