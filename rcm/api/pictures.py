"""A picture of the report as one SVG that needs no page around it: with its title, its scale and the page's colours.

In a notebook and in a file there is no style sheet, and no theme to follow: the rules of `pictures.css` go
into the SVG, on a light ground, and hold for nothing else in the notebook.
"""

import re
from functools import cache, singledispatch
from textwrap import wrap

import numpy as np
from markupsafe import Markup

from rcm.record.results import Curve, Diagram, Heatmap, Scatter, colour_limits
from rcm.report.cells import titled
from rcm.report.curves import curve, vertical_limits
from rcm.report.diagrams import diagram, layout, legend, not_drawn, strongest_of, values_of
from rcm.report.heatmaps import colour_bar, heatmap
from rcm.report.hero import style as page_style
from rcm.report.scatters import across_all, scatter, up_all
from rcm.report.svg import LETTER, LINE, element, text

Drawn = Heatmap | Curve | Scatter | Diagram
NAMESPACE = "http://www.w3.org/2000/svg"
EDGE, NARROWEST = 10.0, 380.0  # px
SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)


def standalone(result: Drawn) -> str:
    """The picture with its title, hint and scale, one below the other."""
    parts = [(Markup(one), *_size(one)) for one in SVG.findall("".join(drawn(result)))]
    width = max(NARROWEST, *(across for _, across, _ in parts)) + 2 * EDGE
    title = wrap(titled(result.label or result.name, result.caveat), int((width - 2 * EDGE) / LETTER))
    hint = wrap(result.hint, int((width - 2 * EDGE) / 5.6))
    y, inside = EDGE, list[Markup]()
    for lines, look in ((title, {"class_": "axis", "font_weight": "bold"}), (hint, {})):
        for line in lines:
            inside.append(text(EDGE, y + 11, line, **look))
            y += LINE
    y += 6
    for one, _, height in parts:
        inside.append(Markup(str(one).replace("<svg ", f'<svg x="{EDGE:g}" y="{y:g}" ', 1)))
        y += height + 6
    size = {"width": round(width), "height": round(y + EDGE)}
    ground = element("rect", width="100%", height="100%", class_="ground")
    box = f"0 0 {size['width']} {size['height']}"
    attributes = {"xmlns": NAMESPACE, "viewBox": box, "role": "img", "class_": "rcm", **size}
    return str(element("svg", element("style", _style()), ground, *inside, **attributes))


def _size(svg: str) -> tuple[float, float]:
    opening = svg.partition(">")[0]
    across, high = (re.search(rf' {name}="([\d.]+)"', opening) for name in ("width", "height"))
    assert across is not None, opening  # every picture says how large it is (rcm.report.svg.picture)
    assert high is not None, opening
    return float(across[1]), float(high[1])


@singledispatch
def drawn(result: object) -> list[Markup]:
    """The parts of the picture, as the page draws them."""
    raise TypeError(f"There is no picture of a {type(result).__name__}; register one with @drawn.register.")


@drawn.register
def _(result: Heatmap) -> list[Markup]:
    ends = colour_limits(result.values, result.center)
    bar = colour_bar(ends, result.center, bool(np.isnan(result.values).any()), result.value_label)
    return [heatmap(result, ends), bar]


@drawn.register
def _(result: Curve) -> list[Markup]:
    return [curve(result, vertical_limits([result]))]


@drawn.register
def _(result: Scatter) -> list[Markup]:
    values = np.array([result.values])
    ends = colour_limits(values, result.center)
    bar = colour_bar(ends, result.center, bool(np.isnan(values).any()), result.value_label)
    return [scatter(result, across_all([result]), up_all([result]), ends), bar]


@drawn.register
def _(result: Diagram) -> list[Markup]:
    places = layout([result])
    picture = diagram(result, places, values_of([result]), strongest_of([result]))
    missing = not_drawn({"": result})
    note = [element("svg", text(0, 12, missing), width=max(1.0, 5.6 * len(missing)), height=LINE)] if missing else []
    return [picture, legend([result]), *note]


@cache
def _style() -> Markup:
    """The page's light colours, and its rules for pictures."""
    page = page_style()
    (colours,) = re.findall(r"\A:root \{(.*?)\}", page, flags=re.DOTALL)
    rules = "\n".join(
        re.sub(r"(^|, )svg\b", r"\1svg.rcm", line) for line in page.splitlines() if line.startswith("svg ")
    )
    scheme = re.sub(r"color-scheme:[^;]*;", "color-scheme: light;", colours)
    return Markup(f"svg.rcm {{{scheme}}}\nsvg.rcm .ground {{ fill: #fff; }}\n{rules}")
