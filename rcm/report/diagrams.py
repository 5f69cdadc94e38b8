"""Circuits as SVG: layers upward, heads, MLPs and neurons as cells, edges by weight; sources below, outputs on top.

Only layers with a node have a row. An edge runs through the gaps between the cells of the rows that it passes, never
behind one, so that none seems to end where it does not (dummy nodes of layered drawings, Sugiyama et al. 1981). Several
runs share their places: what two of them have stands where it stands in the other. Paper and page draw one `Layout`.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from rcm.record.results import DRAWN_EDGES, Diagram, Edge, Kind, Node, colour_limits
from rcm.record.units import plain
from rcm.report.colours import colours
from rcm.report.formatting import cut, visible
from rcm.report.heatmaps import colour, colour_bar
from rcm.report.svg import LETTER, LINE, Limits, element, picture, text

# px
CELL = 22.0  # height of a cell
DISC = 5.0  # radius of a neuron
APART = 14.0  # between the cells of a row, where edges pass
UP, WITHIN = 60.0, 34.0  # between the rows of two layers, and between the lines of a row that is broken
SKIPPED = 12.0  # more, where layers are left out
MARGIN = 5.0  # of a row about its cells
LEFT, TOP, SIDE = 52.0, 14.0, 34.0  # room for the labels of rows, for their title, and beside the widest row
NARROW, WIDE = 230.0, 790.0  # between them lies a row, else it is broken
LANE = 5.0  # between edges that pass at the side of a row
THIN, THICK = 1.1, 6.0  # of the weakest edge, and of the strongest

LONGEST = 24  # letters of a name in a cell
NAMED = 12  # more neurons in one row are without their names
CORNERS: Mapping[str, float] = {"head": 5.0, "mlp": 1.0}  # px; sources and outputs are round
ENDS: tuple[Kind, ...] = ("source", "output")  # that these have no value is no gap
KINDS: Mapping[Kind, str] = {"source": "source", "head": "head", "mlp": "MLP", "neuron": "neuron", "output": "output"}

Point = tuple[float, float]
Step = tuple[str, Sequence[Point]]  # of an outline: M, L or C, and the points that it takes
Key = tuple[float, Kind, str]  # of a node in the diagrams of several runs


class Box(NamedTuple):
    """A cell, by its left end and the middle of its height. `disc`: of a neuron, whose name stands beside it. `named`:
    whether the name is shown."""

    left: float
    y: float
    width: float
    line: int
    disc: bool
    named: bool

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def middle(self) -> float:
        return self.left + (DISC if self.disc else self.width / 2)

    @property
    def half(self) -> float:
        """From the middle to where edges leave and reach it; into a disc they go, since it is round."""
        return 0.0 if self.disc else CELL / 2


class Cell(NamedTuple):
    """A node that has no place yet."""

    node: Node
    width: float
    named: bool

    @property
    def space(self) -> float:
        """To the next one."""
        return APART if self.named else APART / 2


class Row(NamedTuple):
    """All nodes of a layer, or of the sources or outputs: what stands beside it, and its upper and lower end."""

    label: str
    top: float
    bottom: float


class Skipped(NamedTuple):
    """Layers without a row, both ends included, and where they would lie."""

    first: int
    last: int
    y: float


@dataclass(frozen=True)
class Layout:
    """Where everything lies. `lines`: where the middles of cells lie, from the bottom; a row that is broken has several
    lines."""

    boxes: Mapping[Key, Box]
    lines: Sequence[float]
    rows: Sequence[Row]
    skipped: Sequence[Skipped]
    width: float
    height: float

    def box(self, node: Node) -> Box:
        return self.boxes[_key(node)]


def layout(diagrams: Sequence[Diagram]) -> Layout:
    """One for all of them: the nodes of each, those that several have once."""
    nodes = {_key(node): node for one in diagrams for node in one.nodes}
    floors = sorted({floor for floor, _, _ in nodes})
    broken = {floor: _broken([node for key, node in nodes.items() if key[0] == floor]) for floor in floors}
    widest = max((_across(line) for lines in broken.values() for line in lines), default=0.0)
    middle = LEFT + SIDE + max(widest, NARROW) / 2
    layers = max((one.layers for one in diagrams), default=0)
    boxes: dict[Key, Box] = {}
    lines, rows, skipped = list[float](), list[Row](), list[Skipped]()
    y, below = -(CELL / 2 + MARGIN), -1.0  # the bottom is zero here, and moves to its place at the end
    for floor in floors:
        y -= UP if lines else 0.0
        if (last := int(min(floor, layers)) - 1) > below:
            y -= SKIPPED
            skipped.append(Skipped(int(below) + 1, last, y + UP / 2 + SKIPPED / 2 if lines else y + CELL / 2))
            y -= 0.0 if lines else CELL
        bottom = y + CELL / 2 + MARGIN
        for place, line in enumerate(broken[floor]):
            y -= CELL + WITHIN if place else 0.0
            left = middle - _across(line) / 2
            for cell in line:
                boxes[_key(cell.node)] = Box(left, y, cell.width, len(lines), cell.node.kind == "neuron", cell.named)
                left += cell.width + cell.space
            lines.append(y)
        label = {-1.0: "source", math.inf: "output"}.get(floor, f"{floor:.0f}")
        rows.append(Row(label, y - CELL / 2 - MARGIN, bottom))
        y, below = y - CELL, floor
    if rows and below < layers - 1:
        skipped.append(Skipped(int(below) + 1, layers - 1, y))
        y -= LINE
    height = TOP - y
    return Layout(
        {key: box._replace(y=height + box.y) for key, box in boxes.items()},
        [height + y for y in lines],
        [Row(label, height + top, height + bottom) for label, top, bottom in rows],
        [Skipped(first, last, height + y) for first, last, y in skipped],
        middle + max(widest, NARROW) / 2 + SIDE,
        height,
    )


def _key(node: Node) -> Key:
    return math.inf if node.kind == "output" else float(node.layer), node.kind, node.name


def _broken(nodes: Sequence[Node]) -> list[list[Cell]]:
    """A row as lines of about one width, from below. Its cells stand by kind, then by number; those of sources and
    outputs as they came, and read from the top, since they may be a text."""
    kinds, named = list(KINDS), sum(node.kind == "neuron" for node in nodes) <= NAMED
    ordered = sorted(nodes, key=lambda node: (kinds.index(node.kind), _numbers(node)))
    row = [Cell(node, _width(node, named), named or node.kind != "neuron") for node in ordered]
    share = _across(row) / math.ceil(_across(row) / WIDE)
    lines: list[list[Cell]] = [[]]
    for cell in row:
        if lines[-1] and _across([*lines[-1], cell]) > min(WIDE, share + cell.width):
            lines.append([])
        lines[-1].append(cell)
    return lines[::-1] if row[0].node.kind in ENDS else lines


def _numbers(node: Node) -> list[str | int]:
    """So that head 9 stands before head 10."""
    if node.kind in ENDS:
        return []
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", node.name)]


def _across(line: Sequence[Cell]) -> float:
    return sum(cell.width for cell in line) + sum(cell.space for cell in line[:-1])


def _width(node: Node, named: bool) -> float:
    letters = LETTER * len(short(node))
    match node.kind:
        case "head":
            return max(CELL, letters + 8)
        case "mlp":
            return max(3 * CELL, letters + 20)
        case "neuron":
            return 2 * DISC + (letters + 4 if named else 0.0)
        case _:
            return letters + 18


def short(node: Node) -> str:
    """What stands in its cell."""
    return cut(visible(node.name), LONGEST)


# --- edges ------------------------------------------------------------------------------------------------------------


def routes(drawn: Diagram, places: Layout) -> list[list[Step]]:
    """The outline of each of the edges that are drawn."""
    boxes = {node.name: places.box(node) for node in drawn.nodes}
    ends = [_upward(boxes[edge.source], boxes[edge.target]) for edge in drawn.drawable]
    passed = _passed(ends, list(boxes.values()), places)

    # Edges leave and reach a cell in the order in which they go on from it, side by side.
    sides: dict[tuple[Box, bool], list[tuple[float, int]]] = defaultdict(list)  # of a cell, its upper one or its lower
    for i, (low, high) in enumerate(ends):
        xs = [x for x, _ in passed[i]]
        sides[low, True].append((xs[0] if xs else high.middle, i))
        sides[high, low.line == high.line].append((xs[-1] if xs else low.middle, i))
    port = {(box, i): x for (box, _), found in sides.items() for i, x in _ports(box, sorted(found))}

    outlines: list[list[Step]] = []
    for i, (low, high) in enumerate(ends):
        beside = low.line == high.line
        end = (port[high, i], high.y - high.half if beside else high.y + high.half)
        outlines.append(_outline((port[low, i], low.y - low.half), end, passed[i], beside))
    return outlines


def _upward(source: Box, target: Box) -> tuple[Box, Box]:
    """A row that is broken may have the source above."""
    return (source, target) if source.line <= target.line else (target, source)


def _ports(box: Box, found: Sequence[tuple[float, int]]) -> Iterator[tuple[int, float]]:
    width = DISC if box.disc else 0.84 * box.width
    for rank, (_, i) in enumerate(found):
        yield i, box.middle + width * ((rank + 1) / (len(found) + 1) - 0.5)


def _passed(ends: Sequence[tuple[Box, Box]], boxes: Sequence[Box], places: Layout) -> list[list[Point]]:
    """For each edge where it passes the lines between its ends: in the gap nearest to the straight way, beside the
    other edges in it."""
    gaps: dict[tuple[int, float, float], list[tuple[float, int]]] = defaultdict(list)
    openings = [list(_openings(line, boxes, places)) for line in range(len(places.lines))]
    for i, (low, high) in reversed(list(enumerate(ends))):  # the strongest has the choice
        for line in range(low.line + 1, high.line):
            share = (low.y - places.lines[line]) / (low.y - high.y)
            wanted = low.middle + share * (high.middle - low.middle)

            def detour(gap: Limits, line: int = line, wanted: float = wanted) -> float:
                """How far out of the way it lies, and as far again as it is too narrow for one more."""
                left, right = gap
                crowded = LANE * (len(gaps[line, left, right]) + 1) - (right - left)
                return max(left - wanted, wanted - right, 0.0) + 2 * max(crowded, 0.0)

            gaps[(line, *min(openings[line], key=detour))].append((wanted, i))
    passed: list[list[Point]] = [[] for _ in ends]
    for (line, left, right), found in sorted(gaps.items()):
        for i, x in _lanes(left, right, sorted(found), places):
            passed[i].append((x, places.lines[line]))
    return passed


def _openings(line: int, boxes: Sequence[Box], places: Layout) -> Iterator[Limits]:
    """Where no cell stands in a line, from left to right."""
    cells = sorted((box.left, box.right) for box in boxes if box.line == line)
    edges = [(0.0, LEFT), *cells, (places.width, places.width)]
    yield from ((left, right) for (_, left), (right, _) in pairwise(edges) if right > left)


def _lanes(
    left: float, right: float, found: Sequence[tuple[float, int]], places: Layout
) -> Iterator[tuple[int, float]]:
    """Side by side: at the sides of a row as near to where they want to be as the others let them."""
    step = min(LANE, (right - left) / (len(found) + 1))
    if left > LEFT and right < places.width and right - left < 3 * APART:
        for rank, (_, i) in enumerate(found):
            yield i, left + (right - left) * (rank + 1) / (len(found) + 1)
        return
    at = -math.inf
    xs = []
    for rank, (wanted, _) in enumerate(found):
        at = min(max(wanted, left + step, at + step), right - step * (len(found) - rank))
        xs.append(at)
    yield from ((i, x) for (_, i), x in zip(found, xs, strict=True))


def _outline(start: Point, end: Point, passed: Sequence[Point], beside: bool) -> list[Step]:
    """Upright at both ends and through every gap; an arc above the cells where both ends are in one line."""
    if beside:
        reach = min(0.62 * UP, 16 + 0.12 * abs(end[0] - start[0]))
        above = min(start[1], end[1]) - reach
        return [("M", [start]), ("C", [(start[0], above), (end[0], above), end])]
    steps: list[Step] = [("M", [start])]
    x, y = start
    for next_x, line in passed:
        steps += [_rise(x, y, next_x, line + CELL / 2 + 2), ("L", [(next_x, line - CELL / 2 - 2)])]
        x, y = next_x, line - CELL / 2 - 2
    return [*steps, _rise(x, y, *end)]


def _rise(x: float, y: float, to_x: float, to_y: float) -> Step:
    middle = (y + to_y) / 2
    return "C", [(x, middle), (to_x, middle), (to_x, to_y)]


# --- drawing ----------------------------------------------------------------------------------------------------------


def values_of(diagrams: Sequence[Diagram]) -> Limits:
    """A common scale of the nodes' colours."""
    values = np.array([[node.value for one in diagrams for node in one.nodes]], dtype=float)
    return colour_limits(values, diagrams[0].center)


def strongest_of(diagrams: Sequence[Diagram]) -> float:
    """What the thickest edge weighs; 1 where there is none."""
    return max((abs(edge.weight) for one in diagrams for edge in one.edges), default=0.0) or 1.0


def thickness(weight: float, strongest: float) -> tuple[float, float]:
    """Width in px, and opacity."""
    share = abs(weight) / strongest
    return THIN + (THICK - THIN) * share, 0.4 + 0.5 * share


def diagram(drawn: Diagram, places: Layout, limits: Limits, strongest: float) -> Markup:
    """The picture on the common scales, with what each node and each edge is."""
    edges = zip(drawn.drawable, routes(drawn, places), strict=True)
    number = {node.name: i for i, node in enumerate(drawn.nodes)}  # by which the page finds a node's edges
    parts = [
        text(2.0, 13.0, "layer", class_="axis"),
        *_rows(places),
        *(part for edge, outline in edges for part in _edge(drawn, edge, outline, strongest, number)),
        *(part for node in drawn.nodes for part in _node(drawn, node, places.box(node), limits, number[node.name])),
    ]
    if not drawn.nodes:
        parts.append(text(places.width / 2, places.height / 2 + 8, "no component", "middle"))
    label = (
        f"{drawn.label or drawn.name}: {len(drawn.nodes)} components by {drawn.value_label}, {len(drawn.edges)} edges "
        f"by {drawn.weight_label}"
    )
    return picture(label, places.width, places.height, *parts, tabindex=0)


def _rows(places: Layout) -> Iterator[Markup]:
    for label, top, bottom in places.rows:
        box = {"x": LEFT, "y": top, "width": places.width - LEFT, "height": bottom - top}
        yield element("rect", **box, class_="floor")
        yield text(LEFT - 8, (top + bottom) / 2 + 4, label, "end")
    for first, last, y in places.skipped:
        which = f"layer {first}" if first == last else f"layers {first} to {last}"
        yield element("text", element("title", f"{which}: nothing"), "⋮", x=LEFT - 12, y=y + 4, text_anchor="middle")


def _edge(
    drawn: Diagram, edge: Edge, outline: Sequence[Step], strongest: float, number: Mapping[str, int]
) -> Iterator[Markup]:
    """The line, and over it a wider one that nobody sees, for the pointer to find."""
    width, opacity = thickness(edge.weight, strongest)
    d = "".join(name + " ".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in points) for name, points in outline)
    sign = "plus" if edge.weight >= 0 else "minus"
    look = {"class_": f"edge {sign}", "stroke_width": width, "stroke_opacity": opacity}
    yield element("path", d=d, **look, data_ends=f"{number[edge.source]} {number[edge.target]}")
    title = element("title", f"{edge.source} → {edge.target}: {drawn.weight_label} {plain(edge.weight)}")
    yield element("path", title, d=d, class_="reach")


def _node(drawn: Diagram, node: Node, box: Box, limits: Limits, number: int) -> Iterator[Markup]:
    fill = "" if math.isnan(node.value) else colour(node.value, limits, colours(drawn.center))
    yield _cell(node.kind, box, fill, number, element("title", described(drawn, node)))
    if not box.named:
        return
    if box.disc:
        yield text(box.left + 2 * DISC + 4, box.y + 4, short(node), class_="name")
    else:
        ground = ("on-light" if is_light(fill) else "on-dark") if fill else ""
        yield text(box.middle, box.y + 4, short(node), "middle", class_=f"name {ground}".strip())


def _cell(kind: Kind, box: Box, fill: str, number: int, title: Markup) -> Markup:
    """In the shape of its kind."""
    paint = {"class_": "node", "fill": fill} if fill else {"class_": "node end" if kind in ENDS else "node blank"}
    paint |= {"data_node": str(number)}
    if kind == "neuron":
        return element("circle", title, cx=box.left + DISC, cy=box.y, r=DISC, **paint)
    corner = CORNERS.get(kind, CELL / 2)
    return element("rect", title, x=box.left, y=box.y - CELL / 2, width=box.width, height=CELL, rx=corner, **paint)


def described(drawn: Diagram, node: Node) -> str:
    """What a node is, with its figure."""
    ends = node.kind in ENDS
    about = KINDS[node.kind] if ends else f"{KINDS[node.kind]}, layer {node.layer}"
    if math.isnan(node.value):
        return f"{node.name} ({about})" + ("" if ends else ": not computed")
    return f"{node.name} ({about}): {drawn.value_label} {plain(node.value)}"


def is_light(fill: str) -> bool:
    """Whether dark letters have more contrast on it than white ones (relative luminance, WCAG 2)."""
    red, green, blue = ((int(fill[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.215


def legend(diagrams: Sequence[Diagram]) -> Markup:
    """What colours, widths and shapes mean."""
    inner = [node for one in diagrams for node in one.nodes if node.kind not in ENDS]
    blank = any(math.isnan(node.value) for node in inner)
    first = diagrams[0]
    parts: list[Markup] = []
    if any(math.isfinite(node.value) for one in diagrams for node in one.nodes):
        parts.append(colour_bar(values_of(diagrams), first.center, blank, first.value_label))
    if any(one.edges for one in diagrams):
        parts.append(_weights(first.weight_label, strongest_of(diagrams)))
    shapes = [kind for kind in KINDS if any(node.kind == kind for node in inner)]
    return Markup("").join([*parts, *([_shapes(shapes)] if shapes else [])])


def _weights(label: str, strongest: float) -> Markup:
    """The strongest and a quarter of it, on either side of zero."""
    parts: list[Markup] = []
    for row, share in enumerate((1.0, 0.25)):
        width, opacity = thickness(share, 1.0)
        for x, sign in ((4.0, 1.0), (92.0, -1.0)):
            y = 10.0 + row * LINE
            line = element("line", x1=x, x2=x + 30, y1=y, y2=y, class_=f"edge {'plus' if sign > 0 else 'minus'}",
                           stroke_width=width, stroke_opacity=opacity)  # fmt: skip
            parts += [line, text(x + 36, y + 4, plain(sign * share * strongest))]
    bottom = 10.0 + 2 * LINE + 7
    parts.append(text(4.0, bottom, label, class_="axis"))
    return picture(f"{label}: widths of edges", max(176.0, 4 + LETTER * len(label)), bottom + 7, *parts)


def _shapes(kinds: Sequence[Kind]) -> Markup:
    parts, x = list[Markup](), 4.0
    for kind in kinds:
        width = {"head": 16.0, "mlp": 30.0}.get(kind, 2 * DISC)
        if kind == "neuron":
            parts.append(element("circle", cx=x + DISC, cy=11.0, r=DISC, class_="node end"))
        else:
            parts.append(element("rect", x=x, y=3.0, width=width, height=16.0, rx=CORNERS[kind], class_="node end"))
        parts.append(text(x + width + 4, 15.0, KINDS[kind]))
        x += width + 14 + LETTER * len(KINDS[kind])
    return picture("shapes: " + ", ".join(KINDS[kind] for kind in kinds), max(x, 176.0), 22.0, *parts)


def not_drawn(diagrams: Mapping[str, Diagram]) -> str:
    """The sentence that says how many edges are missing in whose picture; empty where none is."""
    missing = [(name, one) for name, one in diagrams.items() if one.left_out]
    if not missing:
        return ""
    told = ", ".join(f"{one.left_out} of {len(one.edges)}" + (f" ({name})" if name else "") for name, one in missing)
    return f"Drawn are the {DRAWN_EDGES} strongest edges; left out are {told}."
