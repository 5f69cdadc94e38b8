"""Heatmaps as SVG: layers down, positions across; or as a strip, where there is one position only.

Cells that were not computed are hatched, marked cells are outlined, and the pointer finds the value of every cell.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from markupsafe import Markup
from matplotlib.colors import Colormap

from rcm.record.results import Heatmap
from rcm.record.units import plain
from rcm.report.colours import colours
from rcm.report.formatting import cut, visible
from rcm.report.svg import LETTER, LINE, Limits, element, picture, text

LONGEST = 16  # letters of a label on an axis
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # one label in so many


def heatmap(grid: Heatmap, limits: Limits) -> Markup:
    """Rows down, columns across; a grid of a single column lies on its side, as a strip."""
    grid = on_its_side(grid) if is_strip(grid) else grid
    width, height = cell_size(grid)
    left, top = _margins(grid)
    rows, columns = grid.values.shape
    right, bottom = left + columns * width, top + rows * height
    below = _below(grid, width)
    parts = [
        *_cells(grid, limits, (left, top), (width, height)),
        *(_outline(left + column * width, top + row * height, width, height) for row, column in grid.marked),
        *_row_labels(grid, (left, top), height),
        *_column_labels(grid, left, bottom, width),
        text((left + right) / 2, bottom + below - 4, grid.column_label, "middle", class_="axis"),
    ]
    label = f"{grid.label or grid.name}: {grid.row_label} by {grid.column_label}"
    return picture(label, right + 6, bottom + below, *parts, tabindex=0)


def is_strip(grid: Heatmap) -> bool:
    return grid.values.shape[1] == 1 or grid.values.shape[0] == 1


def on_its_side(grid: Heatmap) -> Heatmap:
    """A single column as a row; what is a row already stays."""
    if grid.values.shape[0] == 1:
        return grid
    marked = [(column, row) for row, column in grid.marked]
    return replace(
        grid,
        values=grid.values.T,
        rows=grid.columns,
        columns=grid.rows,
        row_label=grid.column_label,
        column_label=grid.row_label,
        marked=marked,
    )


def cell_size(grid: Heatmap) -> tuple[float, float]:
    """Width and height: a strip or a wide grid fills the width of a phone, a grid keeps its rows close."""
    rows, columns = grid.values.shape
    if rows == 1:
        return float(np.clip(340 // columns, 9, 26)), 34.0
    least = np.clip(320 // columns, 10, 16)
    return float(np.clip(140 // columns, least, 36)), float(np.clip(390 // rows, 12, 26))


def _margins(grid: Heatmap) -> tuple[float, float]:
    """Room for the labels of the rows: above a strip, else at the left."""
    if grid.values.shape[0] == 1:
        return 8.0, 20.0
    return max(LETTER * len(cut(label, LONGEST)) for label in (*grid.rows, "")) + 12, 20.0


def _below(grid: Heatmap, width: float) -> float:
    """Room for the labels of the columns and the name of their axis."""
    longest = max((6.2 * len(cut(label, LONGEST)) for label in grid.columns), default=0.0)
    return (longest + 10 if _upright(grid) else LINE) + LINE + 6


def _upright(grid: Heatmap) -> bool:
    """Whether the labels of the columns are too long to be written across."""
    return max(map(len, grid.columns), default=0) > 2


def _cells(grid: Heatmap, limits: Limits, corner: tuple[float, float], size: tuple[float, float]) -> Iterator[Markup]:
    ramp = colours(grid.center)
    for (row, column), value in np.ndenumerate(grid.values):
        place = f"{grid.row_label} {grid.rows[row]}, {grid.column_label} {grid.columns[column]}"
        x, y = corner[0] + column * size[0], corner[1] + row * size[1]
        yield _cell(float(value), place, colour(float(value), limits, ramp), (x, y), size)


def _cell(value: float, place: str, fill: str, corner: tuple[float, float], size: tuple[float, float]) -> Markup:
    """A coloured cell, or a hatched one where nothing was computed; the pointer finds place and value."""
    (x, y), (width, height) = corner, size
    if not math.isnan(value):
        title = element("title", f"{place}: {plain(value)}")
        return element("rect", title, x=x, y=y, width=width, height=height, fill=fill)
    title = element("title", f"{place}: not computed")
    blank = element("rect", title, x=x, y=y, width=width, height=height, class_="blank")
    return blank + element("path", d=_hatching(x, y, width, height), class_="hatch")


def _hatching(x: float, y: float, width: float, height: float) -> str:
    """Strokes from lower left to upper right, inside the cell."""
    side = min(width, height)
    count = max(1, round(height / side))
    ends = (y + (i + 1) * height / count for i in range(count))
    return "".join(f"M{x:g} {end:g}L{x + width:g} {end - height / count:g}" for end in ends)


def colour(value: float, limits: Limits, ramp: Colormap) -> str:
    """The colour of a value between the limits, as #rrggbb; beyond them, that of the nearer one."""
    low, high = limits
    share = (value - low) / (high - low) if high > low else 0.5
    if math.isnan(share):
        share = 1.0 if value > 0 else 0.0  # infinite limits cannot happen, infinite values can
    return "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in ramp(min(max(share, 0.0), 1.0))[:3]))


def _outline(x: float, y: float, width: float, height: float) -> Markup:
    """Black on white, so that it shows on every colour."""
    box = {"x": x, "y": y, "width": width, "height": height, "fill": "none", "pointer_events": "none"}
    return element("rect", **box, stroke="#fff", stroke_width=4.5) + element(
        "rect", **box, stroke="#000", stroke_width=2
    )


def _row_labels(grid: Heatmap, corner: tuple[float, float], height: float) -> Iterator[Markup]:
    left, top = corner
    if grid.values.shape[0] == 1:
        yield text(left, top - 7, f"{grid.row_label} {cut(visible(grid.rows[0]), 3 * LONGEST)}", class_="axis")
        return
    yield text(2.0, top - 7, grid.row_label, class_="axis")
    step = spaced(LINE, height)
    for row in range(0, len(grid.rows), step):
        middle = top + (row + 0.5) * height
        yield text(left - 6, middle + 4, cut(grid.rows[row], LONGEST), "end")


def _column_labels(grid: Heatmap, left: float, bottom: float, width: float) -> Iterator[Markup]:
    upright = _upright(grid)
    longest = max(map(len, grid.columns), default=0)
    step = spaced(LINE if upright else LETTER * longest + 6, width)
    for column in range(0, len(grid.columns), step):
        middle, label = left + (column + 0.5) * width, cut(grid.columns[column], LONGEST)
        if upright:
            x, y = middle + 4, bottom + 6
            yield text(x, y, label, "end", transform=f"rotate(-90 {x:g} {y:g})")
        else:
            yield text(middle, bottom + 14, label, "middle")


def spaced(needed: float, each: float) -> int:
    """Label one in so many, so that labels of the needed size do not touch."""
    return next((step for step in STEPS if step * each >= needed), STEPS[-1])


def colour_bar(limits: Limits, center: float | None, blank: bool, label: str = "") -> Markup:
    """The scale from the lower to the upper limit, and what it measures; with a sample of what was not computed, where
    there is any."""
    left, width, parts = 4.0, 168.0, 56
    ramp, (low, high) = colours(center), limits
    each = width / parts
    cells = [
        element("rect", x=left + i * each, y=2.0, width=each + 0.5, height=12.0, fill=colour(at, limits, ramp))
        for i, at in enumerate(np.linspace(low, high, parts).tolist())
    ]
    middle = (low + high) / 2
    ends = ((left, "start", low), (left + width / 2, "middle", middle), (left + width, "end", high))
    labels = [text(x, 28.0, tidy(value, high - low), anchor) for x, anchor, value in ends]
    height = 32.0
    if label:
        labels.append(text(left, height + 13, label, class_="axis"))
        height += LINE + 4
    if blank:
        corner = (left, height + 4)
        cells.append(_cell(math.nan, "hatched", "", corner, (12.0, 12.0)))
        labels.append(text(left + 18, height + 14, "not computed"))
        height += LINE + 2
    width = max(176.0, left + LETTER * len(label))
    return picture(f"{label or 'colours'} from {plain(low)} to {plain(high)}", width, height, *cells, *labels)


def tidy(value: float, span: float) -> str:
    """With as many digits as a scale of this span needs; no minus before a zero."""
    digits = max(0, 2 - math.floor(math.log10(span))) if span > 0 else 2
    return f"{round(value, min(digits, 4)) + 0.0:g}"
