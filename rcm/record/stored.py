"""Runs read back from disk, by the page and by later runs."""

import json
import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError

from rcm.errors import InputError, first_line
from rcm.record.encoding import decoded
from rcm.record.identity import BEFORE, FORMAT, METRICS, RECORD
from rcm.record.results import (
    Adapter,
    Result,
    Tensors,
)
from rcm.record.run import Run, Status
from rcm.record.storage import RESULTS, loaded, records

log = logging.getLogger(__name__)
# What a file raises that was cut or changed since it was written.
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError)


@dataclass(frozen=True, kw_only=True)
class StoredRun(Run):
    """A run read back. `metrics` is empty unless it finished; `started` is an ISO time (UTC).
    `reused`: the methods whose findings were kept, and the run that made each."""

    status: Status
    metrics: Mapping[str, int | float | str | None]
    started: str
    seconds: float
    error: str | None
    reused: Mapping[str, str] = field(default_factory=dict[str, str])

    def results(self) -> list[Result]:
        """What the run reported, in order, but for tensors and adapters: those are read one at a time.

        Raises InputError where that cannot be read, or where it lacks what is among the figures of a finished run."""
        with self._damage_told(RESULTS):
            found = [decoded(record) for record in self._records() if record["kind"] not in ("tensors", "adapter")]
            names = {result.name for result in found}
            if lacking := [key for key in self.metrics if not (names & set(_beginnings(key)))]:
                raise ValueError(f"it lacks {lacking[0]}, which is in {METRICS}")
            return found

    @contextmanager
    def _damage_told(self, name: str) -> Generator[None, None, None]:
        """InputError of a file that is not as rcm wrote it."""
        try:
            yield
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(
                f"{self.directory / name} cannot be read ({first_line(error)}); run it again with rerun=true."
            ) from error

    def _records(self) -> list[dict[str, Any]]:
        """All that it reported; raises InputError where that cannot be read, and where another run has taken its place
        since it was opened."""
        with self._damage_told(RESULTS):
            path = self.directory / RESULTS
            written = path.read_bytes() if self.status == "finished" and path.exists() else b""
            if written and not written.endswith(b"\n"):
                raise ValueError("its last line is cut")
            found = [{**record, "kind": record["kind"], "name": record["name"]} for record in records(self.directory)]
        try:
            told = json.loads((self.directory / RECORD).read_text(encoding="utf-8"))["provenance"]["started"]
        except (OSError, ValueError, KeyError, TypeError):
            told = None
        if told != self.started:
            raise InputError(f"The run in {self.directory} was run anew while it was read; read it again.")
        return found

    def files(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Kind and files of the tensors and adapters that the run reported, by name."""
        kept = [record for record in self._records() if record["kind"] in ("tensors", "adapter")]
        return {record["name"]: (record["kind"], tuple(record["files"])) for record in kept}

    def labelled_files(self) -> list[tuple[str, str]]:
        """What those tensors and adapters are, and the first file of each."""
        kept = [record for record in self._records() if record["kind"] in ("tensors", "adapter")]
        return [(record.get("label") or record["name"], record["files"][0]) for record in kept]

    def tensors(self, name: str) -> Tensors:
        """The tensors that the run reported under this name; raises InputError where it reported none."""
        return cast(Tensors, self._loaded(self._record_of(name, "tensors")))

    def metadata(self, name: str) -> dict[str, str]:
        """What stands beside those tensors, without reading them."""
        return dict(self._record_of(name, "tensors")["metadata"])

    def adapter(self, name: str) -> Adapter:
        """The adapter that the run reported under this name; raises InputError where it reported none."""
        return cast(Adapter, self._loaded(self._record_of(name, "adapter")))

    def _loaded(self, record: Mapping[str, Any]) -> Result:
        with self._damage_told(record["files"][0]):
            return loaded(record, self.directory)

    def _record_of(self, name: str, kind: str) -> dict[str, Any]:
        named = {record["name"]: record for record in self._records() if record["kind"] == kind}
        if name not in named:
            has = ", ".join(named) or "none"
            raise InputError(f"The run in {self.directory} has no {kind} called {name}; it has: {has}.")
        return named[name]


def _beginnings(key: str) -> Iterator[str]:
    """A key of metrics.json, and what it may be a companion of: `x/y_null` of `x/y`."""
    parts = key.split("_")
    return ("_".join(parts[:end]) for end in range(len(parts), 0, -1))


def stored_runs(folder: Path) -> list[StoredRun]:
    """The runs right below a folder, in the order in which they started; those that cannot be read are warned of."""
    runs, unreadable = readable_runs(folder)
    for why in unreadable:
        log.warning("%s", why)
    return runs


def readable_runs(*places: Path) -> tuple[list[StoredRun], list[str]]:
    """The runs in these directories, and right below these folders, each once and in the order in which they started;
    and of each that cannot be read why. What is no run is passed over."""
    runs, unreadable = dict[Path, StoredRun](), list[str]()
    for path in dict.fromkeys(path.resolve() for place in places for path in _runs_of(place)):
        try:
            runs[path] = stored_run(path)
        except InputError as error:
            unreadable.append(str(error))
    return sorted(runs.values(), key=lambda run: (run.started, run.id)), unreadable


def _runs_of(place: Path) -> list[Path]:
    if not place.exists():  # a file is no run, and stands among those that a shell finds for runs/*
        raise InputError(f"There is no folder {place}; give the one that holds the runs, such as runs/.")
    return [place] if _is_run(place) else sorted(path for path in place.glob("*") if _is_run(path))


def _is_run(path: Path) -> bool:
    own = (path / RECORD).is_file() or (path / BEFORE / METRICS).is_file()
    return own and not path.name.startswith(".")


def stored_run(directory: Path) -> StoredRun:
    """The run in this directory, finished or not; raises InputError where there is none, or none that can be read.

    While one that had finished is run anew, and where that was killed, it is the one that had finished.
    """
    if not (directory / METRICS).exists() and (directory / BEFORE / METRICS).exists():
        directory = directory / BEFORE
    if not (directory / RECORD).is_file():
        raise InputError(f"There is no run in {directory}; a run's directory has a {RECORD}.")
    metrics = directory / METRICS
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        if (written := record.pop("format", 1)) > FORMAT:
            raise ValueError(f"its format is {written}, and this rcm reads up to {FORMAT}")
        return StoredRun(
            **record | {"status": _status(record["status"], metrics)},
            directory=directory,
            metrics=json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {},
            started=record["provenance"]["started"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise InputError(
            f"The run in {directory} cannot be read ({what}): it is another program's, of another version of rcm, or "
            "off a full disk; move it away, or run it again."
        ) from error


def _status(recorded: Status, metrics: Path) -> Status:
    """A run that was killed between its record and its metrics has not finished."""
    return "started" if recorded == "finished" and not metrics.exists() else recorded
