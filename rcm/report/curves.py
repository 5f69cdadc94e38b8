"""Curves and intervals as SVG. Lines differ in colour and in mark; the pointer finds the value of every point."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from markupsafe import Markup

from rcm.record.results import Curve, Line, Scalar
from rcm.record.units import in_unit, plain
from rcm.report.formatting import cut, visible
from rcm.report.svg import LINE, Limits, element, path, picture, text

SERIES = 6  # colours of lines, in page.css
WIDTH = 372.0  # px: what a phone shows without scrolling
PLOT = (42.0, 26.0, 318.0, 170.0)  # px: left, top, width and height inside the axes


def curve(drawn: Curve, vertical: Limits, series: Sequence[int] | None = None) -> Markup:
    """Lines with their bands over named axes, and what each line is beneath. `series`: the colour and mark of each, so
    that a model has the same in every frame; else one after the other."""
    looks = list(series if series is not None else range(len(drawn.lines)))
    left, top, width, height = PLOT
    horizontal = span(drawn.x)
    frame = Frame(horizontal, vertical)
    legend_top = top + height + 40
    legend = [
        part
        for place, (i, line) in enumerate(zip(looks, drawn.lines, strict=True))
        for part in _legend(i, line, legend_top + LINE * (place + 0.5))
    ]
    parts = [
        text(2.0, 13.0, drawn.y_label, class_="axis"),
        *axes(frame, {x: f"{x:g}" for x in _marked(drawn.x, frame)}, ticks(*vertical)),
        text(left + width / 2, top + height + 32, drawn.x_label, "middle", class_="axis"),
        *(_band(frame, drawn.x, line, i) for i, line in zip(looks, drawn.lines, strict=True)),
        *(part for i, line in zip(looks, drawn.lines, strict=True) for part in _stroke(frame, drawn, line, i)),
        *legend,
    ]
    bottom = legend_top + LINE * len(drawn.lines) + 6
    return picture(
        f"{drawn.label or drawn.name}: {drawn.y_label} over {drawn.x_label}", WIDTH, bottom, *parts, tabindex=0
    )


class Frame:
    """From figures to pixels."""

    def __init__(self, horizontal: Limits, vertical: Limits) -> None:
        self._horizontal, self._vertical = horizontal, vertical

    def x(self, value: float) -> float:
        low, high = self._horizontal
        return PLOT[0] + PLOT[2] * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self._vertical
        return PLOT[1] + PLOT[3] * (high - value) / (high - low)


def span(values: Sequence[float]) -> Limits:
    """From the least to the greatest finite value, and never empty."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def vertical_limits(curves: Sequence[Curve]) -> Limits:
    """A common scale: 0 to 1 for shares, else from zero, or below it where the figures go below."""
    lines = [line for one in curves for line in one.lines]
    low, high = span([value for line in lines for part in (line.y, line.low, line.high) if part for value in part])
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    ends = ticks(min(0.0, low), high)
    step = ends[1] - ends[0]
    return min(0.0, low), step * math.ceil(round(high / step, 6))


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the ends."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= rough * 0.999)
    first, last = math.ceil(round(low / step, 6)), math.floor(round(high / step, 6))
    return [round(i * step, 10) for i in range(first, last + 1)]


def _marked(x: Sequence[float], frame: Frame) -> list[float]:
    """The points themselves where they are few and apart, else round numbers."""
    apart = all(abs(frame.x(b) - frame.x(a)) >= 30 for a, b in pairwise(x))
    return list(x) if 0 < len(x) <= 8 and apart and all(map(math.isfinite, x)) else ticks(*span(x))


def axes(frame: Frame, across: Mapping[float, str], up: Sequence[float]) -> Iterator[Markup]:
    """Lines across, and ticks below; `across`: their places, and what stands there."""
    left, top, width, height = PLOT
    for value in up:
        y = frame.y(value)
        yield element("line", x1=left, x2=left + width, y1=y, y2=y, class_="grid")
        yield text(left - 6, y + 4, f"{value:g}", "end")
    for value, label in across.items():
        x = frame.x(value)
        yield element("line", x1=x, x2=x, y1=top + height, y2=top + height + 4, class_="rule")
        yield text(x, top + height + 16, label, "middle")
    yield element("line", x1=left, x2=left + width, y1=top + height, y2=top + height, class_="rule")


def _pieces(*columns: Sequence[float]) -> Iterator[list[tuple[float, ...]]]:
    """The runs of neighbouring points all of whose numbers are finite."""
    piece: list[tuple[float, ...]] = []
    for point in zip(*columns, strict=True):
        if all(map(math.isfinite, point)):
            piece.append(point)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _band(frame: Frame, x: Sequence[float], line: Line, index: int) -> Markup:
    """The 95 % band as one closed path for each piece; empty where the line has none."""
    if line.low is None or line.high is None:
        return Markup("")
    outline = ""
    for piece in _pieces(x, line.low, line.high):
        there = [(frame.x(x), frame.y(high)) for x, _, high in piece]
        back = [(frame.x(x), frame.y(low)) for x, low, _ in reversed(piece)]
        outline += path([*there, *back]) + "Z"
    return element("path", d=outline, class_=f"band series-{index % SERIES}")


def _stroke(frame: Frame, drawn: Curve, line: Line, index: int) -> Iterator[Markup]:
    """The line, and a mark on each point that tells its value; small marks where there are many."""
    pieces = [[(frame.x(x), frame.y(y)) for x, y in piece] for piece in _pieces(drawn.x, line.y)]
    yield element("path", d="".join(map(path, pieces)), class_=f"line series-{index % SERIES}")
    size = 3.5 if len(drawn.x) <= 12 else 2.5 if len(drawn.x) <= 60 else 1.2
    for place, (x, y) in enumerate(zip(drawn.x, line.y, strict=True)):
        if math.isfinite(x) and math.isfinite(y):
            title = element("title", f"{line.label}, {drawn.x_label} {x:g}: {plain(y)}{_range(line, place)}")
            yield mark(frame.x(x), frame.y(y), size, index, title)


def _range(line: Line, place: int) -> str:
    if line.low is None or line.high is None:
        return ""
    return f" [{plain(line.low[place])}, {plain(line.high[place])}]"


def mark(x: float, y: float, size: float, index: int, *title: Markup) -> Markup:
    """A disc, square, diamond or triangle: lines stay apart without colours."""
    outlines: tuple[list[tuple[float, float]], ...] = (
        [],
        [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)],
        [(0, -1.3), (1.2, 1), (-1.2, 1)],
    )
    outline, class_ = outlines[index % len(outlines)], f"mark series-{index % SERIES}"
    if not outline:
        return element("circle", *title, cx=x, cy=y, r=size, class_=class_)
    return element("path", *title, d=path([(x + size * dx, y + size * dy) for dx, dy in outline]) + "Z", class_=class_)


def _legend(index: int, line: Line, y: float) -> Iterator[Markup]:
    left = PLOT[0]
    yield element("path", d=path([(left, y), (left + 30, y)]), class_=f"line series-{index % SERIES}")
    yield mark(left + 15, y, 3.5, index)
    yield text(left + 38, y + 4, cut(visible(line.label), 42))


def strip(scalar: Scalar, scale: Limits) -> Markup:
    """One figure on the scale of its row: a bar for the interval, a disc for the value, a diamond for the null, a line
    for the target."""
    left, width, middle = 5.0, 122.0, 9.0

    def place(value: float) -> float:
        return left + width * min(max((value - scale[0]) / (scale[1] - scale[0]), 0.0), 1.0)

    parts = [element("line", x1=left, x2=left + width, y1=middle, y2=middle, class_="rail")]
    if scalar.interval is not None and all(map(math.isfinite, scalar.interval)):
        low, high = map(place, scalar.interval)
        parts.append(element("line", x1=low, x2=max(high, low + 1), y1=middle, y2=middle, class_="interval"))
    if scalar.target is not None:
        x = place(scalar.target)
        parts.append(element("line", x1=x, x2=x, y1=1, y2=17, class_="target"))
    if scalar.null is not None and math.isfinite(scalar.null.value):
        x = place(scalar.null.value)
        corners = [(x, middle - 5), (x + 5, middle), (x, middle + 5), (x - 5, middle)]
        parts.append(element("path", d=path(corners) + "Z", class_="null"))
    parts.append(element("circle", cx=place(scalar.value), cy=middle, r=4, class_="value"))
    return picture(f"{scalar.label or scalar.name}: {in_unit(scalar.unit)(scalar.value)}", 132.0, 18.0, *parts)
