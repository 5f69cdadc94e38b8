"""Maps, curves and intervals as SVG: every value can be found, no two labels touch, and no text is markup."""

from dataclasses import replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from rcm.record.results import Curve, Heatmap, Line, Null, Scalar, Scatter
from rcm.report.colours import colours
from rcm.report.curves import curve, span, strip, ticks, vertical_limits
from rcm.report.heatmaps import colour, colour_bar, heatmap, on_its_side, spaced, tidy
from rcm.report.scatters import across_all, scatter, up_all
from rcm.report.svg import element
from tests.report.samples import HOSTILE, LAYERS, NAN, doses, patched


def a_grid(values: list[list[float]], **changed: Any) -> Heatmap:
    rows, columns = (len(values), len(values[0]))
    names = ([f"r{i}" for i in range(rows)], [f"c{i}" for i in range(columns)])
    return replace(Heatmap("m", np.array(values), *names, "row", "column"), **changed)


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in drawn(svg).iter("title")]


def test_elements_escape_attributes_and_text() -> None:
    assert element("text", "<b>&", title="\"'><script>") == (
        '<text title="&#34;&#39;&gt;&lt;script&gt;">&lt;b&gt;&amp;</text>'
    )
    inner = element("b", "x")
    assert element("a", inner, stroke_width=1.50, class_="c") == '<a stroke-width="1.5" class="c"><b>x</b></a>'


def test_labels_of_pictures_are_escaped() -> None:
    grid = a_grid([[1.0, 2.0], [3.0, 4.0]], columns=[HOSTILE, "</svg>"], row_label="<script>", name='"><script>')
    svg = heatmap(grid, (0.0, 4.0))
    assert "<script" not in svg
    assert "</svg><" not in svg
    assert drawn(svg).get("aria-label") == f'"><script>: <script> by {grid.column_label}'
    line = Curve("<script>", [0.0, 1.0], [Line("<script>", [0.0, 1.0])], "<script>", "</svg>")
    assert "<script" not in curve(line, (0.0, 1.0))


def test_a_heatmap_tells_every_value_and_hatches_what_is_missing() -> None:
    svg = heatmap(a_grid([[1.0, NAN], [-2.0, float("inf")]], marked=[(1, 0)]), (-2.0, 2.0))
    assert titles(svg) == [
        "row r0, column c0: 1",
        "row r0, column c1: not computed",
        "row r1, column c0: -2",
        "row r1, column c1: inf",
    ]
    boxes = list(drawn(svg).iter("rect"))
    marked = [box for box in boxes if box.get("fill") == "none"]
    (chosen,) = (box for box in boxes if box.find("title") is not None and "-2" in (box[0].text or ""))
    assert {(box.get("x"), box.get("y")) for box in marked} == {(chosen.get("x"), chosen.get("y"))}
    assert sum(path.get("class") == "hatch" for path in drawn(svg).iter("path")) == 1


def test_a_single_column_lies_on_its_side() -> None:
    svg = drawn(heatmap(a_grid([[float(i)] for i in range(30)], marked=[(17, 0)]), (0.0, 29.0)))
    cells = [box for box in svg.iter("rect") if box.find("title") is not None]
    assert len({box.get("y") for box in cells}) == 1
    (seventeen,) = (box for box in cells if (box[0].text or "").endswith("row r17: 17"))
    assert [box.get("x") for box in svg.iter("rect") if box.get("fill") == "none"] == [seventeen.get("x")] * 2
    assert float(svg.get("width", 0)) <= 390


def test_a_grid_on_its_side_keeps_everything_else() -> None:
    grid = a_grid([[1.0], [2.0]], marked=[(1, 0)], center=None, value_label="nats")
    turned = on_its_side(grid)
    assert (turned.value_label, turned.center, turned.marked) == ("nats", None, [(0, 1)])
    assert (turned.rows, turned.row_label, turned.column_label) == (["c0"], "column", "row")


def test_colours_run_from_blue_over_white_to_red_around_a_center() -> None:
    low, middle, high = (colour(value, (-1.0, 1.0), colours(0.0)) for value in (-1.0, 0.0, 1.0))
    parts = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (low, middle, high)]
    assert parts[0][2] > parts[0][0]
    assert min(parts[1]) > 240
    assert parts[2][0] > parts[2][2]
    assert colour(9.0, (-1.0, 1.0), colours(0.0)) == high
    assert colour(1.0, (1.0, 1.0), colours(None)).startswith("#")


@pytest.mark.parametrize("positions", [1, 2, 5, 16])
def test_no_two_labels_of_a_heatmap_overlap(positions: int) -> None:
    grid = a_grid(np.zeros((LAYERS, positions)).tolist())
    assert_apart(replace(grid, columns=[f"{i - positions} <|im_end|>" for i in range(positions)]))


@pytest.mark.parametrize(("layers", "heads"), [(30, 9), (32, 32)])
def test_a_map_of_heads_can_be_read_on_a_phone(layers: int, heads: int) -> None:
    grid = next(result for result in patched(layers, heads) if isinstance(result, Heatmap))
    assert_apart(grid)
    svg = drawn(heatmap(grid, (-1.0, 1.0)))
    cells = [box for box in svg.iter("rect") if box.find("title") is not None]
    assert len(cells) == layers * heads
    assert all(float(cell.get(side, 0)) >= 10 for cell in cells for side in ("width", "height"))
    assert float(svg.get("width", 0)) <= 366


def assert_apart(grid: Heatmap) -> None:
    svg = drawn(heatmap(grid, (0.0, 1.0)))
    ticks = [text for text in svg.iter("text") if text.get("class") is None]
    for axis in ("x", "y"):
        places = sorted({float(text.get(axis, 0)) for text in ticks})
        assert all(b - a >= 11 for a, b in pairwise(places))
    for text in svg.iter("text"):
        assert 0 <= float(text.get("x", 0)) <= float(svg.get("width", 0))


def test_a_colour_bar_names_its_ends_and_what_was_not_computed() -> None:
    told = [text.text for text in drawn(colour_bar((-4.0, 4.0), 0.0, True)).iter("text")]
    assert told == ["-4", "0", "4", "not computed"]
    assert "not computed" not in colour_bar((0.0, 1.0), None, False)


def test_a_colour_bar_says_what_the_figures_are() -> None:
    bar = colour_bar((-1.0, 1.0), 0.0, True, "share of the gap")
    assert [text.text for text in drawn(bar).iter("text")] == ["-1", "0", "1", "share of the gap", "not computed"]
    lines = [float(text.get("y", 0)) for text in drawn(bar).iter("text")][2:]
    assert all(b - a >= 14 for a, b in pairwise(lines))
    assert lines[-1] < float(drawn(bar).get("height", 0))


def test_a_curve_breaks_where_it_is_unknown() -> None:
    svg = drawn(curve(doses(), (0.0, 1.0)))
    paths = [path.get("d", "") for path in svg.iter("path") if (path.get("class") or "").startswith("line series-1")]
    assert paths[0].count("M") == 2
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")
    assert "refusal direction, strength, in natural norms 0.5: 0.4 [0.3, 0.55]" in titles(curve(doses(), (0.0, 1.0)))


def test_a_curve_without_a_figure_is_an_empty_plot() -> None:
    nothing = Curve("c", [], [], "x", "y")
    assert drawn(curve(nothing, vertical_limits([nothing]))).tag == "svg"
    unknown = Curve("c", [0.0, 1.0], [Line("l", [NAN, NAN], [NAN, NAN], [NAN, NAN])], "x", "y")
    assert "nan" not in curve(unknown, vertical_limits([unknown]))


def cloud(**changed: Any) -> Scatter:
    x, y, values = (0.01, 1.0, 10.0, 0.0), (2.0, -2.0, 0.0, 1.0), (-1.0, 1.0, NAN, 0.0)
    names = ("a", "b", "c", "at nought")
    return replace(Scatter("s", x, y, values, names, "KL", "bypass", "induce", (1,), 0.1, log_x=True), **changed)


def pictured(one: Scatter) -> str:
    return str(scatter(one, across_all([one]), up_all([one]), (-1.0, 1.0)))


def test_a_scatter_puts_points_in_proportion() -> None:
    svg = pictured(cloud())
    discs = [(one, title.text) for one in drawn(svg).iter("circle") for title in one.iter("title")]
    at = {str(title).partition(":")[0]: (float(one.get("cx", "")), float(one.get("cy", ""))) for one, title in discs}
    assert set(at) == {"a", "b", "c"}  # nought has no logarithm
    assert at["b"][0] - at["a"][0] == pytest.approx(2 * (at["c"][0] - at["b"][0]), abs=0.1)
    assert at["b"][1] - at["c"][1] == pytest.approx(at["c"][1] - at["a"][1], abs=0.1)
    linear = pictured(cloud(log_x=False))
    assert sum(title.startswith("at nought") for title in titles(linear)) == 1


def test_a_scatter_tells_every_value_and_rings_what_is_marked() -> None:
    svg = pictured(cloud())
    assert "b: KL 1, bypass -2, induce 1" in titles(svg)
    rings = [one for one in drawn(svg).iter("circle") if one.get("class") == "ring"]
    (marked,) = [one for one in drawn(svg).iter("circle") for title in one.iter("title") if title.text[0] == "b"]
    assert [(one.get("cx"), one.get("cy")) for one in rings] == [(marked.get("cx"), marked.get("cy"))]
    fills = {title.text[0]: one for one in drawn(svg).iter("circle") for title in one.iter("title")}
    assert fills["a"].get("fill") == colour(-1.0, (-1.0, 1.0), colours(0.0))
    assert "blank" in fills["c"].get("class", "")  # its colour is not known
    (limit,) = [one for one in drawn(svg).iter("line") if one.get("class") == "limit"]
    assert float(fills["a"].get("cx", "")) < float(limit.get("x1", "")) < float(marked.get("cx", ""))
    assert "limit: KL 0.1" in titles(svg)


@pytest.mark.parametrize("nothing", [(NAN,) * 4, (0.0, -1.0, NAN, NAN)])
def test_a_scatter_without_a_point_is_an_empty_plot(nothing: tuple[float, ...]) -> None:
    svg = pictured(cloud(x=nothing, marked=()))
    assert not list(drawn(svg).iter("circle"))
    assert "bypass" in svg


@pytest.mark.parametrize("least", [1e-6, 0.003, 0.09, 0.8])
def test_a_scatters_scale_has_labels_that_do_not_touch(least: float) -> None:
    svg = pictured(cloud(x=(least, 1.0, 1.1, 1.2)))
    labels = [(float(one.get("x", "")), one.text or "") for one in drawn(svg).iter("text")][1:]
    across = sorted((x, text) for x, text in labels if text.replace(".", "").replace("e-", "").isdigit() and x > 42)
    assert len(across) >= 2
    for (x, text), (next_x, _) in pairwise(across):
        assert next_x - x > 6 * len(text)


def test_shares_fill_the_scale_and_losses_start_at_zero() -> None:
    assert vertical_limits([doses()]) == (0.0, 1.0)
    loss = Curve("loss", [1.0, 2.0], [Line("loss", [3.7, 0.4])], "step", "nats")
    assert vertical_limits([loss]) == (0.0, 4.0)
    low, high = vertical_limits([Curve("c", [0.0], [Line("l", [-2.5])], "x", "y")])
    assert low <= -2.5 < high


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 2.0), (-3.0, 0.0), (0.0, 1e-6), (1.0, 1000.0)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    at = ticks(low, high)
    assert 2 <= len(at) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in at)


def test_the_strip_puts_value_and_target_in_proportion() -> None:
    scalar = Scalar("rate", 0.5, (0.25, 1.0), 10, Null(0.0, "shuffled labels"), target=0.75)
    svg = drawn(strip(scalar, (0.0, 1.0)))
    lines = {line.get("class"): line for line in svg.iter("line")}
    (disc,) = svg.iter("circle")
    left, right = (float(lines["rail"].get(end, 0)) for end in ("x1", "x2"))
    assert float(disc.get("cx", 0)) == pytest.approx((left + right) / 2)
    assert float(lines["target"].get("x1", 0)) == pytest.approx(left + 0.75 * (right - left))
    assert float(lines["interval"].get("x2", 0)) == pytest.approx(right)


def test_numbers_on_scales_have_the_digits_they_need() -> None:
    assert [tidy(value, 8.0) for value in (-4.0, -0.0, 3.14159)] == ["-4", "0", "3.14"]
    assert tidy(0.00123, 0.01) == "0.0012"
    assert span([NAN, 2.0]) == (1.5, 2.5)
    assert spaced(30.0, 11.0) == 5
