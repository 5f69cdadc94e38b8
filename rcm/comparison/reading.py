"""The stored runs as the page reads them: sorted into families and stages, each with what it reported."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from rcm.errors import InputError
from rcm.record.results import Outcome, Result, Scalar, Table
from rcm.record.storage import StoredRun

STAGES = ("base", "sft", "chat", "safety")  # as training goes
COMPARED = "map"  # the method whose runs stand side by side
DIRECTIONS = "direction/directions"
# What a step concludes that came to its figures; any other conclusion says why it came to none.
COMPLETE = {"direction": ("selected",), "patching": ("localised", "none"), "steering": ("steered", "unspecific")}
NOT_RUN, NOT_REPORTED = "It was not run.", "The run did not report it."
R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Reading:
    """A finished run and its results. `weights`: which weights and template it had, as noted beside its tensors."""

    run: StoredRun
    results: Sequence[Result]
    weights: Mapping[str, str]

    @classmethod
    def of(cls, run: StoredRun) -> "Reading":
        return cls(run, run.results(), _weights(run))

    @property
    def name(self) -> str:
        return self.run.choices["model"]

    @property
    def stage(self) -> str:
        return self.run.stage or "unknown stage"

    @cached_property
    def _named(self) -> Mapping[str, Result]:
        return {result.name: result for result in self.results}

    def scalar(self, name: str) -> Scalar | None:
        return self._get(Scalar, name)

    def outcome(self, name: str) -> Outcome | None:
        return self._get(Outcome, name)

    def why_without(self, name: str) -> str:
        """Why the run has no such result: its step was not run, or concluded something else first; empty if neither."""
        step = name.split("/")[0]
        outcome = self.outcome(f"{step}/outcome")
        if outcome is None:
            return NOT_RUN
        return "" if outcome.value in COMPLETE.get(step, (outcome.value,)) else outcome.because

    def table(self, name: str) -> Table | None:
        return self._get(Table, name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table by column; none where the run has no such table."""
        table = self.table(name)
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows] if table else []

    def every(self, kind: type[R]) -> list[R]:
        """All results of a kind, in the order in which they came."""
        return [result for result in self.results if isinstance(result, kind)]

    def setting(self, group: str, key: str) -> Any:
        """A value of the run's config, or None where there is none."""
        return self.run.config.get(group, {}).get(key)

    def _get(self, kind: type[R], name: str) -> R | None:
        result = self._named.get(name)
        return result if isinstance(result, kind) else None


def _weights(run: StoredRun) -> Mapping[str, str]:
    try:
        return run.metadata(DIRECTIONS)
    except InputError:  # a method without directions
        return {}


@dataclass(frozen=True)
class Family:
    """Models that may be compared, as far in training as they are in order."""

    name: str
    readings: Sequence[Reading]


@dataclass(frozen=True)
class Comparison:
    """`families`: finished runs of the main job. `others`: finished runs of other methods. `unfinished`: the rest."""

    families: Sequence[Family]
    others: Sequence[Reading]
    unfinished: Sequence[StoredRun]

    @classmethod
    def of(cls, runs: Iterable[StoredRun]) -> "Comparison":
        runs = list(runs)
        done = [Reading.of(run) for run in runs if run.status == "finished"]
        compared = [reading for reading in done if reading.run.choices["method"] == COMPARED]
        others = [reading for reading in done if reading.run.choices["method"] != COMPARED]
        return cls(_families(compared), others, [run for run in runs if run.status != "finished"])

    @property
    def compared(self) -> list[Reading]:
        return [reading for family in self.families for reading in family.readings]

    @property
    def finished(self) -> list[Reading]:
        return [*self.compared, *self.others]


def _families(readings: Sequence[Reading]) -> list[Family]:
    names = dict.fromkeys(_family(reading) for reading in readings)
    return [Family(name, sorted((r for r in readings if _family(r) == name), key=_place)) for name in names]


def _family(reading: Reading) -> str:
    return reading.run.family or "no family"


def _place(reading: Reading) -> tuple[int, str]:
    stage = reading.run.stage
    return STAGES.index(stage) if stage in STAGES else len(STAGES), reading.run.started
