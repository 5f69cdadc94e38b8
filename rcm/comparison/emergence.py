"""Figures over the steps of training, from runs on checkpoints of one model.

A checkpoint is an adapter whose folder is named for a step (safety_tune's `step-0040`), or else a revision that is
(Pythia's `step143000`). Adapters belong together if they lie in one folder, that of their training, and have one base;
step 0 is that base without an adapter. In a series prompts, seed and judge are the same. Of one step the latest run
stands.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from rcm.comparison.identity import data_of, judge_of, seed_of, started, without
from rcm.comparison.names import BEHAVIOUR_OUTCOME, DIRECTION_OUTCOME, REFUSES, SELECTED, SEPARATION
from rcm.comparison.reading import Reading
from rcm.record.identity import NOT_WEIGHTS

STEP = re.compile(r"step-?0*(\d+)/?$")
Steps = dict[int, list[Reading]]  # the runs of each, as they started


@dataclass(frozen=True)
class Series:
    """Checkpoints of one model in order of training."""

    name: str
    steps: Sequence[int]
    readings: Sequence[Reading]

    @property
    def separates_from(self) -> int | None:
        """The first step at which it tells harmful from harmless prompts; None for none."""
        return self._first(_separates)

    @property
    def causes_from(self) -> int | None:
        """The first step at which a direction causes refusing."""
        return self._first(_causes)

    @property
    def refuses_from(self) -> int | None:
        """The first step at which it refuses."""
        return self._first(_refuses)

    @property
    def sentence(self) -> str:
        """What was there first."""
        firsts = (
            ("Harmful and harmless prompts are told apart", self.separates_from),
            ("a direction causes refusing", self.causes_from),
            ("it refuses", self.refuses_from),
        )
        parts = [f"{what} {'at no step' if step is None else f'from step {step}'}" for what, step in firsts]
        return "; ".join(parts) + "."

    def _first(self, holds: Callable[[Reading], bool]) -> int | None:
        return next((step for step, reading in zip(self.steps, self.readings, strict=True) if holds(reading)), None)


def _separates(reading: Reading) -> bool:
    found = reading.scalar(SEPARATION)
    return bool(found and found.interval and found.null is not None and found.interval[0] > found.null.value)


def _causes(reading: Reading) -> bool:
    outcome = reading.outcome(DIRECTION_OUTCOME)
    return outcome is not None and outcome.value == SELECTED


def _refuses(reading: Reading) -> bool:
    outcome = reading.outcome(BEHAVIOUR_OUTCOME)
    return outcome is not None and outcome.value == REFUSES


@dataclass(frozen=True)
class Training:
    """What checkpoints have in common. `named`: the setting that names their steps; `base`: all that is the same;
    `folder`: where a training's adapters lie."""

    named: str
    base: str
    folder: str = ""


@dataclass(frozen=True)
class Checkpoints:
    """`series`; of one step measured several times, `passed_over` has the ids of earlier runs, each with the id of the
    latest; `untuned`: the ids of all runs of step 0."""

    series: Sequence[Series]
    passed_over: Mapping[str, str]
    untuned: Set[str]

    @property
    def ids(self) -> set[str]:
        """Of all runs on checkpoints."""
        return {reading.run.id for one in self.series for reading in one.readings} | set(self.passed_over)


def step_of(reading: Reading) -> int | None:
    """The training step that the adapter's folder, or else the revision, is named for; 0 without either."""
    adapter, revision = reading.setting("model", "adapter"), reading.setting("model", "revision")
    named = adapter or revision
    if named is None:
        return 0
    found = STEP.search(str(named))
    return int(found[1]) if found else None


def checkpoints(readings: Sequence[Reading]) -> Checkpoints:
    """Of runs that measured a model: the series of each training with two checkpoints or more."""
    trainings: dict[Training, Steps] = {}
    untuned: dict[str, list[Reading]] = {}
    for reading in sorted(readings, key=started):
        step, adapter = step_of(reading), reading.setting("model", "adapter")
        if step is None:
            continue
        if adapter:
            training = Training("adapter", _base(reading, "adapter"), str(Path(adapter).parent))
        elif reading.setting("model", "revision"):
            training = Training("revision", _base(reading, "revision"))
        else:  # no revision is the finished model, so this is a step 0 of adapters alone
            untuned.setdefault(_base(reading, "adapter"), []).append(reading)
            continue
        trainings.setdefault(training, {}).setdefault(step, []).append(reading)
    for training, steps in trainings.items():
        if training.named == "adapter" and training.base in untuned:
            steps.setdefault(0, untuned[training.base])
    series = {one: dict(sorted(steps.items())) for one, steps in trainings.items() if len(steps) > 1}
    passed_over = {
        earlier.run.id: latest.run.id
        for steps in series.values()
        for *before, latest in steps.values()
        for earlier in before
    }
    beginnings = {reading.run.id for steps in series.values() for reading in steps.get(0, ())}
    named = _named_apart([_series(one, steps) for one, steps in series.items()], list(series))
    return Checkpoints(named, passed_over, beginnings)


def _base(reading: Reading, named: str) -> str:
    """What is the same for all checkpoints of a training: all but the setting that names the step."""
    model = without(reading.setting("model"), (*NOT_WEIGHTS, named))
    return json.dumps([model, data_of(reading), seed_of(reading), judge_of(reading)], sort_keys=True, default=str)


def _series(training: Training, steps: Steps) -> Series:
    readings = [of_step[-1] for of_step in steps.values()]
    run = readings[-1].run
    base = replace(run, config={**run.config, "model": {**run.config["model"], training.named: None}})
    return Series(base.label, list(steps), readings)


def _named_apart(found: Sequence[Series], trainings: Sequence[Training]) -> list[Series]:
    """Several series of one model say in their names what tells them apart."""
    names = [one.name for one in found]
    return [
        one
        if names.count(one.name) == 1
        else replace(one, name=f"{one.name} ({_distinction(one, Path(training.folder).name)})")
        for one, training in zip(found, trainings, strict=True)
    ]


def _distinction(one: Series, folder: str) -> str:
    choices = one.readings[-1].run.choices
    parts = (folder, choices.get("dataset"), f"seed {seed_of(one.readings[-1])}", choices.get("judge"))
    return ", ".join(part for part in parts if part)
