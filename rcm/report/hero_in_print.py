"""The picture of a family (`rcm.report.hero`) for slides: SVG, PDF and PNG, the latter two by matplotlib."""

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import cycle
from pathlib import PurePosixPath
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rcm.comparison import Comparison
from rcm.comparison.names import SEPARABILITY
from rcm.comparison.overview import Model, Overview, overview
from rcm.record.results import Curve, Diagram, Scalar
from rcm.record.units import known
from rcm.report.colours import colours
from rcm.report.heatmaps import colour
from rcm.report.hero import (
    BY_LAYER,
    BY_STRENGTH,
    FOLDER,
    STEERED_BY,
    TITLES,
    Scales,
    axis_label,
    concluded,
    file_names,
    head_of,
    rate_said,
    sentences,
    share_said,
    standalone,
)

DPI = 200
LINES = ("#0072b2", "#d55e00", "#6b7280")  # as on the page in the light
COLUMN, INK, SOFT = 4.3, "#1d2329", "#56606b"  # inches


def slides(comparison: Comparison) -> Iterator[tuple[PurePosixPath, bytes]]:
    """For each family the three files, by their place in the page's folder."""
    for family, name in zip(comparison.families, file_names(comparison), strict=True):
        for format, content in files(overview(family, comparison.tunings)).items():
            yield PurePosixPath(FOLDER, f"{name}.{format}"), content


def files(drawn: Overview) -> dict[str, bytes]:
    """The picture by format."""
    return {"svg": standalone(drawn).encode(), **_printed(drawn, "pdf", "png")}


def png(drawn: Overview) -> bytes:
    """The picture as one of dots."""
    return _printed(drawn, "png")["png"]


def _printed(drawn: Overview, *formats: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with rc_context({"text.parse_math": False, "font.size": 8}):  # a name may hold dollars
        made = figure(drawn)
        for format in formats:
            stream = BytesIO()
            made.savefig(stream, format=format, dpi=DPI)
            found[format] = stream.getvalue()
    return found


def figure(drawn: Overview) -> Figure:
    """The same parts on the same scales, a column for each model."""
    scales, columns = Scales.of(drawn), len(drawn.models)
    rows = {"bars": 0.85, "layers": 3.3 if drawn.shown & {*BY_LAYER} else 0.0}
    rows["doses"] = 1.75 if drawn.shown & {*BY_STRENGTH} else 0.0
    said = [fill(one, int(columns * COLUMN * 15)) for one in sentences(drawn)]
    ends = {"head": 0.75, "said": 0.55 + 0.17 * sum(one.count("\n") + 1 for one in said)}
    high = sum(rows.values()) + sum(ends.values())
    made = Figure(figsize=(columns * COLUMN, high))
    made.text(0.03 / columns, 1 - 0.3 / high, f"Refusal in {drawn.name}", fontsize=13, weight="bold", color=INK)
    made.text(0.03 / columns, 0.08 / high, "\n".join(said), fontsize=9, va="bottom", color=INK)
    for i, model in enumerate(drawn.models):
        left, width = (i + 0.13) / columns, 0.82 / columns
        top = 1 - ends["head"] / high
        made.text((i + 0.03) / columns, top + 0.08 / high, model.reading.name, fontsize=10, weight="bold", color=INK)
        _bars(made.add_axes((left + 0.3 * width, top - 0.6 / high, 0.34 * width, 0.5 / high)), model)
        top -= rows["bars"] / high
        if rows["layers"]:
            _side_by_side(
                made, model, [one for one in BY_LAYER if one in drawn.shown], (left, top, width), high, scales
            )
            top -= rows["layers"] / high
        if rows["doses"]:
            _side_by_side(
                made, model, [one for one in BY_STRENGTH if one in drawn.shown], (left, top, width), high, scales
            )
        lines = "\n".join(concluded(model))
        bottom = (ends["said"] - 0.05) / high
        made.text((i + 0.03) / columns, bottom, lines, fontsize=7, va="top", color=SOFT)
    return made


def _side_by_side(
    made: Figure,
    model: Model,
    names: Sequence[str],
    corner: tuple[float, float, float],
    high: float,
    scales: Scales,
) -> None:
    """Parts over one axis; `corner`: their left and upper end and their width, `high` that of the figure in inches."""
    (left, top, width), gap = corner, 0.045
    each = (width - width * gap * 2 * (len(names) - 1)) / len(names)
    layered = names[0] in BY_LAYER
    height = (2.35 if layered else 0.85) / high
    for i, name in enumerate(names):
        axes = made.add_axes((left + i * (each + 2 * gap * width), top - 0.38 / high - height, each, height))
        axes.set_title("\n".join(TITLES[name]), fontsize=7, loc="left", color=INK)
        axes.tick_params(labelsize=6, length=2, labelleft=i == 0)
        axes.spines[["top", "right"]].set_visible(False)
        part = model.parts[name]
        if layered:
            axes.set_ylim(-0.5, scales.layers - 0.5)
            axes.set_ylabel("layer" if i == 0 else "", fontsize=7, labelpad=1)
        else:
            axes.set_ylim(0, 100)
        if part is None:
            why = fill(f"Not measured: {model.why_without(name)}", int(each * made.get_figwidth() * 14))
            axes.text(0.5, 0.5, why, ha="center", va="center", fontsize=6, color=SOFT, transform=axes.transAxes)
            axes.set_xticks([])
        elif isinstance(part, Diagram):
            _nodes(axes, part, model.carried, scales)
        elif layered:
            axes.set_xlim(*(scales.separation if name == SEPARABILITY else scales.decision))
            _curve(axes, part, upright=True)
            axes.set_xlabel(axis_label(part), fontsize=7)
            if name == SEPARABILITY:
                _place(axes, model, part)
        else:
            axes.set_xlim(*scales.strength)
            _curve(axes, part, upright=False, legend=i == 0)
            rate = next((one for one in model.steered if one.name == STEERED_BY[name]), None)
            axes.set_xlabel("\n".join(["strength, natural norms", *rate_said(rate)]), fontsize=6)


def _bars(axes: Axes, model: Model) -> None:
    """Shares with their intervals and nulls."""
    axes.set_xlim(0, 1)
    axes.set_ylim(len(model.rates) - 0.5 if model.rates else 0.5, -0.5)
    axes.axis("off")
    for row, scalar in enumerate(model.rates):
        axes.plot([0, 1], [row, row], color="#d9d6d0", linewidth=1.2, zorder=0)
        if scalar.interval is not None and all(map(math.isfinite, scalar.interval)):
            axes.plot(scalar.interval, [row, row], color=LINES[0], alpha=0.5, linewidth=3.5, solid_capstyle="butt")
        if scalar.null is not None and math.isfinite(scalar.null.value):
            axes.plot(scalar.null.value, row, "D", color="white", markeredgecolor=LINES[1], markersize=5, clip_on=False)
        if known(scalar.value):
            axes.plot(scalar.value, row, "o", color=LINES[0], markersize=5, clip_on=False)
        axes.text(-0.06, row, scalar.label or scalar.name, ha="right", va="center", fontsize=7, color=SOFT)
        axes.text(1.06, row, share_said(scalar), ha="left", va="center", fontsize=7, color=INK)


def _curve(axes: Axes, drawn: Curve, *, upright: bool, legend: bool = True) -> None:
    """`upright`: x is the layer, and goes upward; else y is a share, in percent."""
    times = 1.0 if upright else 100.0
    for i, (line, dash, shape) in enumerate(zip(drawn.lines, cycle(("-", "--", ":")), cycle("osD"), strict=False)):
        values = times * np.array(line.y, dtype=float)
        points = (values, drawn.x) if upright else (drawn.x, values)
        label = line.label
        axes.plot(*points, dash, color=LINES[i % len(LINES)], linewidth=1.2, marker=shape, markersize=2, label=label)
        if line.low is not None and line.high is not None and (upright or i == 0):
            ends = times * np.array([line.low, line.high], dtype=float)
            between = axes.fill_betweenx if upright else axes.fill_between
            between(drawn.x, *ends, color=LINES[i % len(LINES)], alpha=0.15, linewidth=0)
    if legend and len(drawn.lines) > 1:
        axes.legend(fontsize=5, frameon=False, loc="upper left", handlelength=1.6)


def _place(axes: Axes, model: Model, drawn: Curve) -> None:
    """Where the direction is read, its null there, and the target."""
    scalar = model.separation
    if scalar is not None and scalar.target is not None:
        axes.axvline(scalar.target, color=SOFT, linestyle="--", linewidth=0.8)
    if model.layer is None or float(model.layer) not in drawn.x:
        return
    value = drawn.lines[0].y[list(drawn.x).index(float(model.layer))]
    axes.plot(value, model.layer, "o", markersize=7, markerfacecolor="none", markeredgecolor=INK)
    if scalar is not None and scalar.null is not None and math.isfinite(scalar.null.value):
        axes.plot(scalar.null.value, model.layer, "D", markersize=5, color="white", markeredgecolor=LINES[1])


def _nodes(axes: Axes, drawn: Diagram, carried: Scalar | None, scales: Scales) -> None:
    """A cell for each node of the circuit: heads by their number, MLPs at the right."""
    mlp = scales.heads + 0.5
    axes.set_xlim(0, mlp + 1)
    axes.set_xticks([0.5, scales.heads - 0.5, mlp + 0.5] if scales.heads > 1 else [0.5, mlp + 0.5])
    axes.set_xticklabels(["0", f"{scales.heads - 1}", "MLP"] if scales.heads > 1 else ["0", "MLP"])
    axes.set_facecolor("#f3f1ee")
    ramp = colours(0.0)
    for node in drawn.nodes:
        head = head_of(node)
        if head is not None or node.kind == "mlp":
            fill_colour = colour(node.value, scales.nodes, ramp)
            corner = (mlp if head is None else head, node.layer - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=fill_colour, edgecolor=SOFT, lw=0.3))
    shown = sum(node.kind in ("head", "mlp") for node in drawn.nodes)
    said = f"head · {shown} nodes"
    if carried is not None and known(carried.value):
        said += f" carry\n{share_said(carried, of=False)}"
        said += f", null {100 * carried.null.value:.0f} %" if carried.null else ""
    axes.set_xlabel(said, fontsize=6)
