"""Interactive figures of heatmaps, curves, clouds of points and circuits, in plotly, which W&B draws."""

from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import cycle
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as go

from rcm.record.results import Curve, Diagram, Heatmap, Kind, Line, Scatter, colour_limits
from rcm.tracking.keys import title

UNKNOWN = "#cccccc"  # cells and points that were not computed
PLUS, MINUS = "#b2182b", "#2166ac"  # edges, by their sign
SYMBOLS = {"source": "circle", "head": "square", "mlp": "diamond-wide", "neuron": "circle", "output": "circle"}
SIZES = {"mlp": 24, "neuron": 9}
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


@figure.register
def _(result: Diagram) -> go.Figure:
    """A row for each layer that has a node; edges straight, but bowed where they pass another row or stay in one."""
    floors = sorted({(node.kind == "output", node.layer) for node in result.nodes})
    ordered = sorted(result.nodes, key=lambda node: get_args(Kind).index(node.kind))
    rows = [[node for node in ordered if (node.kind == "output", node.layer) == floor] for floor in floors]
    places = {
        node.name: (place - (len(row) - 1) / 2, float(height))
        for height, row in enumerate(rows)
        for place, node in enumerate(row)
    }
    strongest = max((abs(edge.weight) for edge in result.edges), default=0.0) or 1.0
    missing = f" (the strongest {len(result.drawable)} of {len(result.edges)} edges)" if result.left_out else ""
    drawn = go.Figure(layout=_layout(title(result) + missing, "", "layer"))
    for source, target, weight in result.drawable:
        (x, y), (to_x, to_y) = places[source], places[target]
        bow = 0.4 if to_y - y > 1 else 0.0
        share = abs(weight) / strongest
        drawn.add_trace(
            go.Scatter(
                x=[x, (x + to_x) / 2 + bow, to_x],
                y=[y, (y + to_y) / 2 + (0.3 if y == to_y else 0.0), to_y],
                mode="lines",
                line={"color": PLUS if weight >= 0 else MINUS, "width": 1 + 5 * share, "shape": "spline"},
                opacity=0.4 + 0.5 * share,
                text=f"{source} → {target}: {result.weight_label} {weight:.3g}",
                hoverinfo="text",
                showlegend=False,
            )
        )
    low, high = colour_limits(np.array([[node.value for node in result.nodes]], dtype=float), result.center)
    colours = {
        "cmin": low,
        "cmax": high,
        "colorscale": "Viridis" if result.center is None else "RdBu_r",
        "showscale": True,
        "colorbar": {"title": {"text": result.value_label}},
    }
    for known in (True, False):
        some = [node for node in result.nodes if np.isfinite(node.value) == known]
        marker: dict[str, Any] = {
            "size": [SIZES.get(node.kind, 18) for node in some],
            "symbol": [SYMBOLS[node.kind] for node in some],
            "line": {"color": "black", "width": 0.5},
            "opacity": 1,
            "color": [float(node.value) for node in some] if known else UNKNOWN,
        }
        figures = [f": {result.value_label} {node.value:.3g}" if known else "" for node in some]
        about = [f"{node.name} ({node.kind}){figure}" for node, figure in zip(some, figures, strict=True)]
        at = {"x": [places[node.name][0] for node in some], "y": [places[node.name][1] for node in some]}
        names = {"text": [node.name for node in some], "textposition": "bottom center", "hovertext": about}
        points = {**at, **names, "mode": "markers+text", "hoverinfo": "text", "showlegend": False}
        if some:
            drawn.add_trace(go.Scatter(points, marker=marker | (colours if known else {})))
    labels = ["output" if output else "source" if layer < 0 else str(layer) for output, layer in floors]
    drawn.layout.yaxis.update(tickvals=list(range(len(floors))), ticktext=labels)
    drawn.layout.xaxis.update(visible=False)
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
