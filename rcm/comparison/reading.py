"""A finished run as it is read: its results by name, and why one is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from rcm.comparison.names import DIRECTIONS
from rcm.errors import InputError
from rcm.record.results import Outcome, Result, Scalar, Table
from rcm.record.stored import StoredRun

NOT_RUN, NOT_REPORTED = "It was not run.", "The run did not report it."
R = TypeVar("R", bound=Result)


def method_of(name: str) -> str:
    """The method that reports a result of this name."""
    return name.split("/")[0]


@dataclass(frozen=True, eq=False)  # arrays have no yes or no for an answer: a reading equals itself alone
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
        """The model's name for people."""
        return self.run.label

    @property
    def stage(self) -> str:
        return self.run.stage or "unknown stage"

    @cached_property
    def reporting(self) -> frozenset[str]:
        """The methods that reported anything."""
        return frozenset(method_of(result.name) for result in self.results)

    @cached_property
    def _named(self) -> Mapping[str, Result]:
        return {result.name: result for result in self.results}

    def scalar(self, name: str) -> Scalar | None:
        return self._get(Scalar, name)

    def outcome(self, name: str) -> Outcome | None:
        return self._get(Outcome, name)

    def why_without(self, name: str) -> str:
        """Why the run has no such result: its method was not run, or stopped before it, and why; empty if neither."""
        method = method_of(name)
        outcome = self.outcome(f"{method}/outcome")
        if outcome is not None:
            return "" if outcome.complete else outcome.because
        return "" if method in self.reporting or method in self.run.methods else NOT_RUN

    def table(self, name: str) -> Table | None:
        return self._get(Table, name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table by column; none where the run has no such table."""
        table = self.table(name)
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows] if table else []

    def every(self, kind: type[R]) -> list[R]:
        """All results of a kind, in the order in which they came."""
        return [result for result in self.results if isinstance(result, kind)]

    def setting(self, *path: str) -> Any:
        """A value of the run's config, such as `setting("method", "direction", "max_kl")`; None where there is none."""
        value: Any = self.run.config
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def _get(self, kind: type[R], name: str) -> R | None:
        result = self._named.get(name)
        return result if isinstance(result, kind) else None


def _weights(run: StoredRun) -> Mapping[str, str]:
    try:
        return run.metadata(DIRECTIONS)
    except InputError:  # a method without directions
        return {}
