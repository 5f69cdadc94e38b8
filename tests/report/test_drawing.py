"""Maps, curves, circuits and intervals as SVG: every value can be found, no two labels touch, and no text is markup."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast, get_args
from xml.etree import ElementTree

import numpy as np
import pytest

from rcm.record.results import DRAWN_EDGES, Curve, Diagram, Edge, Heatmap, Kind, Line, Node, Null, Scalar, Scatter
from rcm.report import diagrams
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


def circuit(nodes: int, edges: int, seed: int = 0, layers: int = 30, **changed: Any) -> Diagram:
    """Of heads, MLPs and neurons of a few layers, with edges upward between them."""
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.permutation(layers)[: 3 + nodes // 10])
    ends = [Node(name, "source", -1, NAN) for name in ("template", "shared words", "words that differ")]
    ends.append(Node("refusal", "output", layers, NAN))
    names: dict[str, Node] = {}
    while len(names) < nodes - len(ends):
        layer, kind = int(draw.choice(rows)), str(draw.choice(["head"] * 6 + ["mlp", "neuron"]))
        head, neuron = f"{layer}.{draw.integers(32)}", f"{layer}/{draw.integers(999)}"
        name = {"head": head, "mlp": f"MLP {layer}", "neuron": neuron}[kind]
        names[name] = Node(name, cast(Kind, kind), layer, float(draw.normal()))
    every = [*ends, *names.values()]
    order = {kind: place for place, kind in enumerate(get_args(Kind))}
    upward = [(a, b) for a in every for b in every if (a.layer, order[a.kind]) < (b.layer, order[b.kind])]
    chosen = [upward[i] for i in draw.permutation(len(upward))[:edges]]
    passed = [Edge(a.name, b.name, float(draw.normal())) for a, b in chosen]
    return replace(Diagram("c", every, passed, layers, "effect", "weight"), **changed)


def shown(one: Diagram, *others: Diagram) -> str:
    every = [one, *others]
    return str(diagrams.diagram(one, diagrams.layout(every), diagrams.values_of(every), diagrams.strongest_of(every)))


def cells(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right and bottom of each node that is drawn, by its tooltip."""
    found: dict[str, tuple[float, float, float, float]] = {}
    for one in drawn(svg).iter():
        if (one.get("class") or "").startswith("node"):
            if one.tag == "circle":
                x, y, radius = (float(one.get(key, "")) for key in ("cx", "cy", "r"))
                box = (x - radius, y - radius, x + radius, y + radius)
            else:
                x, y, width, height = (float(one.get(key, "")) for key in ("x", "y", "width", "height"))
                box = (x, y, x + width, y + height)
            found[one[0].text or ""] = box
    return found


def lines(svg: str) -> list[tuple[str, np.ndarray]]:
    """Each edge that is drawn, in order: its tooltip, and points along its way."""
    share = np.linspace(0, 1, 21)[:, None]
    found = []
    for one in drawn(svg).iter("path"):
        if one.get("class") == "reach":
            points = np.zeros((0, 2))
            for name, numbers in re.findall("([MLC])([^MLC]+)", one.get("d", "")):
                corners = np.array(numbers.split(), dtype=float).reshape(-1, 1, 2)
                way = list(corners if name == "M" else [points[-1:], *corners])
                while len(way) > 1:  # a Bézier curve, by de Casteljau
                    way = [(1 - share) * a + share * b for a, b in pairwise(way)]
                points = np.concatenate([points, *way])
            found.append((one[0].text or "", points))
    return found


SIZES = [(5, 7), (40, 90), (120, 400)]


@pytest.mark.parametrize(("nodes", "edges"), SIZES)
def test_cells_of_a_circuit_lie_apart_and_inside(nodes: int, edges: int) -> None:
    svg = shown(circuit(nodes, edges))
    boxes = list(cells(svg).values())
    assert len(boxes) == nodes
    width, height = (float(drawn(svg).get(side, 0)) for side in ("width", "height"))
    assert all(0 < left < right < width and 0 < top < bottom < height for left, top, right, bottom in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


@pytest.mark.parametrize(("nodes", "edges"), SIZES)
def test_edges_join_their_ends_and_pass_behind_no_other_cell(nodes: int, edges: int) -> None:
    svg = shown(circuit(nodes, edges))
    boxes = {title.partition(" (")[0]: box for title, box in cells(svg).items()}
    ways = lines(svg)
    assert len(ways) == min(edges, DRAWN_EDGES)
    for title, points in ways:
        source, target = title.partition(":")[0].split(" → ")
        for name, point in ((source, points[0]), (target, points[-1])):
            left, top, right, bottom = boxes[name]
            assert left <= point[0] <= right
            assert top - 0.1 <= point[1] <= bottom + 0.1
        for name, (left, top, right, bottom) in boxes.items():
            inside = (points > (left, top)).all(1) & (points < (right, bottom)).all(1)
            assert name in (source, target) or not inside.any(), (title, name)


def test_layers_go_upward_and_those_without_a_node_are_left_out() -> None:
    nodes = [
        *(Node(name, "source", -1, NAN) for name in ("b", "a")),
        Node("4.10", "head", 4, 1.0),
        Node("4.9", "head", 4, 1.0),
        Node("4/7", "neuron", 4, 1.0),
        Node("MLP 4", "mlp", 4, 1.0),
        Node("5.0", "head", 5, 1.0),
        Node("27.0", "head", 27, 1.0),
        Node("refusal", "output", 30, NAN),
    ]
    svg = shown(Diagram("c", nodes, [], 30, "effect", "weight"))
    by_place = sorted(cells(svg).items(), key=lambda item: (-round(sum(item[1][1::2])), item[1][0]))
    assert [title.partition(" (")[0] for title, _ in by_place] == [
        *("b", "a", "4.9", "4.10", "MLP 4", "4/7", "5.0", "27.0", "refusal")  # sources in their own order
    ]
    labels = [one for one in drawn(svg).iter("text") if one.get("text-anchor") == "end"]
    assert [one.text for one in labels] == ["source", "4", "5", "27", "output"]
    ups = [-float(one.get("y", 0)) for one in labels]
    assert ups == sorted(ups)
    marks = {title.text: -float(one.get("y", 0)) for one in drawn(svg).iter("text") for title in one.iter("title")}
    assert list(marks) == ["layers 0 to 3: nothing", "layers 6 to 26: nothing", "layers 28 to 29: nothing"]
    assert ups[0] < marks["layers 0 to 3: nothing"] < ups[1]
    assert ups[2] < marks["layers 6 to 26: nothing"] < ups[3]
    assert float(drawn(svg).get("height", 0)) < 6 * 100  # and not thirty rows


def test_every_node_and_edge_of_a_circuit_tells_its_figure() -> None:
    nodes = [
        Node("words", "source", -1, NAN),
        Node("1.0", "head", 1, -0.125),
        Node("MLP 1", "mlp", 1, NAN),
        Node("1/9", "neuron", 1, 2.5),
        Node("refusal", "output", 3, 1.0),
    ]
    edges = [Edge("words", "1.0", -2.0), Edge("1.0", "MLP 1", 0.5), Edge("1/9", "refusal", 1.0)]
    svg = shown(Diagram("c", nodes, edges, 3, "effect", "weight"))
    assert titles(svg) == [
        *("layer 0: nothing", "layer 2: nothing"),
        *("1.0 → MLP 1: weight 0.5", "1/9 → refusal: weight 1", "words → 1.0: weight -2"),  # the strongest on top
        *("words (source)", "1.0 (head, layer 1): effect -0.125", "MLP 1 (MLP, layer 1): not computed"),
        *("1/9 (neuron, layer 1): effect 2.5", "refusal (output): effect 1"),
    ]
    visible = [one for one in drawn(svg).iter("path") if (one.get("class") or "").startswith("edge")]
    assert [one.get("class") for one in visible] == ["edge plus", "edge plus", "edge minus"]
    for look in ("stroke-width", "stroke-opacity"):
        weak, middle, strong = (float(one.get(look, 0)) for one in visible)
        assert strong - middle == pytest.approx(2 * (middle - weak), abs=0.02)
    fills = [one.get("fill") or one.get("class") for one in drawn(svg).iter() if one.get("class", "")[:4] == "node"]
    low, high = -2.5, 2.5
    assert fills == [
        "node end",
        colour(-0.125, (low, high), colours(0.0)),
        "node blank",
        colour(2.5, (low, high), colours(0.0)),
        colour(1.0, (low, high), colours(0.0)),
    ]
    order = [one.get("class", "")[:4] for one in drawn(svg) if one.get("class", "")[:4] in ("edge", "node")]
    assert order == ["edge"] * 3 + ["node"] * 5  # cells lie above


def test_names_can_be_read_on_every_colour() -> None:
    nodes = [Node(f"0.{i}", "head", 0, float(i - 8)) for i in range(17)]
    svg = shown(Diagram("c", nodes, [], 1, "effect", "weight"))
    grounds = [one.get("class", "") for one in drawn(svg).iter("text") if "name" in one.get("class", "")]
    assert [ground.split()[-1] for ground in (grounds[0], grounds[8], grounds[16])] == [
        "on-dark",
        "on-light",
        "on-dark",
    ]

    def luminance(hexes: str) -> float:
        parts = [int(hexes[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    for node, ground in zip(nodes, grounds, strict=True):
        fill = luminance(colour(node.value, (-8.0, 8.0), colours(0.0)))
        ink = luminance("#ffffff" if ground.endswith("dark") else "#1d2329")
        assert (max(fill, ink) + 0.05) / (min(fill, ink) + 0.05) > 3.8


def test_circuits_of_several_runs_share_places_and_scales() -> None:
    one, other = circuit(40, 60, seed=1), circuit(40, 60, seed=2, layers=31)
    there, here = cells(shown(one, other)), cells(shown(other, one))
    common = {title.partition(":")[0] for title in there} & {title.partition(":")[0] for title in here}
    assert len(common) > 4  # also the outputs, though one model has a layer more
    at, also = ({title.partition(":")[0]: box for title, box in found.items()} for found in (there, here))
    assert all(at[name] == also[name] for name in common)
    assert len(here) == len(there) == 40  # each draws its own
    strong = replace(other, edges=[edge._replace(weight=10 * edge.weight) for edge in other.edges])
    alone, beside = (
        max(float(path.get("stroke-width", 0)) for path in drawn(svg).iter("path"))
        for svg in (shown(one), shown(one, strong))
    )
    assert beside < alone == diagrams.THICK


def test_what_is_too_much_for_one_line_is_broken() -> None:
    words = [Node(f"<|word {i}|>", "source", -1, NAN) for i in range(40)]
    heads = [Node(f"3.{i}", "head", 3, 1.0) for i in range(64)]
    neurons = [Node(f"3/{i}", "neuron", 3, 1.0) for i in range(40)]
    edges = [Edge(a.name, b.name, 1.0) for a, b in zip(words, heads, strict=False)] + [Edge("3.0", "3/9", 1.0)]
    svg = shown(Diagram("c", [*words, *heads, *neurons], edges, 4, "effect", "weight"))
    boxes = {title.partition(" (")[0]: box for title, box in cells(svg).items()}
    assert float(drawn(svg).get("width", 0)) <= diagrams.LEFT + 2 * diagrams.SIDE + diagrams.WIDE + 1
    assert boxes["<|word 0|>"][1] < boxes["<|word 39|>"][1]  # a text is read from the top
    assert boxes["3.63"][1] < boxes["3.0"][1]  # within a layer as it computes
    assert len({box[1] for name, box in boxes.items() if name.startswith("3.")}) >= 3
    written = {one.text for one in drawn(svg).iter("text")}
    assert "3.63" in written
    assert "3/9" not in written  # forty neurons have their names in tooltips
    assert [one.text for one in drawn(svg).iter("text") if one.get("text-anchor") == "end"] == ["source", "3"]


def test_an_edge_within_a_row_stays_below_the_next_one() -> None:
    nodes = [Node(f"{layer}.{i}", "head", layer, 1.0) for layer in (0, 1) for i in range(14)]
    nodes += [Node(f"MLP {layer}", "mlp", layer, 1.0) for layer in (0, 1)]
    svg = shown(Diagram("c", nodes, [Edge("0.0", "MLP 0", 1.0)], 2, "effect", "weight"))
    boxes = {title.partition(" (")[0]: box for title, box in cells(svg).items()}
    ((_, points),) = lines(svg)
    assert boxes["1.0"][3] < points[:, 1].min() < boxes["0.0"][1] - 12
    assert (points[0][1], points[-1][1]) == (boxes["0.0"][1], boxes["MLP 0"][1])
    assert abs(points[0][0] - points[-1][0]) > 400


@pytest.mark.parametrize("missing", [0, 1, 280])
def test_edges_that_are_not_drawn_are_told(missing: int) -> None:
    one = circuit(120, DRAWN_EDGES + missing)
    assert len(lines(shown(one))) == DRAWN_EDGES
    told = diagrams.not_drawn({"base": one, "tuned": circuit(5, 3)})
    every = f"Drawn are the 120 strongest edges; left out are {missing} of {120 + missing} (base)."
    assert told == (every if missing else "")
    assert ("left out are 280 of 400." in diagrams.not_drawn({"": one})) == (missing == 280)


def test_a_circuit_is_drawn_the_same_each_time_and_its_names_are_no_markup() -> None:
    assert shown(circuit(40, 90)) == shown(circuit(40, 90))
    nodes = [Node(HOSTILE, "source", -1, NAN), Node("</svg>", "head", 0, 1.0), Node("</title>", "neuron", 0, 1.0)]
    one = Diagram('"><script>', nodes, [Edge(HOSTILE, "</svg>", 1.0)], 1, "<script>", "<script>")
    for svg in (shown(one), f"<g>{diagrams.legend([one])}</g>"):
        assert "<script" not in svg
        assert "</svg><" not in svg.removesuffix("</svg></g>").replace('</svg><svg role="img"', "")
        assert drawn(svg) is not None


def test_a_circuit_without_a_component_says_so() -> None:
    nothing = Diagram("c", [], [], 3, "effect", "weight")
    assert "no component" in shown(nothing)
    assert diagrams.legend([nothing]) == ""
    assert "no component" in shown(nothing, circuit(5, 7))


def test_the_legend_of_a_circuit_names_its_colours_widths_and_shapes() -> None:
    told = [one.text for one in drawn(f"<g>{diagrams.legend([circuit(40, 90)])}</g>").iter("text")]
    assert {"effect", "weight", "head", "MLP", "neuron"} <= {*told}
    assert "not computed" not in told
    strongest = diagrams.strongest_of([circuit(40, 90)])
    assert {f"{share * strongest:.3g}" for share in (1, -1, 0.25, -0.25)} <= {*told}
    (blank,) = [Diagram("c", [Node("0.0", "head", 0, NAN)], [], 1, "effect", "weight")]
    assert [one.text for one in drawn(f"<g>{diagrams.legend([blank])}</g>").iter("text")] == ["head"]


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
