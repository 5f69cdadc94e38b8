"""Pictures of results, for the tracker and for papers; their colours serve the page too.

The only importer of matplotlib.
"""

from collections.abc import Sequence
from functools import singledispatch
from io import BytesIO
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rcm.results import Curve, Heatmap

GREY = "0.8"  # cells that were not computed
LABELS = 32  # more tick labels than this on one axis cannot be read


def png(result: Heatmap | Curve, dpi: int = 120) -> bytes:
    """The picture as the bytes of a PNG file."""
    return picture(result, "png", dpi)


def picture(result: Heatmap | Curve, format: str, dpi: int = 300) -> bytes:
    """The picture as the bytes of a file of this format; `dpi` is for those made of dots."""
    stream = BytesIO()
    figure(result).savefig(stream, format=format, dpi=dpi)
    return stream.getvalue()


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
    low, high = limits(result.values, result.center)
    image = axes.imshow(result.values, cmap=colours(result.center), vmin=low, vmax=high, aspect="auto")
    axes.set(title=result.name, xlabel=result.column_label, ylabel=result.row_label)
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
    axes.set(title=result.name, xlabel=result.x_label, ylabel=result.y_label)
    axes.grid(alpha=0.3)
    if result.lines:
        axes.legend()
    return drawn


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


def _label(axis: Axis, labels: Sequence[str], rotation: int) -> None:
    """Every label, or as many as can be read."""
    step = -(-len(labels) // LABELS) or 1
    axis.set_ticks(range(0, len(labels), step), labels=labels[::step], rotation=rotation, fontsize=8, parse_math=False)


def _outline(axes: Axes, row: int, column: int) -> None:
    """Black on white, so that it shows on every colour."""
    for colour, width in (("white", 3.0), ("black", 1.4)):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3))
