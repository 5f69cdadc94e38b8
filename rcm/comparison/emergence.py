"""Figures over the steps of training, from runs of `method=emergence` on checkpoints of one model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rcm.comparison.reading import Reading

METHOD = "emergence"
STEP = re.compile(r"step-?0*(\d+)/?$")  # of safety_tune's adapters (step-0040), and of Pythia's revisions (step143000)


@dataclass(frozen=True)
class Series:
    """Checkpoints of one model in order of training."""

    name: str
    steps: Sequence[int]
    readings: Sequence[Reading]

    @property
    def said(self) -> str:
        """When what was there first."""
        firsts = (
            ("Harmful and harmless prompts are told apart", self._first(_separates)),
            ("a direction causes refusing", self._first(_causes)),
            ("it refuses", self._first(_refuses)),
        )
        return (
            "; ".join(f"{what} {f'from step {step}' if step is not None else 'at no step'}" for what, step in firsts)
            + "."
        )

    def _first(self, holds: Callable[[Reading], bool]) -> int | None:
        return next((step for step, reading in zip(self.steps, self.readings, strict=True) if holds(reading)), None)


def _separates(reading: Reading) -> bool:
    found = reading.scalar("direction/separation")
    return bool(found and found.interval and found.null is not None and found.interval[0] > found.null)


def _causes(reading: Reading) -> bool:
    outcome = reading.outcome("direction/outcome")
    return outcome is not None and outcome.value == "selected"


def _refuses(reading: Reading) -> bool:
    outcome = reading.outcome("behaviour/outcome")
    return outcome is not None and outcome.value == "refusal"


def step_of(reading: Reading) -> int | None:
    """The training step that the adapter's folder, or else the revision, is named for; 0 without adapter."""
    adapter, revision = reading.setting("model", "adapter"), reading.setting("model", "revision")
    named = adapter or revision
    if named is None:
        return 0
    found = STEP.search(str(named))
    return int(found[1]) if found else None


def series(readings: Sequence[Reading]) -> list[Series]:
    """Of each model with two checkpoints or more; of equal steps the latest run."""
    found: dict[str, dict[int, Reading]] = {}
    for reading in readings:
        step = step_of(reading)
        if reading.run.choices["method"] == METHOD and step is not None:
            found.setdefault(reading.name, {})[step] = reading
    return [
        Series(name, sorted(steps), [steps[step] for step in sorted(steps)])
        for name, steps in found.items()
        if len(steps) > 1
    ]


def outside(readings: Sequence[Reading]) -> list[Reading]:
    """Those that are no checkpoint of a series."""
    inside = {reading.run.id for one in series(readings) for reading in one.readings}
    return [reading for reading in readings if reading.run.id not in inside]
