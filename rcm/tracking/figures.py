"""Interactive figures of heatmaps, curves and clouds of points, in plotly, which W&B draws."""

from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go

from rcm.record.results import Curve, Heatmap, Line, Scatter, colour_limits
from rcm.tracking.keys import title

UNKNOWN = "#cccccc"  # cells and points that were not computed
LINES = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")


@singledispatch
def figure(result: object) -> go.Figure:
    """The figure; a missing value stays missing."""
    raise TypeError(f"There is no figure of a {type(result).__name__}; register one with @figure.register.")


@figure.register
def _(result: Heatmap) -> go.Figure:
    low, high = colour_limits(result.values, result.center)
    cells = go.Heatmap(
        z=_known(result.values.tolist()),  # as lists: W&B draws nothing where plotly would pack an array
        zmin=low,
        zmax=high,
        colorscale="Viridis" if result.center is None else "RdBu_r",
        colorbar={"title": {"text": result.value_label}},
    )
    drawn = go.Figure(cells, _layout(title(result), result.column_label, result.row_label))
    for axis, labels in ((drawn.layout.xaxis, result.columns), (drawn.layout.yaxis, result.rows)):
        axis.update(tickvals=list(range(len(labels))), ticktext=list(labels), showgrid=False)
    drawn.layout.yaxis.autorange = "reversed"  # the first row on top
    drawn.layout.plot_bgcolor = UNKNOWN
    for row, column in result.marked:
        drawn.add_shape(x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5)
    return drawn


@figure.register
def _(result: Curve) -> go.Figure:
    drawn = go.Figure(layout=_layout(title(result), result.x_label, result.y_label))
    for line, colour in zip(result.lines, cycle(LINES), strict=False):
        drawn.add_traces(list(_traces(list(result.x), line, colour)))
    return drawn


@figure.register
def _(result: Scatter) -> go.Figure:
    shown = result.drawable
    low, high = colour_limits(np.array([result.values], dtype=float), result.center)
    colours = {
        "cmin": low,
        "cmax": high,
        "colorscale": "Viridis" if result.center is None else "RdBu_r",
        "showscale": True,
        "colorbar": {"title": {"text": result.value_label}},
    }
    drawn = go.Figure(layout=_layout(title(result), result.x_label, result.y_label))
    for known in (True, False):  # plotly has no colour for what is not known
        some = [i for i in shown if np.isfinite(result.values[i]) == known]
        marker: dict[str, Any] = {
            "size": [14 if i in result.marked else 8 for i in some],
            "line": {"color": "black", "width": [2 if i in result.marked else 0.5 for i in some]},
            "color": [float(result.values[i]) for i in some] if known else UNKNOWN,
        }
        x, y = ([float(column[i]) for i in some] for column in (result.x, result.y))
        points = {"x": x, "y": y, "text": [result.points[i] for i in some], "mode": "markers", "showlegend": False}
        if some:
            drawn.add_trace(go.Scatter(points, marker=marker | (colours if known else {})))
    if result.log_x:
        drawn.layout.xaxis.type = "log"
    for at, draw in ((result.x_limit, drawn.add_vline), (result.y_limit, drawn.add_hline)):
        if at is not None:
            draw(at, line_dash="dash", line_width=1)
    return drawn


def _traces(x: list[float], line: Line, colour: str) -> Iterator[go.Scatter]:
    """The line, and its band where it has one."""
    shared = {"x": x, "legendgroup": line.label, "line": {"color": colour}}
    if line.low is not None and line.high is not None:
        edge = shared | {"mode": "none", "showlegend": False, "hoverinfo": "skip"}
        yield go.Scatter(edge, y=_known(line.low))
        yield go.Scatter(edge, y=_known(line.high), fill="tonexty", opacity=0.3)
    yield go.Scatter(shared, y=_known(line.y), name=line.label, mode="lines+markers")


def _layout(text: str, x: str, y: str) -> dict[str, Any]:
    """Without plotly's template, which is longer than the figure."""
    return {"title": {"text": text}, "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}} | {
        "template": "none"
    }


def _known(values: Sequence[Any]) -> list[Any]:
    """NaN, which is not JSON, as None."""
    return [_known(part) if isinstance(part, Sequence) else part if np.isfinite(part) else None for part in values]
