"""Maps, curves and clouds of points for print, as PDF and PNG (matplotlib)."""

from collections.abc import Sequence
from functools import singledispatch
from io import BytesIO
from itertools import cycle

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rcm.record.results import Curve, Heatmap, Scatter, colour_limits
from rcm.report.colours import colours

LABELS = 32  # more tick labels than this on one axis cannot be read
DPI = 300  # of what is made of dots
FORMATS = ("pdf", "png")


def files(result: Heatmap | Curve | Scatter) -> dict[str, bytes]:
    """The picture as the bytes of a file, by format. It is laid out once for all of them."""
    found: dict[str, bytes] = {}
    with rc_context({"text.parse_math": False}):  # a label may hold dollars
        drawn = figure(result)
        for format in FORMATS:
            stream = BytesIO()
            drawn.savefig(stream, format=format, dpi=DPI)
            drawn.set_layout_engine("none")  # it lies where it shall; to reckon anew takes as long as to draw
            found[format] = stream.getvalue()
    return found


@singledispatch
def figure(result: object) -> Figure:
    """The picture as a matplotlib figure, which belongs to no window."""
    raise TypeError(f"There is no picture of a {type(result).__name__}; register one with @figure.register.")


@figure.register
def _(result: Heatmap) -> Figure:
    rows, columns = result.values.shape
    width, height = np.clip(2.5 + 0.28 * columns, 4, 14), np.clip(1.6 + 0.24 * rows, 2.5, 12)  # inches
    drawn = Figure(figsize=(width, height), layout="constrained")
    axes = drawn.subplots()
    low, high = colour_limits(result.values, result.center)
    image = axes.imshow(result.values, cmap=colours(result.center), vmin=low, vmax=high, aspect="auto")
    axes.set_title(result.label or result.name, fontsize=10, wrap=True)
    axes.set(xlabel=result.column_label, ylabel=result.row_label)
    _label(axes.xaxis, result.columns, rotation=90 if max(map(len, result.columns), default=0) > 3 else 0)
    _label(axes.yaxis, result.rows, rotation=0)
    for row, column in result.marked:
        _outline(axes, row, column)
    drawn.colorbar(image, label=result.value_label)
    return drawn


@figure.register
def _(result: Curve) -> Figure:
    drawn = Figure(figsize=(7, 4.2), layout="constrained")
    axes = drawn.subplots()
    # Markers and dashes beside colours: the lines stay apart in grey print and for the colour-blind.
    for line, marker, dash in zip(result.lines, cycle("os^Dv"), cycle(("-", "--", "-.", ":")), strict=False):
        (stroke,) = axes.plot(result.x, line.y, label=line.label, marker=marker, linestyle=dash, markersize=4)
        if line.low is not None and line.high is not None:
            axes.fill_between(result.x, line.low, line.high, color=stroke.get_color(), alpha=0.15, linewidth=0)
    axes.set_title(result.label or result.name, fontsize=10, wrap=True)
    axes.set(xlabel=result.x_label, ylabel=result.y_label)
    axes.grid(alpha=0.3)
    if result.lines:
        axes.legend()
    return drawn


@figure.register
def _(result: Scatter) -> Figure:
    drawn = Figure(figsize=(7, 4.2), layout="constrained")
    axes = drawn.subplots()
    shown = result.drawable
    x, y, values = (np.array(column, dtype=float)[shown] for column in (result.x, result.y, result.values))
    low, high = colour_limits(np.array([result.values], dtype=float), result.center)
    cloud = axes.scatter(
        x,
        y,
        c=values,
        cmap=colours(result.center),
        vmin=low,
        vmax=high,
        edgecolors="0.4",
        linewidths=0.6,
        plotnonfinite=True,
    )
    looked_at = [place for place, i in enumerate(shown) if i in result.marked]
    axes.scatter(x[looked_at], y[looked_at], s=130, facecolors="none", edgecolors="black", linewidths=1.6)
    for place, i in zip(looked_at, (i for i in shown if i in result.marked), strict=True):
        axes.annotate(result.points[i], (x[place], y[place]), xytext=(8, 8), textcoords="offset points", fontsize=8)
    if result.x_limit is not None:
        axes.axvline(result.x_limit, color="0.4", linestyle="--", linewidth=1)
    if result.y_limit is not None:
        axes.axhline(result.y_limit, color="0.4", linestyle="--", linewidth=1)
    if result.log_x:
        axes.set_xscale("log")
    axes.set_title(result.label or result.name, fontsize=10, wrap=True)
    axes.set(xlabel=result.x_label, ylabel=result.y_label)
    axes.grid(alpha=0.3)
    drawn.colorbar(cloud, label=result.value_label)
    return drawn


def _label(axis: Axis, labels: Sequence[str], rotation: int) -> None:
    """Every label, or as many as can be read."""
    step = -(-len(labels) // LABELS) or 1
    axis.set_ticks(range(0, len(labels), step), labels=labels[::step], rotation=rotation, fontsize=8)


def _outline(axes: Axes, row: int, column: int) -> None:
    """Black on white, so that it shows on every colour."""
    for colour, width in (("white", 3.0), ("black", 1.4)):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3))
