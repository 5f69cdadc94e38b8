"""What W&B shows of each kind of result; a new kind registers a view.

Scalar, Outcome    the summary: one figure under each name
Heatmap            an interactive figure, and a long table of its cells
Curve              an interactive figure, and its points as rows against a common axis (layer, strength), so that
                   W&B draws the curves of several runs into one chart
Table, Transcripts a table, logged once and complete
Tensors, Adapter   an artifact
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from rcm.record.results import Adapter, Curve, Heatmap, Outcome, Result, Scalar, Table, Tensors, Transcripts
from rcm.record.storage import Run, flat
from rcm.tracking import figures as plots
from rcm.tracking.lineage import artifact, inputs

if TYPE_CHECKING:
    import wandb


@singledispatch
def show(result: object, live: "wandb.Run", run: Run) -> None:
    """Log one result."""
    raise TypeError(f"W&B has no view for a {type(result).__name__}; register one with @show.register.")


@show.register(Scalar)
@show.register(Outcome)
def _(result: Scalar | Outcome, live: "wandb.Run", run: Run) -> None:
    for key, value in flat(result).items():
        if value is not None:
            live.summary[key] = value


@show.register(Heatmap)
def _(result: Heatmap, live: "wandb.Run", run: Run) -> None:
    cells = [
        [row, column, float(result.values[i, j]), (i, j) in result.marked]
        for i, row in enumerate(result.rows)
        for j, column in enumerate(result.columns)
    ]
    values = _table([result.row_label, result.column_label, "value", "marked"], cells)
    live.log({result.name: plots.figure(result), f"{_key(result)}_values": values})


@show.register(Curve)
def _(result: Curve, live: "wandb.Run", run: Run) -> None:
    axis = _word(result.x_label.partition(",")[0])  # without the unit
    live.define_metric(axis, hidden=True)
    live.define_metric(f"{result.name}/*", step_metric=axis, summary="none")
    live.log({result.name: plots.figure(result)})
    for place, x in enumerate(result.x):
        live.log({axis: x} | dict(_points(result, place)))


def _points(curve: Curve, place: int) -> Iterator[tuple[str, float]]:
    """Every line's value at one place, with its band; not those that are missing."""
    for line in curve.lines:
        name = f"{curve.name}/{_word(line.label)}"
        for end, values in (("", line.y), ("_low", line.low), ("_high", line.high)):
            if values is not None and math.isfinite(values[place]):
                yield name + end, float(values[place])


def _word(label: str) -> str:
    """As W&B wants the last part of a metric's name."""
    return re.sub(r"\W+", "_", label).strip("_")


@show.register(Table)
def _(result: Table, live: "wandb.Run", run: Run) -> None:
    live.log({_key(result): _table(result.columns, result.rows)})


@show.register(Transcripts)
def _(result: Transcripts, live: "wandb.Run", run: Run) -> None:
    columns = list(dict.fromkeys(key for row in result.rows for key in row))
    live.log({_key(result): _table(columns, [[row.get(column) for column in columns] for row in result.rows])})


@show.register(Tensors)
@show.register(Adapter)
def _(result: Tensors | Adapter, live: "wandb.Run", run: Run) -> None:
    live.log_artifact(artifact(result, run.id, run.directory, inputs(run.config)))


def _key(result: Result) -> str:
    """Without the slash: W&B names a table's artifact after its key, and would add a random suffix."""
    return result.name.replace("/", "_")


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> "wandb.Table":
    import wandb

    # wandb would write NaN as it is, which is not JSON: a browser could not read the table.
    cells = [[None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=cells, allow_mixed_types=True)
