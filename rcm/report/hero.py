"""The picture of a family: what each of its models refuses, where and how, side by side and layers upward.

One block for each model, as wide as a phone; all of them on the same scales and the same layers, so that the eye goes
across. A part that one model has and another has not says why not; a part that none has is left out. Every mark tells
its value to the pointer. As a file of its own (`standalone`) all blocks stand in one picture, which follows a light or
a dark theme by itself.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from rcm.comparison import Comparison
from rcm.comparison.names import (
    CIRCUIT_DIAGRAM,
    DECIDED_BY_LAYER,
    FORCED_BY_STRENGTH,
    SEPARABILITY,
    STEERING_RATES,
    SUPPRESSED_BY_STRENGTH,
)
from rcm.comparison.overview import Model, Overview
from rcm.comparison.reading import method_of
from rcm.record.results import Curve, Diagram, Line, Node, Scalar, colour_limits
from rcm.record.units import TIED, in_unit, known, plain
from rcm.report.colours import colours
from rcm.report.curves import mark, span, ticks, vertical_limits
from rcm.report.formatting import cut, stem
from rcm.report.heatmaps import colour
from rcm.report.svg import LINE, Limits, element, path, picture, text

# px
WIDTH = 372.0  # of a block: what a phone shows without scrolling
LEFT, RIGHT = 32.0, 360.0  # of a block: where parts begin, at the right of their scale, and where they end
HEAD = 42.0  # name and stage
BAR, RAIL = 18.0, (158.0, 252.0)  # height of a bar, and where its scale begins and ends
LAYERS, DOSES = 300.0, 92.0  # height of what is by layer, and of what is by strength
BETWEEN = 16.0  # two parts side by side
TITLE, BELOW = 36.0, 76.0  # over a part, and for its scale and what it says below
APART = 26.0  # between blocks in a file of its own
LETTER = 6.2  # of a letter at 11 px, as a mean
SAID = 19.0  # a line of what is said below all

TITLES = {
    SEPARABILITY: ("Where harmful and", "harmless part"),
    DECIDED_BY_LAYER: ("Where the last", "token decides"),
    CIRCUIT_DIAGRAM: ("Which heads and", "MLPs carry it"),
    FORCED_BY_STRENGTH: ("Adding the direction:", "harmless refused, %"),
    SUPPRESSED_BY_STRENGTH: ("Subtracting it:", "harmful answered, %"),
}
BY_LAYER = (SEPARABILITY, DECIDED_BY_LAYER, CIRCUIT_DIAGRAM)
BY_STRENGTH = (FORCED_BY_STRENGTH, SUPPRESSED_BY_STRENGTH)
STEERED_BY = dict(zip(BY_STRENGTH, STEERING_RATES, strict=True))  # the headline beside each


FOLDER, FORMATS = "slides", ("svg", "pdf", "png")  # where the page's links find the files


def file_names(comparison: Comparison) -> list[str]:
    """Of each family, without their ending."""
    stems = [stem(family.name) for family in comparison.families]
    return [name if name not in stems[:i] else f"{name}-{stems[:i].count(name) + 1}" for i, name in enumerate(stems)]


class Scales(NamedTuple):
    """What all blocks share: how many layers and heads, and the ends of every scale."""

    layers: int
    heads: int
    separation: Limits
    decision: Limits
    nodes: Limits
    strength: Limits

    @classmethod
    def of(cls, drawn: Overview) -> "Scales":
        circuits = [one.circuit for one in drawn.models if one.circuit]
        nodes = [node for one in circuits for node in one.nodes]
        doses = [curve for one in drawn.models for curve in (one.forced, one.suppressed) if curve]
        return cls(
            layers=drawn.layers,
            heads=1 + max((head for node in nodes if (head := head_of(node)) is not None), default=0),
            separation=vertical_limits([one.separated for one in drawn.models if one.separated]),
            decision=vertical_limits([one.decided for one in drawn.models if one.decided]),
            nodes=colour_limits(np.array([[node.value for node in nodes if node.kind in ("head", "mlp")]]), 0.0),
            strength=span([0.0, *(x for curve in doses for x in curve.x)]),
        )


def head_of(node: Node) -> int | None:
    """Its number among the heads of its layer, out of a name such as 15.5; None of what is no head."""
    found = re.fullmatch(r"\d+\.(\d+)", node.name)
    return int(found[1]) if node.kind == "head" and found else None


class Frame(NamedTuple):
    """The place of one part in a block, and its two scales; what is higher has the greater value."""

    left: float
    top: float
    width: float
    height: float
    across: Limits
    up: Limits

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + self.width * (min(max(value, low), high) - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return self.top + self.height * (high - value) / (high - low)

    @property
    def bottom(self) -> float:
        return self.top + self.height


def blocks(drawn: Overview) -> list[Markup]:
    """A picture for each model."""
    scales, high = Scales.of(drawn), height(drawn)
    return [
        picture(f"Refusal in {model.reading.name}", WIDTH, high, *_block(model, drawn, scales), tabindex=0)
        for model in drawn.models
    ]


def standalone(drawn: Overview) -> str:
    """The whole as a file: its blocks side by side, the family above them, and below what is said of it."""
    scales, top, columns = Scales.of(drawn), 54.0, len(drawn.models)
    width = columns * (WIDTH + APART) + APART
    lines = [line for sentence in sentences(drawn) for line in wrap(sentence, int(width / 7.4))]
    bottom = top + height(drawn) + SAID
    parts = [
        element("style", Markup(style())),
        element("rect", x=0, y=0, width="100%", height="100%", class_="ground"),
        text(APART, 34.0, f"Refusal in {drawn.name}", class_="family"),
        *(
            element("g", *_block(model, drawn, scales), transform=f"translate({APART + i * (WIDTH + APART):g} {top:g})")
            for i, model in enumerate(drawn.models)
        ),
        *(text(APART, bottom + SAID * (i + 0.5), line, class_="said") for i, line in enumerate(lines)),
    ]
    whole = bottom + SAID * len(lines) + 12
    return f"{picture(f'Refusal in {drawn.name}', width, whole, *parts, xmlns='http://www.w3.org/2000/svg')}\n"


def sentences(drawn: Overview) -> list[str]:
    """What stands under the picture."""
    found = [f"{one.name}: {one.verdict.value}. {one.verdict.said}" for one in drawn.tunings]
    more = f"{drawn.left_out} more run{'s' if drawn.left_out > 1 else ''} of the family: see below."
    return [*found, more] if drawn.left_out else found


@cache
def style() -> str:
    """The colours and strokes of all pictures."""
    return (Path(__file__).parent / "pictures.css").read_text(encoding="utf-8")


def height(drawn: Overview) -> float:
    """Of every block: what one model has takes its room in each."""
    bars = max((len(model.rates) for model in drawn.models), default=0)
    found = HEAD + BAR * bars + (14 if bars else 0)
    found += TITLE + LAYERS + BELOW if drawn.shown & {*BY_LAYER} else 0.0
    found += TITLE + DOSES + BELOW + LINE if drawn.shown & {*BY_STRENGTH} else 0.0
    return found + LINE * max((len(concluded(model)) for model in drawn.models), default=0) + 4


def concluded(model: Model) -> list[str]:
    """The outcomes of all methods, in lines; those that say the same once."""
    methods: dict[str, list[str]] = {}
    for outcome in model.outcomes:
        methods.setdefault(outcome.value, []).append(method_of(outcome.name))
    said = [f"{', '.join(of)}: {value}".replace("_", TIED) for value, of in methods.items()]
    return wrap(" · ".join(said), int((RIGHT - 2) / LETTER), break_on_hyphens=False)


def _block(model: Model, drawn: Overview, scales: Scales) -> list[Markup]:
    run = model.reading.run
    stage = f"{model.reading.stage} · {run.choices.get('dataset', '')} · run {run.id}"
    parts = [text(2.0, 16.0, cut(model.reading.name, 42), class_="model"), text(2.0, 32.0, stage)]
    for i, scalar in enumerate(model.rates):
        parts += _bar(scalar, HEAD + BAR * i)
    top = HEAD + BAR * max(len(one.rates) for one in drawn.models)
    top += 14 if top > HEAD else 0
    if by_layer := [name for name in BY_LAYER if name in drawn.shown]:
        parts += _all_by_layer(model, by_layer, top, scales)
        top += TITLE + LAYERS + BELOW
    if by_strength := [name for name in BY_STRENGTH if name in drawn.shown]:
        parts += _all_by_strength(model, by_strength, top, scales)
        top += TITLE + DOSES + BELOW + LINE
    parts += [text(2.0, top + LINE * (i + 0.7), line, class_="said-of") for i, line in enumerate(concluded(model))]
    return parts


def _bar(scalar: Scalar, top: float) -> Iterator[Markup]:
    """A share, its interval and its null, and beside them in figures."""
    middle, (left, right) = top + BAR / 2, RAIL

    def place(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 1.0)

    yield text(2.0, middle + 4, cut(scalar.label or scalar.name, 24))
    yield element("line", x1=left, x2=right, y1=middle, y2=middle, class_="rail")
    if not known(scalar.value):
        yield text(right + 8, middle + 4, share_said(scalar))
        return
    if scalar.interval is not None and all(map(math.isfinite, scalar.interval)):
        low, high = scalar.interval
        yield element(
            "line", x1=place(low), x2=max(place(high), place(low) + 1), y1=middle, y2=middle, class_="interval"
        )
    if scalar.null is not None and math.isfinite(scalar.null.value):
        null = f"{scalar.label}, null of {scalar.null.of}: {100 * scalar.null.value:.0f} %"
        yield _diamond(place(scalar.null.value), middle, null)
    title = element("title", f"{scalar.label}: {in_unit(scalar.unit)(scalar.value)}")
    yield element("circle", title, cx=place(scalar.value), cy=middle, r=4, class_="value")
    yield text(right + 8, middle + 4, share_said(scalar), class_="axis-small")


def share_said(scalar: Scalar, *, of: bool = True) -> str:
    """A share in percent, its interval, and of how many."""
    if not known(scalar.value):
        return "not measured"
    said = f"{100 * scalar.value:.0f}{TIED}%"
    if scalar.interval is not None and all(map(math.isfinite, scalar.interval)):
        said += f" [{100 * scalar.interval[0]:.0f}, {100 * scalar.interval[1]:.0f}]"
    return f"{said} of {scalar.n}" if of and scalar.n is not None else said


def _diamond(x: float, y: float, said: str) -> Markup:
    corners = [(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y)]
    return element("path", element("title", said), d=path(corners) + "Z", class_="null")


def _all_by_layer(model: Model, names: Sequence[str], top: float, scales: Scales) -> Iterator[Markup]:
    """Side by side over one axis of layers, which go upward."""
    width = (RIGHT - LEFT - BETWEEN * (len(names) - 1)) / len(names)
    up = (-0.5, scales.layers - 0.5)
    across = {SEPARABILITY: scales.separation, DECIDED_BY_LAYER: scales.decision, CIRCUIT_DIAGRAM: (0.0, 1.0)}
    frames = {
        name: Frame(LEFT + i * (width + BETWEEN), top + TITLE, width, LAYERS, across[name], up)
        for i, name in enumerate(names)
    }
    first = frames[names[0]]
    yield text(0.0, first.top - 6, "layer", class_="axis-small")
    for layer in ticks(0.0, max(1.0, scales.layers - 1.0)):
        if layer == int(layer):
            yield text(LEFT - 6, first.y(layer) + 4, f"{layer:g}", "end")
            for name, frame in frames.items():
                if model.parts[name] is None:
                    continue
                y = frame.y(layer)
                yield element("line", x1=frame.left, x2=frame.left + frame.width, y1=y, y2=y, class_="grid")
    for name, frame in frames.items():
        yield from _title(name, frame)
        part = model.parts[name]
        if part is None:
            yield from _missing(model.why_without(name), frame)
        elif isinstance(part, Diagram):
            yield from _nodes(part, model.carried, frame, scales)
        else:
            yield from _curve_by_layer(part, frame)
            if name == SEPARABILITY:
                yield from _place(model, part, frame)


def _title(name: str, frame: Frame) -> Iterator[Markup]:
    for i, line in enumerate(TITLES[name]):
        yield text(frame.left, frame.top - TITLE + 12 + 14 * i, line, class_="axis-small")


def _missing(why: str, frame: Frame) -> Iterator[Markup]:
    lines = wrap(f"Not measured: {why}", int(frame.width / LETTER))
    most = int((frame.height - 20) / LINE)
    lines = lines if len(lines) <= most else [*lines[: most - 1], "…"]
    top = frame.top + (frame.height - LINE * len(lines)) / 2
    yield element("rect", x=frame.left, y=frame.top, width=frame.width, height=frame.height, class_="unmeasured")
    for i, line in enumerate(lines):
        yield text(frame.left + frame.width / 2, top + LINE * (i + 0.75), line, "middle")


def _curve_by_layer(drawn: Curve, frame: Frame) -> Iterator[Markup]:
    """Lines that go upward with the layers."""
    yield from _scale(frame, axis_label(drawn))
    for i, line in enumerate(drawn.lines):
        yield _band(line, [frame.y(layer) for layer in drawn.x], frame.x, i, upright=True)
        yield from _line(drawn, line, i, frame, upright=True)
        if len(drawn.lines) > 1:
            yield from _key(frame.left, frame.bottom + 46 + 14 * i, i, line.label)


def axis_label(drawn: Curve) -> str:
    """As much of what a curve measures as stands below it."""
    return drawn.y_label if len(drawn.y_label) < 18 else drawn.y_label.partition(",")[0]


def _line(drawn: Curve, line: Line, index: int, frame: Frame, *, upright: bool) -> Iterator[Markup]:
    """A stroke, and a mark on each point. `upright`: its points are layers, which go upward; else strengths, at each of
    which it is a share."""
    known_points = [(x, y) for x, y in zip(drawn.x, line.y, strict=True) if math.isfinite(y)]
    places = [(frame.x(y), frame.y(x)) if upright else (frame.x(x), frame.y(y)) for x, y in known_points]
    yield element("path", d=path(places) if places else "", class_=f"line series-{index}")
    for (x, y), place in zip(known_points, places, strict=True):
        what = f"layer {x:g}: {plain(y)}" if upright else f"strength {x:g}: {100 * y:.0f} %"
        yield mark(*place, 1.8 if upright else 3.0, index, element("title", f"{line.label}, {what}"))


def _place(model: Model, drawn: Curve, frame: Frame) -> Iterator[Markup]:
    """Where the direction is read, with what chance separates there; and what a good analysis shows."""
    scalar, line = model.separation, 46.0
    if scalar is not None and scalar.target is not None and frame.across[0] < scalar.target < frame.across[1]:
        x = frame.x(scalar.target)
        yield element("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="limit")
        yield text(x + 4, frame.bottom - 6, f"target {scalar.target:g}")
    if model.layer is None or float(model.layer) not in drawn.x:
        return
    y, value = frame.y(float(model.layer)), drawn.lines[0].y[list(drawn.x).index(float(model.layer))]
    title = element("title", f"The direction is read at layer {model.layer}; separation there: {plain(value)}")
    yield element("circle", title, cx=frame.x(value), cy=y, r=6, class_="ring")
    yield element("circle", cx=frame.left + 6, cy=frame.bottom + line - 4, r=5, class_="ring")
    yield text(frame.left + 16, frame.bottom + line, f"read at layer {model.layer}")
    if scalar is not None and scalar.null is not None and math.isfinite(scalar.null.value):
        yield _diamond(frame.x(scalar.null.value), y, f"null, {scalar.null.of}: {plain(scalar.null.value)}")
        yield _diamond(frame.left + 6, frame.bottom + line + 10, "null")
        yield text(frame.left + 16, frame.bottom + line + 14, "its null there")


def _nodes(drawn: Diagram, carried: Scalar | None, frame: Frame, scales: Scales) -> Iterator[Markup]:
    """A cell for each node of the circuit: heads by their number, MLPs at the right."""
    gap = 5.0
    each = (frame.width - gap) / (scales.heads + 1)
    high = frame.height / scales.layers
    for left, count in ((frame.left, scales.heads), (frame.left + frame.width - each, 1)):
        yield element("rect", x=left, y=frame.top, width=each * count, height=frame.height, class_="room")
    ramp = colours(0.0)
    for node in drawn.nodes:
        head = head_of(node)
        if head is None and node.kind != "mlp":
            continue
        left = frame.left + frame.width - each if head is None else frame.left + each * head
        title = element("title", f"{node.name}: {drawn.value_label} {plain(node.value)}")
        fill = colour(node.value, scales.nodes, ramp)
        y = frame.y(float(node.layer)) - high / 2
        yield element("rect", title, x=left, y=y, width=each, height=high, fill=fill, class_="cell")
    yield element("line", x1=frame.left, x2=frame.left + frame.width, y1=frame.bottom, y2=frame.bottom, class_="rule")
    yield text(frame.left, frame.bottom + 16, f"head 0 to {scales.heads - 1}")
    yield text(frame.left + frame.width, frame.bottom + 16, "MLP", "end")
    shown = sum(node.kind in ("head", "mlp") for node in drawn.nodes)
    said = [f"{shown} nodes"]
    if carried is not None and known(carried.value):
        said = [f"{shown} nodes carry", share_said(carried, of=False)]
        said += [f"null: {100 * carried.null.value:.0f}{TIED}%"] if carried.null else []
    for i, line in enumerate(said):
        yield text(frame.left, frame.bottom + 32 + 14 * i, line)


def _all_by_strength(model: Model, names: Sequence[str], top: float, scales: Scales) -> Iterator[Markup]:
    """Side by side: how many replies turn over the strength, and how many where controls are added."""
    width = (RIGHT - LEFT - BETWEEN * (len(names) - 1)) / len(names)
    labels: list[str] = []
    for i, name in enumerate(names):
        frame = Frame(LEFT + i * (width + BETWEEN), top + TITLE, width, DOSES, scales.strength, (0.0, 1.0))
        yield from _title(name, frame)
        part = model.parts[name]
        if not isinstance(part, Curve):
            yield from _missing(model.why_without(name), frame)
            continue
        for value in (0.0, 0.5, 1.0):
            y = frame.y(value)
            yield element("line", x1=frame.left, x2=frame.left + width, y1=y, y2=y, class_="grid")
            if i == 0:
                yield text(LEFT - 5, y + 4, f"{100 * value:g}", "end")
        yield from _scale(frame, "strength, natural norms")
        for j, line in reversed(list(enumerate(part.lines))):  # the direction's own on top
            labels = labels if line.label in labels else [line.label, *labels]
            if j == 0:
                yield _band(line, [frame.x(x) for x in part.x], frame.y, j, upright=False)
            yield from _line(part, line, j, frame, upright=False)
        rate = next((one for one in model.steered if one.name == STEERED_BY[name]), None)
        for j, said in enumerate(rate_said(rate)):
            yield text(frame.left, frame.bottom + 48 + 14 * j, said)
    left, below = LEFT, top + TITLE + DOSES + BELOW + LINE - 8
    for j, label in enumerate(labels):
        short = label.replace("directions of ", "").removesuffix(" directions")
        yield from _key(left, below, j, short)
        left += 28 + 5.8 * len(short)


def rate_said(rate: Scalar | None) -> list[str]:
    """The headline, at the strength that was chosen, beside its null."""
    if rate is None or not known(rate.value):
        return []
    null = f"null {100 * rate.null.value:.0f}{TIED}%" if rate.null and math.isfinite(rate.null.value) else "no null"
    aim = "" if rate.target is None else f", target {100 * rate.target:.0f}{TIED}%"
    return [f"{rate.label} {100 * rate.value:.0f}{TIED}% of {rate.n}", f"{null}{aim}"]


def _scale(frame: Frame, label: str) -> Iterator[Markup]:
    """Ticks below, and what they measure."""
    for value in ticks(*frame.across):
        x = frame.x(value)
        yield element("line", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 4, class_="rule")
        yield text(x, frame.bottom + 16, f"{value:g}", "middle")
    yield element("line", x1=frame.left, x2=frame.left + frame.width, y1=frame.bottom, y2=frame.bottom, class_="rule")
    yield text(frame.left + frame.width / 2, frame.bottom + 30, label, "middle", class_="axis-small")


def _band(line: Line, along: Sequence[float], across: Callable[[float], float], index: int, *, upright: bool) -> Markup:
    """Between the ends of the intervals; `along`: the pixels of the points on the axis that they share."""
    if line.low is None or line.high is None:
        return Markup("")
    ends = [
        (place, across(low), across(high))
        for place, low, high in zip(along, line.low, line.high, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if not ends:
        return Markup("")
    outline = [(place, high) for place, _, high in ends] + [(place, low) for place, low, _ in reversed(ends)]
    outline = [(b, a) for a, b in outline] if upright else outline
    return element("path", d=path(outline) + "Z", class_=f"band series-{index}")


def _key(left: float, y: float, index: int, label: str) -> Iterator[Markup]:
    yield element("path", d=path([(left, y - 4), (left + 18, y - 4)]), class_=f"line series-{index}")
    yield mark(left + 9, y - 4, 3.0, index)
    yield text(left + 23, y, label)
