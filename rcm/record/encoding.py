"""Results as JSON, one object a line, and back; and the names of the files that hold the rest of them.

A NaN is null; an infinity is Python's `Infinity`. Of tensors and adapters the line says what they are.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rcm.errors import InputError
from rcm.record.results import (
    Adapter,
    Column,
    Curve,
    Diagram,
    Edge,
    Heatmap,
    Line,
    Node,
    Null,
    Outcome,
    Result,
    Scalar,
    Scatter,
    Table,
    Tensors,
    Transcripts,
    Word,
)

WEIGHTS, ADAPTER_CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"  # peft's names, ours


def file_names(result: Result) -> tuple[str, ...]:
    """The result's files, relative to the run directory."""
    stem = result.name.replace("/", "_")  # the whole name: two methods may each have a table of heads
    match result:
        case Table():
            return (f"{stem}.csv",)
        case Transcripts():
            return (f"{stem}.jsonl",)
        case Tensors():
            return (f"{stem}.safetensors",)
        case Adapter():
            folder = result.name.rsplit("/", 1)[-1]
            return tuple(f"{folder}/{name}" for name in (WEIGHTS, ADAPTER_CONFIG, CARD))
        case _:
            return ()


def flat(result: Result) -> dict[str, int | float | str | None]:
    """The result's part of metrics.json; empty for what is not a figure.

    Beside a scalar stand its `_low`, `_high`, `_n` and `_null`: all four if it tells n, else those it has; and beside a
    rate of verdicts, `_unscored`, the judge's `_kappa`, and, where its errors are known, `_judged_low` and
    `_judged_high`.
    """
    match result:
        case Scalar(name=name, interval=interval, n=n, null=null):
            low, high = interval or (None, None)
            reached = None if null is None else null.value
            beside = {f"{name}_low": low, f"{name}_high": high, f"{name}_n": n, f"{name}_null": reached}
            companions = beside if n is not None else {key: part for key, part in beside.items() if part is not None}
            judged: dict[str, int | float | None] = {f"{name}_unscored": result.unscored, f"{name}_kappa": result.kappa}
            judged_low, judged_high = result.judged or (None, None)
            judged |= {f"{name}_judged_low": judged_low, f"{name}_judged_high": judged_high}
            companions |= {key: part for key, part in judged.items() if part is not None}
            return {key: _finite(part) for key, part in ({name: result.value} | companions).items()}
        case Outcome(name=name, value=value):
            return {name: value}
        case _:
            return {}


def _finite(value: float | int | None) -> float | int | None:
    return value if value is not None and math.isfinite(value) else None


def encoded(result: Result) -> dict[str, Any]:
    """The result as one line of results.jsonl."""
    record: dict[str, Any] = {"kind": type(result).__name__.lower(), "name": result.name}
    match result:
        case Tensors(tensors=tensors, metadata=metadata):
            record |= {"label": result.label, "shapes": _shapes(tensors), "metadata": dict(metadata)}
        case Adapter(tensors=tensors, config=config, card=card):
            record |= {"label": result.label, "shapes": _shapes(tensors), "config": dict(config), "card": dict(card)}
        case _:
            record |= plain(asdict(result))
    return record | {"files": file_names(result)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def plain(value: Any) -> Any:
    """The value in JSON's types: arrays as lists, NaN as None."""
    match value:
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case dict():
            return {key: plain(part) for key, part in cast(dict[str, Any], value).items()}
        case list() | tuple():
            return [plain(part) for part in cast(Sequence[Any], value)]
        case float() if math.isnan(value):
            return None
        case _:
            return value


def decoded(record: Mapping[str, Any]) -> Result:
    """The result that `encoded` made the record of; a null where a figure is wanted becomes NaN again."""
    if record["kind"] not in RESULT_KINDS:
        raise ValueError(f"There is a result of the unknown kind {record['kind']!r}; was it written by a later rcm?")
    made, readers = RESULT_KINDS[record["kind"]]
    fields = {key: value for key, value in record.items() if key not in ("kind", "files")}
    return made(**{key: readers[key](value) if key in readers else value for key, value in fields.items()})


def _figure(value: int | float | None) -> float:
    return math.nan if value is None else float(value)


def _figures(values: Sequence[int | float | None]) -> tuple[float, ...]:
    return tuple(map(_figure, values))


def _band(values: Sequence[int | float | None] | None) -> tuple[float, ...] | None:
    return None if values is None else _figures(values)


def _null(fields: Any) -> Null | None:
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise InputError("It was written by an earlier rcm, whose nulls are bare numbers; run it again.")
    return Null(**{**fields, "value": _figure(fields["value"])})


def _cell(value: Any) -> Any:
    return math.nan if value is None else value


def _grid(values: Sequence[Sequence[float | None]]) -> Float[np.ndarray, "row column"]:
    return np.array(values, dtype=float)


def _line(fields: Mapping[str, Any]) -> Line:
    return Line(fields["label"], _figures(fields["y"]), _band(fields["low"]), _band(fields["high"]))


def _node(fields: Sequence[Any]) -> Node:
    name, kind, layer, value = fields
    return Node(name, kind, layer, _figure(value))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _cell(value) for key, value in row.items()}


# For each kind in results.jsonl its class, and how to read the fields that JSON does not give back as they were.
RESULT_KINDS: Mapping[str, tuple[Callable[..., Result], Mapping[str, Callable[[Any], Any]]]] = {
    "scalar": (Scalar, {"value": _figure, "interval": _band, "null": _null, "judged": _band}),
    "outcome": (Outcome, {"words": lambda words: {name: Word(*one) for name, one in words.items()}}),
    "heatmap": (
        Heatmap,
        {"values": _grid, "rows": tuple, "columns": tuple, "marked": lambda cells: tuple(map(tuple, cells))},
    ),
    "curve": (Curve, {"x": _figures, "lines": lambda lines: tuple(map(_line, lines))}),
    "scatter": (
        Scatter,
        {"x": _figures, "y": _figures, "values": _figures, "points": tuple, "marked": tuple},
    ),
    "diagram": (
        Diagram,
        {
            "nodes": lambda nodes: tuple(map(_node, nodes)),
            "edges": lambda edges: tuple(Edge(*one) for one in edges),
        },
    ),
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
