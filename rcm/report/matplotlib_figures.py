"""Maps, curves, clouds of points and circuits for print, as PDF and PNG (matplotlib)."""

from collections.abc import Sequence
from functools import singledispatch
from io import BytesIO
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, NullFormatter

from rcm.record.results import Curve, Diagram, Heatmap, Scatter, colour_limits
from rcm.record.units import plain
from rcm.report import diagrams
from rcm.report.colours import GREY, MINUS, PLUS, colours
from rcm.report.heatmaps import colour

LABELS = 32  # more tick labels than this on one axis cannot be read
WIDTH, HEIGHT = 7.0, 4.2  # inches, of curves and clouds of points
DPI = 300  # of what is made of dots
BESIDE = 48  # letters in a line beside an axis; longer ones would be cut at the edge
FORMATS = ("pdf", "png")


def files(result: Heatmap | Curve | Scatter | Diagram) -> dict[str, bytes]:
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
    _title(axes, result, width)
    axes.set(xlabel=result.column_label, ylabel=result.row_label)
    _label(axes.xaxis, result.columns, rotation=90 if max(map(len, result.columns), default=0) > 3 else 0)
    _label(axes.yaxis, result.rows, rotation=0)
    for row, column in result.marked:
        _outline(axes, row, column)
    drawn.colorbar(image, label=result.value_label)
    return drawn


@figure.register
def _(result: Curve) -> Figure:
    drawn = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = drawn.subplots()
    # Markers and dashes beside colours: the lines stay apart in grey print and for the colour-blind.
    for line, marker, dash in zip(result.lines, cycle("os^Dv"), cycle(("-", "--", "-.", ":")), strict=False):
        (stroke,) = axes.plot(result.x, line.y, label=line.label, marker=marker, linestyle=dash, markersize=4)
        if line.low is not None and line.high is not None:
            axes.fill_between(result.x, line.low, line.high, color=stroke.get_color(), alpha=0.15, linewidth=0)
    _title(axes, result, WIDTH)
    axes.set(xlabel=result.x_label, ylabel=fill(result.y_label, BESIDE))
    axes.grid(alpha=0.3)
    if result.lines:
        axes.legend()
    return drawn


@figure.register
def _(result: Scatter) -> Figure:
    drawn = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
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
        # The usual labels of such an axis are formulas, powers of ten, and `files` takes every label for text.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: plain(value))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _title(axes, result, WIDTH)
    axes.set(xlabel=result.x_label, ylabel=fill(result.y_label, BESIDE))
    axes.grid(alpha=0.3)
    drawn.colorbar(cloud, label=result.value_label)
    return drawn


INCH = 96.0  # px, in which circuits are laid out
POINT = 72 / INCH
CODES = {"M": Path.MOVETO, "L": Path.LINETO, "C": Path.CURVE4}


@figure.register
def _(result: Diagram) -> Figure:
    """As on the page, cell for cell."""
    places = diagrams.layout([result])
    limits, strongest = diagrams.values_of([result]), diagrams.strongest_of([result])
    drawn = Figure(figsize=(places.width / INCH + 1.2, places.height / INCH + 0.9), layout="constrained")
    axes = drawn.subplots()
    axes.set(xlim=(0, places.width), ylim=(places.height, 0), aspect="equal")
    axes.axis("off")
    _title(axes, result, places.width / INCH)
    for label, top, bottom in places.rows:
        corner = (diagrams.LEFT, top)
        axes.add_patch(Rectangle(corner, places.width - diagrams.LEFT, bottom - top, facecolor="0.95", zorder=0))
        axes.text(diagrams.LEFT - 8, (top + bottom) / 2, label, fontsize=8, ha="right", va="center")
    for one in places.skipped:
        axes.text(diagrams.LEFT - 12, one.y, "⋮", fontsize=8, ha="center", va="center")
    for edge, outline in zip(result.drawable, diagrams.routes(result, places), strict=True):
        codes = [CODES[name] for name, points in outline for _ in points]
        way = Path([point for _, points in outline for point in points], codes)
        axes.add_patch(PathPatch(way, fill=False, zorder=1, **_stroke(edge.weight, strongest)))
    for node in result.nodes:
        box = places.box(node)
        known = np.isfinite(node.value)
        fill = colour(node.value, limits, colours(result.center)) if known else GREY
        fill = "white" if node.kind in diagrams.ENDS and not known else fill
        axes.add_patch(_cell(node.kind, box, facecolor=fill, edgecolor="0.35", linewidth=0.6, zorder=2))
        if box.named:
            x, anchor = (box.left + 2 * diagrams.DISC + 4, "left") if box.disc else (box.middle, "center")
            ink = "black" if box.disc or not known or diagrams.is_light(fill) else "white"
            axes.text(x, box.y, diagrams.short(node), fontsize=7, color=ink, ha=anchor, va="center")
    if result.edges:
        ends = [Line2D([], [], label=plain(weight), **_stroke(weight, strongest)) for weight in (strongest, -strongest)]
        title = "\n".join(filter(None, (result.weight_label, diagrams.not_drawn({"": result}))))
        drawn.legend(
            handles=ends,
            title=title,
            fontsize=8,
            title_fontsize=8,
            loc="outside lower center",
            ncols=2,
            handlelength=3.5,
        )
    if any(np.isfinite(node.value) for node in result.nodes):
        colours_of = ScalarMappable(Normalize(*limits), colours(result.center))
        drawn.colorbar(colours_of, ax=axes, label=result.value_label, shrink=0.6)
    return drawn


def _stroke(weight: float, strongest: float) -> dict[str, Any]:
    """How an edge of this weight is drawn."""
    width, opacity = diagrams.thickness(weight, strongest)
    sign = {"color": PLUS} if weight >= 0 else {"color": MINUS, "linestyle": (0, (3, 1))}
    return {"linewidth": POINT * width, "alpha": opacity, **sign}


def _cell(kind: str, box: diagrams.Box, **look: Any) -> Patch:
    if kind == "neuron":
        return Circle((box.left + diagrams.DISC, box.y), diagrams.DISC, **look)
    corner = diagrams.CORNERS.get(kind, diagrams.CELL / 2)
    bottom_left = box.left, box.y - diagrams.CELL / 2
    return FancyBboxPatch(bottom_left, box.width, diagrams.CELL, f"round,pad=0,rounding_size={corner}", **look)


def _title(axes: Axes, result: Heatmap | Curve | Scatter | Diagram, width: float) -> None:
    """In lines that a picture of so many inches holds: matplotlib's own wrapping cuts off all but the last."""
    letters = max(20, round(12 * (width - 1.5)))  # 12 to the inch; labels and the scale of colours take 1.5 of them
    axes.set_title(fill(result.label or result.name, letters), fontsize=10)


def _label(axis: Axis, labels: Sequence[str], rotation: int) -> None:
    """Every label, or as many as can be read."""
    step = -(-len(labels) // LABELS) or 1
    axis.set_ticks(range(0, len(labels), step), labels=labels[::step], rotation=rotation, fontsize=8)


def _outline(axes: Axes, row: int, column: int) -> None:
    """Black on white, so that it shows on every colour."""
    for ink, width in (("white", 3.0), ("black", 1.4)):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=ink, linewidth=width, zorder=3))
