"""How a run lies on disk: written as its results come, read back by the page and by later runs.

    run.json        what was run: id, choices, settings, provenance; status, seconds, and the error if there was one
    results.jsonl   every result in the order it came, one JSON object a line; of tensors, what they are and their file
    metrics.json    the figures and outcomes, flat; written last, so that its presence means that the run finished
    files           tables as CSV, tensors as safetensors, adapters as peft's folders: named after the last part of the
                    result's name, so that `direction/candidates` is candidates.csv; transcripts as JSONL, after all of
                    it: steering_transcripts.jsonl

Every file is written under a temporary name, then renamed; results.jsonl is flushed line by line. So whatever a killed
run leaves is whole, but for the last line of results.jsonl, which counts only with its newline.
In JSON a NaN is null; an infinity is Python's `Infinity`.
"""

import csv
import json
import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rcm.errors import InputError
from rcm.packaged import PACKAGED
from rcm.record.identity import METRICS
from rcm.record.results import (
    Adapter,
    Column,
    Curve,
    Heatmap,
    Line,
    Null,
    Outcome,
    Result,
    Scalar,
    Table,
    Tensors,
    Transcripts,
)

RECORD, RESULTS = "run.json", "results.jsonl"
WEIGHTS, ADAPTER_CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"  # peft's names, ours
PARTIAL = ".partial"

Status = Literal["started", "finished", "failed"]


@dataclass(frozen=True)
class Run:
    """What was asked for. `choices`: the option of each group, and of `method` all, with commas. `config`: the whole
    composed config, as plain values. `weights`, `data`: digests of what was measured, and on which prompts
    (`rcm.record.identity`)."""

    id: str
    directory: Path
    choices: Mapping[str, str]
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights: str = ""
    data: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it ran, in order."""
        return tuple(self.config.get("method", ()))

    @property
    def label(self) -> str:
        """The model's name for people: of its option, or of its folder or file; with what else tells weights apart."""
        model: Mapping[str, Any] = self.config.get("model", {})
        name = Path(model["path"]).name if model.get("path") else self.choices.get("model", "")
        revision, adapter = model.get("revision"), model.get("adapter")
        name += f"@{str(revision)[:12]}" if revision not in (None, "main") else ""
        own = adapter is None or str(adapter).startswith(PACKAGED)
        return name if own else f"{name} + {Path(str(adapter)).name}"

    @property
    def family(self) -> str | None:
        """Models of one family may be compared."""
        return self.config.get("model", {}).get("family")

    @property
    def stage(self) -> str | None:
        """What training the model has behind it."""
        return self.config.get("model", {}).get("stage")


class Store:
    """The directory of a run while it is on: `with Store(run) as store: store.save(result)`.

    Entering clears what an earlier attempt left; leaving writes how it ended. Only files that rcm wrote are cleared.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._metrics: dict[str, float | str | None] = {}
        self._taken = {RESULTS: "the record of results"}
        self._start = time.monotonic()

    def __enter__(self) -> "Store":
        clear(self._run.directory)
        self._record("started", None)
        (self._run.directory / RESULTS).touch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._record("failed", str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
            return
        self._record("finished", None)
        with whole(self._run.directory / METRICS) as path:
            path.write_text(json.dumps(self._metrics, indent=1) + "\n")

    def save(self, result: Result) -> None:
        """Write the result, its files first, so that a line in results.jsonl never promises a missing file."""
        self._claim(result)
        _write_files(result, self._run.directory)
        with (self._run.directory / RESULTS).open("a") as stream:
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
        record = asdict(self._run) | {"status": status, "seconds": seconds, "error": error}
        record.pop("directory")  # it is where the file lies
        with whole(self._run.directory / RECORD) as path:
            path.write_text(json.dumps(record, indent=1) + "\n")


def clear(directory: Path) -> None:
    """Remove what an earlier attempt left, except its logs."""
    files = [name for record in _records(directory) for name in record.get("files", ())]
    for name in (METRICS, *files, RESULTS, RECORD):  # metrics.json first: a half-cleared run must not seem finished
        (directory / name).unlink(missing_ok=True)
    for partial in directory.glob(f"**/*{PARTIAL}"):
        partial.unlink()


def flat(result: Result) -> dict[str, int | float | str | None]:
    """The result's part of metrics.json; empty for what is not a figure.

    Beside a scalar stand its `_low`, `_high`, `_n` and `_null`: all four if it tells n, else those it has; and beside a
    rate of verdicts, `_unscored` and the judge's `_kappa`.
    """
    match result:
        case Scalar(name=name, interval=interval, n=n, null=null):
            low, high = interval or (None, None)
            reached = None if null is None else null.value
            beside = {f"{name}_low": low, f"{name}_high": high, f"{name}_n": n, f"{name}_null": reached}
            companions = beside if n is not None else {key: part for key, part in beside.items() if part is not None}
            judged = {f"{name}_unscored": result.unscored, f"{name}_kappa": result.kappa}
            companions |= {key: part for key, part in judged.items() if part is not None}
            return {key: _finite(part) for key, part in ({name: result.value} | companions).items()}
        case Outcome(name=name, value=value):
            return {name: value}
        case _:
            return {}


def _finite(value: float | int | None) -> float | int | None:
    return value if value is not None and math.isfinite(value) else None


def file_names(result: Result) -> tuple[str, ...]:
    """The result's files, relative to the run directory."""
    stem = result.name.rsplit("/", 1)[-1]
    match result:
        case Table():
            return (f"{stem}.csv",)
        case Transcripts():
            return (f"{result.name.replace('/', '_')}.jsonl",)  # one run may have several kinds of transcripts
        case Tensors():
            return (f"{stem}.safetensors",)
        case Adapter():
            return tuple(f"{stem}/{name}" for name in (WEIGHTS, ADAPTER_CONFIG, CARD))
        case _:
            return ()


@contextmanager
def whole(path: Path) -> Generator[Path, None, None]:
    """A temporary path beside `path`, which takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    yield partial
    os.replace(partial, path)


def _write_files(result: Result, directory: Path) -> None:
    paths = [directory / name for name in file_names(result)]
    match result:
        case Table(columns=columns, rows=rows):
            _write_csv(paths[0], columns, rows)
        case Transcripts(rows=rows):
            _write_text(paths[0], "".join(json.dumps(_plain(dict(row)), ensure_ascii=False) + "\n" for row in rows))
        case Tensors(tensors=tensors, metadata=metadata):
            _write_tensors(paths[0], tensors, metadata)
        case Adapter(tensors=tensors, config=config, card=card):
            weights, configuration, story = paths
            _write_text(configuration, json.dumps(config, indent=1) + "\n")
            _write_text(story, json.dumps(card, indent=1) + "\n")
            _write_tensors(weights, tensors, {"format": "pt"})
        case _:
            pass


def _write_text(path: Path, text: str) -> None:
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *_plain(rows)])  # None, which stands for NaN too, is an empty cell


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    # Copies: safetensors takes neither views that share memory nor tensors that are not contiguous.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with whole(path) as partial:
        save_file(copies, partial, metadata=dict(metadata))
        _order_metadata(partial)


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


def encoded(result: Result) -> dict[str, Any]:
    """The result as one line of results.jsonl."""
    record: dict[str, Any] = {"kind": type(result).__name__.lower(), "name": result.name}
    match result:
        case Tensors(tensors=tensors, metadata=metadata):
            record |= {"shapes": _shapes(tensors), "metadata": dict(metadata)}
        case Adapter(tensors=tensors, config=config, card=card):
            record |= {"shapes": _shapes(tensors), "config": dict(config), "card": dict(card)}
        case _:
            record |= _plain(asdict(result))
    return record | {"files": file_names(result)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _plain(value: Any) -> Any:
    """The value in JSON's types: arrays as lists, NaN as None."""
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case dict():
            return {key: _plain(part) for key, part in cast(dict[str, Any], value).items()}
        case list() | tuple():
            return [_plain(part) for part in cast(Sequence[Any], value)]
        case float() if math.isnan(value):
            return None
        case _:
            return value


@dataclass(frozen=True, kw_only=True)
class StoredRun(Run):
    """A run read back. `metrics` is empty unless it finished; `started` is an ISO time (UTC)."""

    status: Status
    metrics: Mapping[str, int | float | str | None]
    started: str
    seconds: float
    error: str | None

    def results(self) -> list[Result]:
        """What the run reported, in order, but for tensors and adapters: those are read one at a time."""
        return [_decoded(record) for record in _records(self.directory) if record["kind"] not in ("tensors", "adapter")]

    def files(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Kind and files of the tensors and adapters that the run reported, by name."""
        kept = [record for record in _records(self.directory) if record["kind"] in ("tensors", "adapter")]
        return {record["name"]: (record["kind"], tuple(record["files"])) for record in kept}

    def tensors(self, name: str) -> Tensors:
        """The tensors that the run reported under this name; raises InputError where it reported none."""
        record = self._record_of(name, "tensors")
        path = self.directory / record["files"][0]
        return Tensors(name, load_file(path), _metadata(path))

    def metadata(self, name: str) -> dict[str, str]:
        """What stands beside those tensors, without reading them."""
        return dict(self._record_of(name, "tensors")["metadata"])

    def adapter(self, name: str) -> Adapter:
        """The adapter that the run reported under this name; raises InputError where it reported none."""
        record = self._record_of(name, "adapter")
        return Adapter(name, load_file(self.directory / record["files"][0]), record["config"], record["card"])

    def _record_of(self, name: str, kind: str) -> dict[str, Any]:
        records = {record["name"]: record for record in _records(self.directory) if record["kind"] == kind}
        if name not in records:
            has = ", ".join(records) or "none"
            raise InputError(f"The run in {self.directory} has no {kind} called {name}; it has: {has}.")
        return records[name]


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def stored_runs(folder: Path) -> list[StoredRun]:
    """The runs right below a folder, in the order in which they started; what is no run is passed over."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give the one that holds the runs, such as runs/.")
    runs = [stored_run(path.parent) for path in folder.glob(f"*/{RECORD}")]
    return sorted(runs, key=lambda run: (run.started, run.id))


def stored_run(directory: Path) -> StoredRun:
    """The run in this directory, finished or not; raises InputError where there is none."""
    if not (directory / RECORD).is_file():
        raise InputError(f"There is no run in {directory}; a run's directory has a {RECORD}.")
    record = json.loads((directory / RECORD).read_text())
    metrics = directory / METRICS
    return StoredRun(
        **record | {"status": _status(record["status"], metrics)},
        directory=directory,
        metrics=json.loads(metrics.read_text()) if metrics.exists() else {},
        started=record["provenance"]["started"],
    )


def _status(recorded: Status, metrics: Path) -> Status:
    """A run that was killed between its record and its metrics has not finished."""
    return "started" if recorded == "finished" and not metrics.exists() else recorded


def _records(directory: Path) -> list[dict[str, Any]]:
    path = directory / RESULTS
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline was cut off by a kill


def _decoded(record: Mapping[str, Any]) -> Result:
    """The result that `encoded` made the record of; a null where a figure is wanted becomes NaN again."""
    if record["kind"] not in RESULT_KINDS:
        raise ValueError(
            f"{RESULTS} has a result of the unknown kind {record['kind']!r}; was it written by a later rcm?"
        )
    made, readers = RESULT_KINDS[record["kind"]]
    fields = {key: value for key, value in record.items() if key not in ("kind", "files")}
    return made(**{key: readers[key](value) if key in readers else value for key, value in fields.items()})


def _figure(value: int | float | None) -> float:
    return math.nan if value is None else float(value)


def _figures(values: Sequence[int | float | None]) -> tuple[float, ...]:
    return tuple(map(_figure, values))


def _band(values: Sequence[int | float | None] | None) -> tuple[float, ...] | None:
    return None if values is None else _figures(values)


def _null(fields: Mapping[str, Any] | None) -> Null | None:
    return None if fields is None else Null(**{**fields, "value": _figure(fields["value"])})


def _cell(value: Any) -> Any:
    return math.nan if value is None else value


def _grid(values: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "row column"]:
    return np.array(values, dtype=float)


def _line(fields: Mapping[str, Any]) -> Line:
    return Line(fields["label"], _figures(fields["y"]), _band(fields["low"]), _band(fields["high"]))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _cell(value) for key, value in row.items()}


# For each kind in results.jsonl its class, and how to read the fields that JSON does not give back as they were.
RESULT_KINDS: Mapping[str, tuple[Callable[..., Result], Mapping[str, Callable[[Any], Any]]]] = {
    "scalar": (Scalar, {"value": _figure, "interval": _band, "null": _null}),
    "outcome": (Outcome, {}),
    "heatmap": (
        Heatmap,
        {"values": _grid, "rows": tuple, "columns": tuple, "marked": lambda cells: tuple(map(tuple, cells))},
    ),
    "curve": (Curve, {"x": _figures, "lines": lambda lines: tuple(map(_line, lines))}),
    "table": (
        Table,
        {
            "columns": tuple,
            "rows": lambda rows: tuple(tuple(map(_cell, row)) for row in rows),
            "shown": lambda columns: tuple(Column(*one) for one in columns),
        },
    ),
    "transcripts": (Transcripts, {"rows": lambda rows: tuple(map(_row, rows))}),
}
