"""What W&B shows of each kind of result; a new kind registers a view.

Scalar, Outcome    the summary: one figure under each name, and whether it met its target. At the end, what all of them
                   mean: the tables `figures` and `conclusions`, and how many targets are met. (W&B's client has no
                   place for whether high or low is good: it is in the table.)
Heatmap            an interactive figure, and a long table of its cells
Scatter            an interactive figure, and a table of its points
Diagram            an interactive figure, and tables of its nodes and of its edges
Curve              an interactive figure, and its points as rows against a common axis (layer, strength), so that
                   W&B draws the curves of several runs into one chart
Table, Transcripts a table, logged once and complete
Tensors, Adapter   an artifact

A table of more than LARGE bytes is an artifact with all rows, beside its first ones: a browser loads a table whole.
"""

import json
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatch
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcm.record.encoding import flat
from rcm.record.results import (
    Adapter,
    Curve,
    Diagram,
    Heatmap,
    Outcome,
    Result,
    Scalar,
    Scatter,
    Table,
    Tensors,
    Transcripts,
)
from rcm.record.run import Run
from rcm.tracking import figures, keys
from rcm.tracking.best_effort import BestEffort
from rcm.tracking.lineage import artifact, inputs, name_of

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
LARGE = 1_000_000  # bytes of a table as JSON
FIGURE_COLUMNS = (
    *("figure", "label", "value", "unit", "low", "high", "n", "counts"),
    *("null", "null_of", "null_draws", "p", "target", "met", "good", "hint", "caveat"),
)
CONCLUSION_COLUMNS = ("conclusion", "label", "value", "because", "complete", "hint", "caveat")


@contextmanager
def shown(live: "wandb.Run", run: Run, effort: BestEffort) -> Generator[Callable[[Result], None], None, None]:
    """Gives the function that logs each result as it comes. The tables of what the figures mean follow when the block
    ends, be it by an exception: a table that is logged twice would stand there twice."""
    taken: list[Scalar | Outcome] = []

    def take(result: Result) -> None:
        effort(lambda: show(result, live, run))
        if isinstance(result, Scalar | Outcome):  # of the others nothing is kept: they may be large
            taken.append(result)

    try:
        yield take
    finally:
        with_target = [one for one in taken if isinstance(one, Scalar) and one.target is not None]
        if with_target:
            live.summary[keys.TARGETS_MET] = sum(bool(one.met) for one in with_target)
            live.summary[keys.TARGETS] = len(with_target)
        effort(lambda: live.log(tables) if (tables := _meanings(taken, live, run)) else None)


def show_picture(png: Path, live: "wandb.Run", run: Run) -> None:
    """Log the picture of the whole run."""
    import wandb

    live.log({keys.PICTURE: wandb.Image(str(png), caption=run.label)})


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
    if isinstance(result, Scalar) and result.target is not None:
        live.summary[f"{result.name}_met"] = bool(result.met)
    if isinstance(result, Outcome) and result.tag:
        live.tags = (*(live.tags or ()), result.tag)


def _meanings(taken: Sequence[Scalar | Outcome], live: "wandb.Run", run: Run) -> dict[str, "wandb.Table"]:
    """The tables `figures` and `conclusions`, of those that have a row."""
    figure_rows = [_figure_row(one) for one in taken if isinstance(one, Scalar)]
    conclusion_rows = [
        (one.name, keys.title(one), one.value, one.because, one.complete, one.hint or one.means, one.caveat)
        for one in taken
        if isinstance(one, Outcome)
    ]
    tables = {
        keys.FIGURES: (FIGURE_COLUMNS, figure_rows),
        keys.CONCLUSIONS: (CONCLUSION_COLUMNS, conclusion_rows),
    }
    return {key: _table(key, columns, rows, live, run) for key, (columns, rows) in tables.items() if rows}


def _figure_row(scalar: Scalar) -> tuple[Any, ...]:
    """In the order of FIGURE_COLUMNS."""
    null = scalar.null
    return (
        scalar.name,
        keys.title(scalar),
        scalar.value,
        scalar.unit,
        *(scalar.interval or (None, None)),
        scalar.n,
        scalar.counts if scalar.n is not None else None,
        *((null.value, null.of, null.draws, null.p) if null else (None,) * 4),
        scalar.target,
        scalar.met,
        scalar.good,
        scalar.hint,
        scalar.caveat,
    )


@show.register(Heatmap)
def _(result: Heatmap, live: "wandb.Run", run: Run) -> None:
    cells = [
        [row, column, float(result.values[i, j]), (i, j) in result.marked]
        for i, row in enumerate(result.rows)
        for j, column in enumerate(result.columns)
    ]
    columns = [result.row_label, result.column_label, "value", "marked"]
    values = _table(keys.cells(result), columns, cells, live, run)
    live.log({result.name: figures.figure(result), keys.cells(result): values})


@show.register(Scatter)
def _(result: Scatter, live: "wandb.Run", run: Run) -> None:
    columns = ["point", result.x_label, result.y_label, result.value_label, "marked"]
    points = [
        [*one, i in result.marked]
        for i, one in enumerate(zip(result.points, result.x, result.y, result.values, strict=True))
    ]
    values = _table(keys.cells(result), columns, points, live, run)
    live.log({result.name: figures.figure(result), keys.cells(result): values})


@show.register(Diagram)
def _(result: Diagram, live: "wandb.Run", run: Run) -> None:
    nodes = [[one.name, one.kind, int(one.layer), float(one.value)] for one in result.nodes]
    edges = [[one.source, one.target, float(one.weight)] for one in result.edges]
    tables = {
        keys.nodes(result): (["node", "kind", "layer", result.value_label], nodes),
        keys.edges(result): (["from", "to", result.weight_label], edges),
    }
    shown_tables = {key: _table(key, columns, rows, live, run) for key, (columns, rows) in tables.items()}
    live.log({result.name: figures.figure(result), **shown_tables})


@show.register(Curve)
def _(result: Curve, live: "wandb.Run", run: Run) -> None:
    axis = keys.axis(result)
    live.define_metric(axis, hidden=True)
    live.define_metric(f"{result.name}/*", step_metric=axis, summary="none")
    live.log({result.name: figures.figure(result)})
    for place, x in enumerate(result.x):
        live.log({axis: x} | dict(_points(result, place)))


def _points(curve: Curve, place: int) -> Iterator[tuple[str, float]]:
    """Every line's value at one place, with its band; not those that are missing."""
    for name, line in keys.lines(curve).items():
        for end, values in (("", line.y), ("_low", line.low), ("_high", line.high)):
            if values is not None and math.isfinite(values[place]):
                yield name + end, float(values[place])


@show.register(Table)
def _(result: Table, live: "wandb.Run", run: Run) -> None:
    key = keys.table(result)
    live.log({key: _table(key, result.columns, result.rows, live, run)})


@show.register(Transcripts)
def _(result: Transcripts, live: "wandb.Run", run: Run) -> None:
    columns = list(dict.fromkeys(key for row in result.rows for key in row))
    key, rows = keys.table(result), [[row.get(column) for column in columns] for row in result.rows]
    live.log({key: _table(key, columns, rows, live, run)})


@show.register(Tensors)
@show.register(Adapter)
def _(result: Tensors | Adapter, live: "wandb.Run", run: Run) -> None:
    live.log_artifact(artifact(result, run.id, run.directory, inputs(run.config)))


def _table(
    key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], live: "wandb.Run", run: Run
) -> "wandb.Table":
    """All rows; of a table larger than LARGE the first, beside an artifact that holds all."""
    import wandb

    # wandb would write NaN and infinities as they are, which is not JSON: a browser could not read the table.
    cells = [[None if isinstance(cell, float) and not math.isfinite(cell) else cell for cell in row] for row in rows]
    sizes = list(accumulate(len(json.dumps(row, default=float)) for row in cells))
    shown_rows = bisect_right(sizes, LARGE)
    if shown_rows < len(cells):
        whole = wandb.Artifact(name_of(f"{key}_rows", run.id), type="rows")
        with whole.new_file(f"{key}.jsonl", encoding="utf-8") as stream:
            stream.writelines(json.dumps(dict(zip(columns, row, strict=True)), default=float) + "\n" for row in cells)
        live.log_artifact(whole)
        log.info("W&B shows the first %d of %d rows of %s; %s has all", shown_rows, len(cells), key, whole.name)
    return wandb.Table(columns=list(columns), data=cells[:shown_rows], allow_mixed_types=True)
