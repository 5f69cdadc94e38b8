"""Which runs of a family are compared with which.

The earliest stage is held against each model of a later one. A model is its weights. Where the earliest stage has
several, each later model is held against the one with which it shares most prompts and seeds; among equals the one of
its dtype, then one without adapter, then the first that was run.

Where a family has benign twins (tuned alike, with nothing to refuse), its other later models are held against these,
too: what safety tuning changed is what any tuning did not.

Runs are compared one to one, on the same prompts and with the same seed. Where there are several of either model (other
methods, another judge, a sweep over settings), those with equal settings belong together; if no two have, the two that
agree in judge and in most methods, then the latest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from rcm.comparison.families import Family, rank
from rcm.comparison.identity import conditions_of, data_of, judge_of, seed_of, started, weights_of
from rcm.comparison.reading import Reading
from rcm.record.run import BENIGN

Model = Sequence[Reading]  # the runs of equal weights


@dataclass(frozen=True)
class Held:
    """A later model held against an earlier one; `joined` may be empty."""

    earlier: Model
    later: Model
    joined: Sequence[tuple[Reading, Reading]]


@dataclass(frozen=True)
class Pairing:
    """A family as it is compared: its models of the earliest stage, those of later ones, and what is held against what.
    A later model with the weights of an earlier one is held against none."""

    earlier: Sequence[Model]
    later: Sequence[Model]
    held: Sequence[Held]

    @classmethod
    def of(cls, family: Family) -> "Pairing":
        earlier, later = _models(family)
        known = {weights_of(model[0]) for model in earlier}
        tuned = [model for model in later if weights_of(model[0]) not in known]
        held = [_held(_reference(earlier, model), model) for model in tuned]
        benign = [model for model in tuned if model[0].stage == BENIGN]
        others = [model for model in tuned if model[0].stage != BENIGN]
        return cls(earlier, later, [*held, *(_held(twin, model) for twin in benign for model in others)])


def _models(family: Family) -> tuple[list[Model], list[Model]]:
    """Those of the earliest stage, and those of all later ones."""
    first = min(map(rank, family.readings))
    sides: tuple[dict[str, list[Reading]], dict[str, list[Reading]]] = {}, {}
    for reading in family.readings:
        sides[rank(reading) > first].setdefault(weights_of(reading), []).append(reading)
    return list(sides[0].values()), list(sides[1].values())


def _reference(earlier: Sequence[Model], later: Model) -> Model:
    def preference(model: Model) -> tuple[object, ...]:
        shared = {cell_of(reading) for reading in model} & {cell_of(reading) for reading in later}
        other_dtype = model[0].setting("model", "dtype") != later[0].setting("model", "dtype")
        adapted = model[0].setting("model", "adapter") is not None
        return -len(shared), other_dtype, adapted, min(map(started, model))

    return min(earlier, key=preference)


def cell_of(reading: Reading) -> tuple[object, ...]:
    """What two runs must have in common to be compared: prompts and seed."""
    return data_of(reading), seed_of(reading)


def _held(earlier: Model, later: Model) -> Held:
    cells = dict.fromkeys(cell_of(reading) for reading in earlier)
    joined = [
        two
        for cell in cells
        for two in _joined(*([one for one in model if cell_of(one) == cell] for model in (earlier, later)))
    ]
    return Held(earlier, later, joined)


def _joined(before: Model, after: Model) -> list[tuple[Reading, Reading]]:
    """Runs on the same prompts and with the same seed, one to one."""
    if not before or not after:
        return []
    by_conditions = [{conditions_of(one): one for one in sorted(model, key=started)} for model in (before, after)]
    alike = [(one, by_conditions[1][how]) for how, one in by_conditions[0].items() if how in by_conditions[1]]
    return alike or [max(product(before, after), key=lambda two: _likeness(*two))]


def _likeness(before: Reading, after: Reading) -> tuple[object, ...]:
    same_judge, methods = judge_of(before) == judge_of(after), before.reporting & after.reporting
    return same_judge, len(methods), started(after), started(before)
