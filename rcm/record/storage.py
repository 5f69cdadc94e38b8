"""How a run lies on disk: written as its results come, read back by the page and by later runs.

    run.json        what was run: id, choices, settings, provenance; status, seconds, and the error if there was one;
                    and the format of all this
    results.jsonl   every result in the order it came, one JSON object a line; of tensors, what they are and their file
    metrics.json    the figures and outcomes, flat; written last, so that its presence means that the run finished
    files           tables as CSV, tensors as safetensors, transcripts as JSONL, named after their results:
                    `direction/candidates` is direction_candidates.csv; adapters as peft's folders, after the last part

Every file is written under a temporary name, then renamed; results.jsonl is flushed line by line. So whatever a killed
run leaves is whole, but for the last line of results.jsonl, which counts only with its newline. What finished lies in
`.before` while it is run anew, and is read from there: it is back when that fails, and gone when that is finished.
In JSON a NaN is null; an infinity is Python's `Infinity`.
"""

import csv
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rcm.errors import InputError, unwritable
from rcm.record.encoding import decoded, encoded, file_names, flat, plain
from rcm.record.identity import BEFORE, FORMAT, METRICS, RECORD
from rcm.record.permissions import shared
from rcm.record.results import (
    Adapter,
    Result,
    Scalar,
    Table,
    Tensors,
    Transcripts,
)
from rcm.record.run import Run, Status

log = logging.getLogger(__name__)

RESULTS = "results.jsonl"
PARTIAL = ".partial"


class Store:
    """The directory of a run while it is on: `with Store(run) as store: store.save(result)`.

    Entering clears what an earlier attempt left, and sets aside what had finished; leaving writes how it ended. Only
    files that rcm wrote are cleared.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._metrics: dict[str, float | str | None] = {}
        self._taken = {RESULTS: "the record of results"}
        self._reused: dict[str, str] = {}
        self._start = time.monotonic()

    def __enter__(self) -> "Store":
        with self._on_disk():
            try:
                set_aside(self._run.directory)
                clear(self._run.directory)
                self._record("started", None)
                (self._run.directory / RESULTS).touch()
            except BaseException:  # a full disk: what had finished must not be lost by an attempt that never began
                put_back(self._run.directory)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, SystemExit):
            put_back(self._run.directory)  # a launcher has put its job back into the queue: it goes on as a killed run
            return
        if error is not None:
            self._failed(error)
            return
        try:
            with self._on_disk():
                self._record("finished", None)
                _write_text(self._run.directory / METRICS, json.dumps(self._metrics, indent=1) + "\n")
        except InputError as full:
            self._failed(full)
            raise
        shutil.rmtree(self._run.directory / BEFORE, ignore_errors=True)

    def _failed(self, error: BaseException) -> None:
        try:
            if put_back(self._run.directory):  # which also makes room
                log.warning("The run that had finished in %s is back as it was.", self._run.directory)
                return
            why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._record("failed", why)
        except OSError as full:  # a run that had finished is read from `.before`, and any other is one that was started
            log.warning("%s cannot be written (%s), so that it does not say why.", self._run.directory, full.strerror)

    @contextmanager
    def _on_disk(self) -> Generator[None, None, None]:
        """What the disk refuses is told in one sentence."""
        try:
            yield
        except OSError as error:
            raise InputError(f"{unwritable(error, self._run.directory)}.") from error

    def reused(self, method: str, run: str) -> None:
        """Note that what a method found was kept since that run."""
        self._reused[method] = run

    def save(self, result: Result) -> None:
        """Write the result, its files first, so that a line in results.jsonl never promises a missing file."""
        self._claim(result)
        with self._on_disk():
            _write_files(result, self._run.directory)
            with (self._run.directory / RESULTS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(encoded(result), ensure_ascii=False) + "\n")
        self._metrics |= flat(result)

    def _claim(self, result: Result) -> None:
        """Two results under one name, or one file name, would overwrite each other: that is an error in the method."""
        for place in (f"the result {result.name}", *file_names(result)):
            if place in self._taken:
                raise ValueError(f"{result.name} would overwrite {place}, of {self._taken[place]}; rename it.")
            self._taken[place] = result.name

    def _record(self, status: Status, error: str | None) -> None:
        seconds = round(time.monotonic() - self._start, 1)
        record = {"format": FORMAT} | asdict(self._run) | {"status": status, "seconds": seconds, "error": error}
        record["reused"] = self._reused
        record.pop("directory")  # it is where the file lies
        _write_text(self._run.directory / RECORD, json.dumps(record, indent=1) + "\n")


def clear(directory: Path) -> None:
    """Remove what an earlier attempt left, except its logs."""
    for name in _names(directory):  # metrics.json first: a half-cleared run must not seem finished
        (directory / name).unlink(missing_ok=True)
    for partial in directory.glob(f"**/*{PARTIAL}"):
        partial.unlink()


def set_aside(directory: Path) -> None:
    """Keep a run that finished in `.before`, whole at any moment, until the one that takes its place has finished."""
    if (directory / METRICS).exists():
        _linked(directory, directory / BEFORE)


def put_back(directory: Path) -> bool:
    """Let the run that had finished take its place again; whether there was one."""
    before = directory / BEFORE
    if (directory / METRICS).exists() or not (before / METRICS).exists():
        return False
    clear(directory)
    for name in reversed(_names(before)):  # metrics.json last
        link(before / name, directory / name)
    shutil.rmtree(before)
    return True


def _linked(directory: Path, target: Path) -> None:
    """The files of a run a second time, all of them or none."""
    making = target.with_name(target.name + "-new")
    for old in (making, target):
        shutil.rmtree(old, ignore_errors=True)
    for name in _names(directory):
        link(directory / name, making / name)
    making.rename(target)


def link(file: Path, target: Path) -> None:
    """Let the file lie in a second place, too, taking no room there where the file system has links."""
    if not file.exists():
        return
    with whole(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(file, partial)
        except OSError:
            shutil.copy2(file, partial)


def _names(directory: Path) -> list[str]:
    """The files of the run in a directory, metrics.json first; none that lies elsewhere, whatever it says."""
    try:
        told = [str(name) for record in records(directory) for name in record.get("files", ())]
    except (ValueError, AttributeError, TypeError):  # a record that is no record names no files
        told = []
    home = directory.resolve()
    own = [name for name in told if (directory / name).resolve().is_relative_to(home) and (directory / name).is_file()]
    return [METRICS, *own, RESULTS, RECORD]


def records(directory: Path) -> list[dict[str, Any]]:
    """The lines of results.jsonl; none where there is no such file."""
    path = directory / RESULTS
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline was cut off by a kill


def loaded(record: Mapping[str, Any], directory: Path) -> Result:
    """The result of a line, with its tensors, as it was: written again, it is the same line."""
    if record["kind"] not in ("tensors", "adapter"):
        result = decoded(record)
        whole_number = isinstance(result, Scalar) and isinstance(record["value"], int)
        return replace(result, value=record["value"]) if whole_number else result
    name, label, stored = record["name"], record.get("label", ""), load_file(directory / record["files"][0])
    tensors = {key: stored[key] for key in record["shapes"]}  # in the order in which they came
    if other := [key for key, shape in record["shapes"].items() if list(tensors[key].shape) != shape]:
        raise ValueError(f"{other[0]} is of another shape than {record['shapes'][other[0]]}")
    if record["kind"] == "adapter":
        return Adapter(name, tensors, record["config"], record["card"], label)
    return Tensors(name, tensors, record["metadata"], label)


@contextmanager
def whole(path: Path) -> Generator[Path, None, None]:
    """A temporary path beside `path`, which takes its place when the block ends well, and is gone when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write_files(result: Result, directory: Path) -> None:
    paths = [directory / name for name in file_names(result)]
    match result:
        case Table(columns=columns, rows=rows):
            _write_csv(paths[0], columns, rows)
        case Transcripts(rows=rows):
            _write_text(paths[0], "".join(json.dumps(plain(dict(row)), ensure_ascii=False) + "\n" for row in rows))
        case Tensors(tensors=tensors, metadata=metadata):
            write_tensors(paths[0], tensors, metadata)
        case Adapter(tensors=tensors, config=config, card=card):
            weights, configuration, story = paths
            _write_text(configuration, json.dumps(config, indent=1) + "\n")
            _write_text(story, json.dumps(card, indent=1) + "\n")
            write_tensors(weights, tensors, {"format": "pt"})
        case _:
            pass


def _write_text(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *plain(rows)])  # None, which stands for NaN too, is an empty cell


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    # Copies: safetensors takes neither views that share memory nor tensors that are not contiguous.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with whole(path) as partial:
        try:
            save_file(copies, partial, metadata=dict(metadata))
        except SafetensorError as error:
            if of_disk := re.search(r"\(os error (\d+)\)", str(error)):  # which the library tells in words alone
                raise OSError(int(of_disk[1]), os.strerror(int(of_disk[1])), str(path)) from error
            raise
        _order_metadata(partial)
        shared(partial)


def _order_metadata(path: Path) -> None:
    """Sort the metadata in a safetensors file: the library writes them in another order each time, and equal results
    are to be equal bytes, which W&B keeps once. A file is its header's length in 8 bytes, the header as JSON, data."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"The header of {path} does not fit into its place: {len(text)} for {length} bytes.")
        file.seek(8)
        file.write(text.ljust(length))
