"""Methods: one file, one YAML, one test file each."""

from abc import abstractmethod
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from rcm.judges import Judge
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.results import Result
from rcm.settings import Settings

T = TypeVar("T")


class Method(Settings):
    """A method is its settings and a function from a model, prompts and a judge to results."""

    def check(self) -> None:
        """Raise InputError where something that the method needs is not there; called before weights load."""

    @abstractmethod
    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        """Yield each result as soon as it is known."""


def collected(step: Generator[Result, None, T]) -> tuple[dict[str, Any], T]:
    """All results of a step by name, and what it returns: for work in memory."""
    results: dict[str, Any] = {}
    while True:
        try:
            result = next(step)
        except StopIteration as end:
            return results, end.value
        results[result.name] = result
