"""Points between two axes as SVG, coloured by a third figure; the pointer finds each point's name and figures."""

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from rcm.record.results import Scatter
from rcm.record.units import plain
from rcm.report.colours import colours
from rcm.report.curves import PLOT, WIDTH, Frame, axes, span, ticks
from rcm.report.heatmaps import colour
from rcm.report.svg import Limits, element, picture, text

SIZE, MARKED = 4.0, 7.0  # px, of a point's disc and of the ring about one to look at
DECADES = {3: (1,), 1: (1, 3), 0: (1, 2, 5)}  # more decades than these, and the ticks of each


def scatter(drawn: Scatter, horizontal: Limits, vertical: Limits, limits: Limits) -> Markup:
    """The points over named axes; `horizontal` in what is drawn, which may be the logarithm."""
    left, top, width, height = PLOT
    frame = Frame(horizontal, vertical)
    across = _decades(*horizontal) if drawn.log_x else {x: f"{x:g}" for x in ticks(*horizontal)}
    parts = [
        text(2.0, 13.0, drawn.y_label, class_="axis"),
        *axes(frame, across, ticks(*vertical)),
        text(left + width / 2, top + height + 32, drawn.x_label, "middle", class_="axis"),
        *_limits(drawn, frame, horizontal, vertical),
        *(_point(drawn, i, frame, limits) for i in sorted(drawn.drawable, key=lambda i: i in drawn.marked)),
    ]
    label = f"{drawn.label or drawn.name}: {drawn.y_label} against {drawn.x_label}, by {drawn.value_label}"
    return picture(label, WIDTH, top + height + 40, *parts, tabindex=0)


def across_all(scatters: Sequence[Scatter]) -> Limits:
    """A common horizontal scale, with some room at its ends; limits lie within it."""
    places = [x for one in scatters for x in (*(one.x[i] for i in one.drawable), one.x_limit) if x is not None]
    log = any(one.log_x for one in scatters)
    return _roomy(span([math.log10(x) if log else x for x in places if x > 0 or not log]))


def up_all(scatters: Sequence[Scatter]) -> Limits:
    """A common vertical scale."""
    return _roomy(
        span([y for one in scatters for y in (*(one.y[i] for i in one.drawable), one.y_limit) if y is not None])
    )


def _roomy(ends: Limits) -> Limits:
    room = 0.05 * (ends[1] - ends[0])
    return ends[0] - room, ends[1] + room


def _decades(low: float, high: float) -> dict[float, str]:
    """Round numbers by their logarithms."""
    steps = next(steps for more, steps in DECADES.items() if high - low > more)
    each = (step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps)
    return {math.log10(value): f"{value:g}" for value in each if low <= math.log10(value) <= high}


def _limits(drawn: Scatter, frame: Frame, horizontal: Limits, vertical: Limits) -> Iterator[Markup]:
    (left, right), (low, high) = map(frame.x, horizontal), map(frame.y, vertical)
    if drawn.x_limit is not None and (drawn.x_limit > 0 or not drawn.log_x):
        x = frame.x(_placed(drawn, drawn.x_limit))
        title = element("title", f"limit: {drawn.x_label} {plain(drawn.x_limit)}")
        yield element("line", title, x1=x, x2=x, y1=low, y2=high, class_="limit")
    if drawn.y_limit is not None:
        y = frame.y(drawn.y_limit)
        title = element("title", f"limit: {drawn.y_label} {plain(drawn.y_limit)}")
        yield element("line", title, x1=left, x2=right, y1=y, y2=y, class_="limit")


def _placed(drawn: Scatter, x: float) -> float:
    return math.log10(x) if drawn.log_x else x


def _point(drawn: Scatter, i: int, frame: Frame, limits: Limits) -> Markup:
    x, y, value = drawn.x[i], drawn.y[i], drawn.values[i]
    figures = f"{drawn.x_label} {plain(x)}, {drawn.y_label} {plain(y)}, {drawn.value_label} {plain(value)}"
    title = element("title", f"{drawn.points[i]}: {figures}")
    place = {"cx": frame.x(_placed(drawn, x)), "cy": frame.y(y)}
    fill = {"class_": "blank"} if math.isnan(value) else {"fill": colour(value, limits, colours(drawn.center))}
    point = element("circle", title, **place, r=SIZE, class_=f"point {fill.pop('class_', '')}".strip(), **fill)
    if i in drawn.marked:
        return element("circle", **place, r=MARKED, class_="ring") + point
    return point
