"""Which finished runs stand side by side.

A column is a finished run that measured a model: of behaviour or of direction, whatever else it did. A checkpoint that
did no more than these two stands in its series (`rcm.comparison.emergence`), and is no column; the untuned model at the
beginning of a series is one nevertheless where its family has a later stage to be compared with.

A rerun replaces the run that it repeats. Runs of one model that differ in seed, prompts or settings stand side by side.
A model without a family stands alone: nobody said what it may be compared with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rcm.comparison.emergence import Checkpoints
from rcm.comparison.identity import conditions_of, data_of, seed_of, started, weights_of
from rcm.comparison.names import MEASURING, SUMMARY
from rcm.comparison.reading import Reading
from rcm.record.run import STAGES
from rcm.record.stored import StoredRun


@dataclass(frozen=True)
class Family:
    """Models that may be compared, as far in training as they are in order; runs of one model stand together."""

    name: str
    readings: Sequence[Reading]


@dataclass(frozen=True)
class Group:
    """Other finished runs, of the same methods; `title` names these."""

    title: str
    readings: Sequence[Reading]


@dataclass(frozen=True)
class LeftOut:
    """A finished run that was not compared with another, and why, in one sentence."""

    run: StoredRun
    why: str


def measured_a_model(reading: Reading) -> bool:
    return not {*reading.run.methods, *reading.reporting}.isdisjoint(MEASURING)


def without_reruns(readings: Sequence[Reading]) -> tuple[list[Reading], list[LeftOut]]:
    """The latest of runs that are alike in all that could change their figures, and why the others are left out."""
    latest = {_what(reading): reading for reading in sorted(readings, key=started)}
    replaced = [(reading, latest[_what(reading)]) for reading in readings if latest[_what(reading)] is not reading]
    return sorted(latest.values(), key=started), [
        LeftOut(earlier.run, f"{_repeated(earlier, later)} ({later.run.directory}).") for earlier, later in replaced
    ]


def _repeated(earlier: Reading, later: Reading) -> str:
    if earlier.run.id == later.run.id:
        return "Another folder holds a run of this id"
    return f"Run {later.run.id} repeats it, and started later"


def _what(reading: Reading) -> tuple[object, ...]:
    run = reading.run
    return run.family, run.stage, weights_of(reading), data_of(reading), seed_of(reading), conditions_of(reading)


def columns(readings: Sequence[Reading], checkpoints: Checkpoints) -> list[Reading]:
    """Of runs that measured a model, those that stand side by side."""
    apart = [reading for reading in readings if not (_no_more(reading) and reading.run.id in checkpoints.ids)]
    return [reading for reading in readings if reading in apart or _begins_a_family(reading, apart, checkpoints)]


def _no_more(reading: Reading) -> bool:
    return reading.reporting <= {*MEASURING, SUMMARY}


def _begins_a_family(reading: Reading, apart: Sequence[Reading], checkpoints: Checkpoints) -> bool:
    """Whether it is an untuned model whose family has another stage."""
    run = reading.run
    others = [one.run for one in apart if run.family is not None and one.run.family == run.family]
    return run.id in checkpoints.untuned and any(one.stage != run.stage for one in others)


def families(readings: Sequence[Reading]) -> list[Family]:
    """In order of appearance, each in the order of training."""
    sorted_out: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        family = reading.run.family
        key = ("weights", weights_of(reading)) if family is None else ("family", family)
        sorted_out.setdefault(key, []).append(reading)
    taken = [name for kind, name in sorted_out if kind == "family"]
    found: list[Family] = []
    for (kind, name), members in sorted_out.items():
        if kind == "weights":  # called after the model
            name = members[0].name if members[0].name not in taken else f"{members[0].name} ({members[0].run.id})"
            taken.append(name)
        found.append(Family(name, in_order(members)))
    return found


def in_order(readings: Sequence[Reading]) -> list[Reading]:
    """By stage, then by model (the one that was run first comes first), then by start."""
    first = {weights_of(reading): started(reading) for reading in sorted(readings, key=started, reverse=True)}
    return sorted(readings, key=lambda reading: (rank(reading), first[weights_of(reading)], started(reading)))


def rank(reading: Reading) -> int:
    """How far in training its stage is; what is not known comes last."""
    stage = reading.run.stage
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def groups(readings: Sequence[Reading]) -> list[Group]:
    """By methods, in order of appearance."""
    titles = [", ".join(reading.run.choices.get("method", "").split(",")) for reading in readings]
    return [
        Group(title, [reading for reading, its in zip(readings, titles, strict=True) if its == title])
        for title in dict.fromkeys(titles)
    ]
