"""Markup for inline SVG.

`element` is the only place where text becomes markup: it escapes every attribute and every child that is not markup
itself. Sizes are in CSS pixels and pictures are not scaled, so that text stays at 11 px or more and widths can be
reckoned with. What is not a cell takes its colour from the page (`page.css`), and so follows its light or dark theme.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from rcm.report.formatting import visible

Limits = tuple[float, float]
LETTER = 7.0  # px, more than the mean width of a letter at 11 px
LINE = 16.0  # px, from one line of text to the next


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """`<tag attribute="...">children</tag>`; `class_` is class, `stroke_width` is stroke-width."""
    given = (Markup(' {}="{}"').format(_name(name), _shown(value)) for name, value in attributes.items())
    inside = Markup("").join(child if isinstance(child, Markup) else escape(visible(child)) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), Markup("").join(given), inside)


def _name(name: str) -> Markup:
    return Markup(name.rstrip("_").replace("_", "-") if name != "viewBox" else name)


def _shown(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else visible(str(value))


def text(x: float, y: float, content: str, anchor: str = "start", **attributes: object) -> Markup:
    return element("text", content, x=x, y=y, text_anchor=anchor, **attributes)


def picture(label: str, width: float, height: float, *children: Markup, **attributes: object) -> Markup:
    """A whole drawing; `label` is what a screen reader says. With `tabindex=0` keys can walk through its parts."""
    size = {"width": math.ceil(width), "height": math.ceil(height)}
    box = f"0 0 {size['width']} {size['height']}"
    return element("svg", *children, role="img", aria_label=label, viewBox=box, **size, **attributes)


def path(points: Sequence[tuple[float, float]]) -> str:
    """The points as a path's `d`; with "Z" behind it, closed."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
