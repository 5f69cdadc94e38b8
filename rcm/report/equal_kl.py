"""Ways to steer, and controls, each at the strength where it costs the same KL: what does the price buy?"""

from collections.abc import Mapping, Sequence
from typing import Any

from rcm.report.figures import Cell, Told, Unit, interval
from rcm.report.reading import Reading
from rcm.report.words import known, percent, plain
from rcm.storage import file_names

POINTS = "steering/points"
COLUMNS = (
    ("operation", ""),
    ("direction", ""),
    ("forced", "harmless prompts refused"),
    ("at", "strength, in natural norms"),
    ("KL", "nats per token, on harmless test prompts"),
    ("loss", "growth on plain text"),
    ("suppressed", "harmful prompts answered"),
    ("at ", "strength"),
    ("KL ", ""),
    ("loss ", ""),
    ("no language", "when forced; when suppressed"),
)
Point = Mapping[str, Any]


def at_equal_kl(readings: Sequence[Reading]) -> list[tuple[Reading, Told]]:
    """The table of each run that compared."""
    found = [(reading, _points(reading)) for reading in readings]
    return [(reading, _told(reading, points)) for reading, points in found if points]


def _points(reading: Reading) -> list[Point]:
    table = reading.table(POINTS)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows] if table else []
    return [row for row in rows if row["equal_kl"]]


def _told(reading: Reading, points: Sequence[Point]) -> Told:
    budget = reading.setting("method", "kl_budget")
    forced, suppressed = ([point for point in points if point["kind"] == kind] for kind in ("harmless", "harmful"))
    table = reading.table(POINTS)
    said = (
        f"Strengths were set on validation prompts to cost {budget} nats per token, or as much of it as can be "
        "spent; what they cost on test prompts is shown. The condition takes the strength of adding. "
        f"All points: {reading.run.id}/{file_names(table)[0] if table else ''}."
    )
    return Told(said, [_row(*both) for both in zip(forced, suppressed, strict=True)])


def _row(forced: Point, suppressed: Point) -> list[Cell]:
    condition = Cell(forced["operation"]), Cell(forced["direction"])
    invalid = Cell(" / ".join(percent(point["invalid"]) for point in (forced, suppressed)))
    return [*condition, *_side(forced), *_side(suppressed), invalid]


def _side(point: Point) -> list[Cell]:
    return [
        _figure(point, "turned", percent),
        Cell(plain(point["strength"])),
        _figure(point, "kl", plain),
        _figure(point, "cross_entropy", plain),
    ]


def _figure(point: Point, name: str, unit: Unit) -> Cell:
    if not known(point[name]):
        return Cell("–")
    return Cell(unit(point[name]), interval((point[f"{name}_low"], point[f"{name}_high"]), unit))
