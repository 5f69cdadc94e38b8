"""Transplants: what the direction of each source does in each target."""

import json
from collections.abc import Sequence

from rcm.comparison.reading import Reading
from rcm.comparison.transplants import Transplanted, transplants_into
from rcm.record.results import Scalar
from rcm.record.units import TIED, known, percent, plain
from rcm.report.figures import Cell, Told, detail

SAID = (
    "The mean difference of one model, brought into another. Null: the upper end of what random directions and "
    "directions of shuffled labels do there; p: against all of them (Fisher)."
)


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
        for source, one in transplants_into(reading).items()
    }
    rows = [_row(source, target, one) for (source, target, _), one in sorted(latest.items(), key=lambda item: item[0])]
    return Told(SAID, rows) if rows else None


def _settings(reading: Reading) -> str:
    return json.dumps([reading.run.config.get(key) for key in ("model", "seed")], sort_keys=True)


def _row(source: str, target: str, one: Transplanted) -> list[Cell]:
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


def _rate(one: Transplanted, name: str) -> Cell:
    share = Scalar(name, one[name], (one[f"{name}_low"], one[f"{name}_high"]), one[f"{name}_n"], one[f"{name}_null"])
    if not known(share.value):
        return Cell("–", "nothing to turn over")
    return Cell(percent(share.value), f"{detail(share, percent)} · p{TIED}{plain(one[f'{name}_p'])}")
