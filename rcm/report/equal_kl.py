"""Ways to steer, and controls, each at the strength where it costs the same KL: what does the price buy?"""

from collections.abc import Mapping, Sequence
from typing import Any

from rcm.comparison.reading import Reading
from rcm.record.storage import file_names
from rcm.record.units import Unit, interval, known, percent, plain
from rcm.report.figures import Cell, Told

POINTS = "steering/points"
COLUMNS = (
    ("operation", ""),
    ("direction", ""),
    ("turned over", "share of prompts"),
    ("strength", "natural norms"),
    ("KL", "nats per token"),
    ("loss", "growth"),
    ("garbled", ""),
)
Point = Mapping[str, Any]


def at_equal_kl(readings: Sequence[Reading]) -> list[tuple[Reading, Told]]:
    """The table of each run that compared."""
    found = [(reading, _points(reading)) for reading in readings]
    return [(reading, _told(reading, points)) for reading, points in found if points]


def _points(reading: Reading) -> list[Point]:
    return [row for row in reading.rows(POINTS) if row["equal_kl"]]


def _told(reading: Reading, points: Sequence[Point]) -> Told:
    budget = reading.setting("method", "kl_budget")
    table = reading.table(POINTS)
    where = file_names(table)[0] if table else ""
    said = (
        "Forced: harmless prompts refused. Suppressed: harmful prompts answered. Garbled: no language. "
        f"Strengths were set on validation prompts to cost {budget} nats per token, or as much of it as can be "
        "spent. The KL is what they cost on harmless test prompts, the loss what they cost on plain text. "
        f"The condition takes the strength of adding. All points: {reading.run.id}/{where}."
    )
    return Told(said, [_row(point) for point in points])


def _row(point: Point) -> list[Cell]:
    done = f"{point['operation']}, {'forced' if point['kind'] == 'harmless' else 'suppressed'}"
    return [
        Cell(done),
        Cell(point["direction"]),
        _figure(point, "turned", percent),
        Cell(plain(point["strength"])),
        _figure(point, "kl", plain),
        _figure(point, "cross_entropy", plain),
        Cell(percent(point["invalid"]) if known(point["invalid"]) else "–"),
    ]


def _figure(point: Point, name: str, unit: Unit) -> Cell:
    if not known(point[name]):
        return Cell("–")
    return Cell(unit(point[name]), interval((point[f"{name}_low"], point[f"{name}_high"]), unit))
