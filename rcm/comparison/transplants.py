"""Transplants: what the direction of each source does in each target.

A source is the model that its run measured, wherever that run is known by its id; a target the model, the prompts and
the seed of the run that transplanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rcm.comparison.identity import conditions_of, data_of, seed_of, started, weights_of
from rcm.comparison.names import DECOMPOSITION, MATRIX
from rcm.comparison.reading import Reading


@dataclass(frozen=True)
class Transplant:
    """A source's direction in a target. `source`: the source's name for people; `source_run`: the id of the run that it
    was taken from, and `source_weights` which model that run measured, empty where the run is not at hand; `target`:
    the run that brought it in; `row`: what it did there, by column of `transplant/matrix`; `parts`: how the target's
    own direction decomposes along it, by operation and by column of `transplant/decomposition`; empty where it was not.
    """

    source: str
    source_run: str
    source_weights: str
    target: Reading
    row: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


def all_transplants(readings: Sequence[Reading]) -> list[Transplant]:
    """Of all these runs, as they started."""
    weights = {reading.run.id: weights_of(reading) for reading in readings}
    return [
        Transplant(str(row["source"]), id, weights.get(id, ""), reading, row, _parts(reading, id))
        for reading in sorted(readings, key=started)
        for row in reading.rows(MATRIX)
        for id in [str(row.get("run", ""))]
    ]


def _parts(reading: Reading, source_run: str) -> dict[str, Mapping[str, Any]]:
    rows = reading.rows(DECOMPOSITION)
    return {str(row["operation"]): row for row in rows if str(row["run"]) == source_run}


def latest_transplants(found: Sequence[Transplant]) -> list[Transplant]:
    """Of each source in each target, transplanted with equal settings, the latest."""
    latest = {
        (
            one.source_weights or one.source_run or one.source,
            weights_of(one.target),
            data_of(one.target),
            seed_of(one.target),
            conditions_of(one.target),
        ): one
        for one in found
    }
    return sorted(latest.values(), key=lambda one: (one.source, one.target.name, started(one.target), one.source_run))


def transplanted(source: Reading, target: Reading, found: Sequence[Transplant]) -> Transplant | None:
    """From one run's model into another's, on the other's prompts and with its seed: the latest from this very run, or
    else from any run of its model."""
    into = [one for one in found if _where(one.target) == _where(target)]
    exact = [one for one in into if one.source_run == source.run.id]
    alike = [one for one in into if one.source_weights == weights_of(source)]
    return next(reversed(exact or alike), None)


def _where(reading: Reading) -> tuple[object, ...]:
    return weights_of(reading), data_of(reading), seed_of(reading)
