"""comparison.json: all conclusions as plain values, for programs.

    schema       1; another number where a field that stands here goes or changes its meaning
    runs         every run of the folder, as it started
    tunings      of each two models of a family: pairs of runs by id, what changed in each, how alike the directions are
                 at each layer, the verdict; interval and p as in `rcm.comparison.changes`
    transplants  of each source in each target the latest
    emergence    of each training its checkpoints by step, and at which step what was there first; null for none
    left_out     finished runs that were compared with none, and why
    warnings     sentences, the gravest first

Shares are fractions. What has no value is null; there are neither NaN nor infinities.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rcm.comparison.changes import Change
from rcm.comparison.conclusions import Comparison
from rcm.comparison.emergence import Series
from rcm.comparison.transplants import Transplant
from rcm.comparison.tunings import Pair, Tuning
from rcm.comparison.verdict import Verdict
from rcm.record.results import Curve
from rcm.record.stored import StoredRun

SCHEMA = 1


def as_text(comparison: Comparison) -> str:
    """The whole file."""
    return json.dumps(as_json(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    known = [reading.run for reading in comparison.finished]
    known += [*(one.run for one in comparison.left_out), *comparison.unfinished]
    runs = {run.directory: run for run in known}.values()
    return {
        "schema": SCHEMA,
        "runs": [_run(run) for run in sorted(runs, key=lambda run: (run.started, run.id))],
        "tunings": [_tuning(one) for one in comparison.tunings],
        "transplants": [_transplant(one) for one in comparison.transplants],
        "emergence": [_series(one) for one in comparison.emergence],
        "left_out": [{"run": one.run.id, "why": one.why} for one in comparison.left_out],
        "warnings": [one.sentence for one in comparison.warnings],
    }


def _run(run: StoredRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "label": run.label,
        "family": run.family,
        "stage": run.stage,
        "weights": run.weights,
        "data": run.data,
        "seed": run.config.get("seed"),
        "methods": list(run.methods),
        "status": run.status,
    }


def _tuning(one: Tuning) -> dict[str, Any]:
    return {"name": one.name, "verdict": _verdict(one.verdict), "pairs": [_pair(pair) for pair in one.pairs]}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "before": pair.before.run.id,
        "after": pair.after.run.id,
        "seed": pair.seed,
        "changes": [_change(change) for change in pair.changes],
        "cosines": _curve(pair.cosines),
        "verdict": _verdict(pair.verdict),
    }


def _change(change: Change) -> dict[str, Any]:
    figures = ("label", "unit", "before", "after", "difference", "interval", "p", "significant", "d", "n")
    return {name: _plain(getattr(change, name)) for name in figures}


def _curve(curve: Curve | None) -> dict[str, Any] | None:
    """The layers, and the cosine and its null at each."""
    if curve is None:
        return None
    values, null = (line.y for line in curve.lines)
    return {"layer": [int(x) for x in curve.x], "cosine": _plain(values), "null": _plain(null)}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {"value": verdict.value, "agreed": verdict.agreed, "evidence": list(verdict.evidence)}


def _transplant(one: Transplant) -> dict[str, Any]:
    figures = {name: _plain(value) for name, value in one.row.items() if name not in ("source", "run")}
    ends = {"source": one.source, "source_run": one.source_run, "target": one.target.name, "run": one.target.run.id}
    return ends | {"seed": one.target.setting("seed")} | figures


def _series(one: Series) -> dict[str, Any]:
    checkpoints = [{"step": step, "run": reading.run.id} for step, reading in zip(one.steps, one.readings, strict=True)]
    first = {"separates": one.separates_from, "causes": one.causes_from, "refuses": one.refuses_from}
    return {"name": one.name, "checkpoints": checkpoints, "first": first}


def _plain(value: Any) -> Any:
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _plain(part) for key, part in value.items()}
        case str():
            return value
        case Sequence():
            return [_plain(part) for part in value]
        case _:
            return value
