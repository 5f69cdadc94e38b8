"""Interactive figures of results, for the tracker (plotly), and the colours that the page uses too (matplotlib)."""

from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import Colormap

from rcm.record.results import Curve, Heatmap, Line

GREY = "0.8"  # cells that were not computed
LINES = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")


@singledispatch
def figure(result: object) -> go.Figure:
    """The figure; a missing value stays missing."""
    raise TypeError(f"There is no figure of a {type(result).__name__}; register one with @figure.register.")


@figure.register
def _(result: Heatmap) -> go.Figure:
    low, high = limits(result.values, result.center)
    cells = go.Heatmap(
        z=_known(result.values.tolist()),  # as lists: W&B draws nothing where plotly would pack an array
        zmin=low,
        zmax=high,
        colorscale="Viridis" if result.center is None else "RdBu_r",
        colorbar={"title": {"text": result.value_label}},
    )
    drawn = go.Figure(cells, _layout(result.name, result.column_label, result.row_label))
    for axis, labels in ((drawn.layout.xaxis, result.columns), (drawn.layout.yaxis, result.rows)):
        axis.update(tickvals=list(range(len(labels))), ticktext=list(labels), showgrid=False)
    drawn.layout.yaxis.autorange = "reversed"  # the first row on top
    drawn.layout.plot_bgcolor = "#cccccc"
    for row, column in result.marked:
        drawn.add_shape(x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5)
    return drawn


@figure.register
def _(result: Curve) -> go.Figure:
    drawn = go.Figure(layout=_layout(result.name, result.x_label, result.y_label))
    for line, colour in zip(result.lines, cycle(LINES), strict=False):
        drawn.add_traces(list(_traces(list(result.x), line, colour)))
    return drawn


def _traces(x: list[float], line: Line, colour: str) -> Iterator[go.Scatter]:
    """The line, and its band where it has one."""
    shared = {"x": x, "legendgroup": line.label, "line": {"color": colour}}
    if line.low is not None and line.high is not None:
        edge = shared | {"mode": "none", "showlegend": False, "hoverinfo": "skip"}
        yield go.Scatter(edge, y=_known(line.low))
        yield go.Scatter(edge, y=_known(line.high), fill="tonexty", opacity=0.3)
    yield go.Scatter(shared, y=_known(line.y), name=line.label, mode="lines+markers")


def _layout(title: str, x: str, y: str) -> dict[str, Any]:
    """Without plotly's template, which is longer than the figure."""
    return {"title": {"text": title}, "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}} | {
        "template": "none"
    }


def _known(values: Sequence[Any]) -> list[Any]:
    """NaN, which is not JSON, as None."""
    return [_known(part) if isinstance(part, Sequence) else part if np.isfinite(part) else None for part in values]


def colours(center: float | None) -> Colormap:
    """Red above and blue below a center; one ramp where there is none."""
    return colormaps["viridis" if center is None else "RdBu_r"].with_extremes(bad=GREY)


def limits(values: Float[np.ndarray, "row column"], center: float | None) -> tuple[float, float]:
    """The ends of the colour scale: as far below the center as above it, so that the center is white."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    if center is None:
        return float(known.min()), float(known.max())
    reach = float(np.abs(known - center).max()) or 1.0
    return center - reach, center + reach
