"""The heads that patching found critical, strongest first: what each does, said in three ways.

Strength is the mean of |necessity| and |sufficiency|.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rcm.comparison.reading import Reading
from rcm.record.storage import file_names
from rcm.record.units import interval, percent, plain
from rcm.report.figures import Cell, Told

MOST = 12
COLUMNS = (
    ("head", "layer.head"),
    ("necessity", "refusal lost, share of the gap"),
    ("sufficiency", "refusal gained, share of the gap"),
    ("direct", "written along the direction, share of its length"),
    ("ablation", "log-odds of refusing lost to the head's mean"),
)


def critical_heads(readings: Sequence[Reading]) -> list[tuple[Reading, Told]]:
    """Those of each run that patched."""
    return [(reading, _critical_heads(reading)) for reading in readings if reading.outcome("patching/outcome")]


def _critical_heads(reading: Reading) -> Told:
    table = reading.table("patching/heads")
    if table is None:
        return Told(reading.why_without("patching/heads"), ())
    heads = reading.rows("patching/heads")
    critical = sorted((head for head in heads if head["critical"]), key=_strength, reverse=True)
    said = f"{len(critical) or 'None'} of {len(heads)} heads {'is' if len(critical) < 2 else 'are'} critical"
    shown = f"; the {MOST} strongest" if len(critical) > MOST else ""
    return Told(
        f"{said}{shown}. All heads: {reading.run.id}/{file_names(table)[0]}.", [_row(head) for head in critical[:MOST]]
    )


def _strength(head: Mapping[str, Any]) -> float:
    return abs(head["necessity"]) + abs(head["sufficiency"])


def _row(head: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(f"{head['layer']}.{head['head']}"),
        *(_effect(head, way) for way in ("necessity", "sufficiency")),
        Cell(percent(head["direct"])),
        Cell(plain(head["ablation"])),
    ]


def _effect(head: Mapping[str, Any], way: str) -> Cell:
    return Cell(percent(head[way]), interval((head[f"{way}_low"], head[f"{way}_high"]), percent))
