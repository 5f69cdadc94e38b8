"""Transplants: what the direction of each source does in each target."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rcm.report.figures import Cell, Told, detail
from rcm.report.reading import Reading
from rcm.report.words import TIED, known, percent, plain
from rcm.results import Scalar

MATRIX = "transplant/matrix"
Graft = Mapping[str, Any]  # one row of the matrix: a source in this target
SAID = (
    "The mean difference of one model, brought into another. Null: the upper end of what random directions and "
    "directions of shuffled labels do there; p: against all of them (Fisher)."
)


def grafts(reading: Reading) -> dict[str, Graft]:
    """By source, where the run transplanted."""
    return {str(row["source"]): row for row in reading.rows(MATRIX)}


def graft(source: Reading, target: Reading, others: Sequence[Reading]) -> Graft | None:
    """The latest transplant from this run's model into that of another."""
    found = [grafts(other).get(source.name) for other in others if other.name == target.name]
    return next((one for one in reversed(found) if one), None)


COLUMNS = (
    ("direction of", ""),
    ("in", ""),
    ("", ""),
    ("forced", "harmless prompts refused when it is added"),
    ("suppressed", "refused prompts answered when it is ablated"),
    ("cosine", "to this model's own direction there; null: shuffled labels"),
    ("layer", "whose choice"),
    ("strength", "lengths of the direction"),
)


def matrix(readings: Sequence[Reading]) -> Told | None:
    """A row for every source in every target; None where no run transplanted. Of a target that was run again, with
    the same model settings and seed, the latest."""
    latest = {
        (source, reading.name, _settings(reading)): one
        for reading in readings
        for source, one in grafts(reading).items()
    }
    rows = [_row(source, target, one) for (source, target, _), one in sorted(latest.items(), key=lambda item: item[0])]
    return Told(SAID, rows) if rows else None


def _settings(reading: Reading) -> str:
    return json.dumps([reading.run.config.get(key) for key in ("model", "seed")], sort_keys=True)


def _row(source: str, target: str, one: Graft) -> list[Cell]:
    return [
        Cell(source),
        Cell(target),
        Cell(one["outcome"]),
        _rate(one, "force"),
        _rate(one, "suppress"),
        Cell(plain(one["cosine"]), f"null {plain(one['cosine_null'])}"),
        Cell(str(one["layer"]), one["place"]),
        Cell(plain(one["strength"])),
    ]


def _rate(one: Graft, name: str) -> Cell:
    share = Scalar(name, one[name], (one[f"{name}_low"], one[f"{name}_high"]), one[f"{name}_n"], one[f"{name}_null"])
    if not known(share.value):
        return Cell("–", "nothing to turn over")
    return Cell(percent(share.value), f"{detail(share, percent)} · p{TIED}{plain(one[f'{name}_p'])}")
