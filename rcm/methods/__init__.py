"""Methods: one file, one YAML, one test file each.

A method is its settings and a function from a study to results. It says which findings of other methods it needs, which
it uses where they are there, and which it gives; several methods in one run are composed by that, not inherited.
"""

from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar, cast, get_args

from rcm.errors import InputError
from rcm.execution.seeding import seed_generators
from rcm.execution.work import Scope, Work
from rcm.judges import Judge, Verdict
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.results import SUMMARY, Result
from rcm.settings import Settings

Finding = TypeVar("Finding")
Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Study:
    """What a method works with: a model, prompts, a judge, and by type what the methods before it found."""

    model: LoadedModel
    prompts: Split
    judge: Judge
    seed: int
    findings: Mapping[type, Any] = field(default_factory=dict[type, Any])

    def __getitem__(self, kind: type[Finding]) -> Finding:
        """A finding that the method says it needs."""
        return cast(Finding, self.findings[kind])

    def get(self, kind: type[Finding]) -> Finding | None:
        """A finding that the method uses; None where no method of the run gives it."""
        return cast(Finding | None, self.findings.get(kind))

    def given(self, findings: Mapping[type, Any]) -> "Study":
        """The same with these findings."""
        return replace(self, findings=findings)


class Method(Settings):
    """`needs`: the types of findings without which it cannot run; `uses`: those that it takes where they are there;
    `gives`: the type of what it returns, or None; `judged`: whether it asks the judge; `examines`: whether it looks for
    what is wrong with a model, so that alone it runs where the checks before every run would stop. It is given what it
    names here, and nothing else: what it finds is kept under what it was given (`rcm.running.reuse`). So what it
    returns is a dataclass, or another type, of plain values, results, tensors and arrays; else it is found anew by each
    run."""

    needs: ClassVar[tuple[type, ...]] = ()
    uses: ClassVar[tuple[type, ...]] = ()
    gives: ClassVar[type | None] = None
    judged: ClassVar[bool] = True
    examines: ClassVar[bool] = False

    def check(self) -> None:
        """Raise InputError where something that the method needs is not there; called before weights load."""

    def work(self, scope: Scope) -> Sequence[Work] | None:
        """What it will ask of a model that refuses what is harmful and answers the rest, part by part, counted before
        weights load; None, as here, where it does not say. `python launch.py ... estimate=true` makes minutes and
        gigabytes of it."""
        return None

    @abstractmethod
    def run(self, study: Study) -> Generator[Result, None, Any]:
        """Yield each result as soon as it is known; return the finding, where the method gives one."""


def run_in_turn(methods: Mapping[str, Method], study: Study) -> Generator[Result, None, Study]:
    """Every result of every method; each finds in the study what those before it found. Return the study at the end."""
    for name, method in methods.items():
        found = yield from run_method(name, method, study)
        if method.gives is not None:
            study = study.given({**study.findings, method.gives: found})
    return study


def run_method(name: str, method: Method, study: Study) -> Generator[Result, None, Any]:
    """Every result of a method; return what it found.

    Each begins with the same seed, so that its figures do not depend on who drew before it, and what the judge loaded
    is let go when it ends. Raises InputError where it yields what is no result, does not return the finding that it
    says it gives, or takes what it does not say it takes.
    """
    seed_generators(study.seed)
    taken = {kind: study.findings[kind] for kind in (*method.needs, *method.uses) if kind in study.findings}
    judge = study.judge if method.judged else NotAsked(kappa=None, second=None, method=name)
    try:
        found = yield from _only_results(name, method.run(replace(study, findings=taken, judge=judge)))
    finally:
        judge.release()
    if method.gives is not None and not isinstance(found, method.gives):
        raise InputError(
            f"The method {name} says that it gives a {method.gives.__name__}, and returns a "
            f"{type(found).__name__}; return one, also where nothing was found."
        )
    return found


class NotAsked(Judge):
    """In place of the judge, for a method that says it asks none."""

    method: str

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        raise InputError(f"The method {self.method} asks the judge, and says judged = False; leave that away.")


def _only_results(name: str, step: Generator[Any, None, Returned]) -> Generator[Result, None, Returned]:
    while True:
        try:
            result = next(step)
        except StopIteration as end:
            return cast(Returned, end.value)
        if not isinstance(result, Result):
            kinds = ", ".join(kind.__name__ for kind in get_args(Result))
            raise InputError(f"The method {name} yields a {type(result).__name__}; a method yields results: {kinds}.")
        if result.name.startswith(f"{SUMMARY}/"):
            raise InputError(f"The method {name} yields {result.name}, a name of the run's own; call it {name}/...")
        yield result


def collected(step: Generator[Result, None, Returned]) -> tuple[dict[str, Any], Returned]:
    """All results of a step by name, and what it returns: for work in memory."""
    results: dict[str, Any] = {}
    while True:
        try:
            result = next(step)
        except StopIteration as end:
            return results, cast(Returned, end.value)
        results[result.name] = result
