"""The strength at which steering costs a given KL, so that operations and controls are compared at equal cost.

Steering-lite calibrates so; equal strengths of two directions are not equal interventions. The KL over strength is
close to a power law, so the next guess is where a straight line between the two measured neighbours, in logarithms,
meets the budget; every guess is measured, and the last one counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rcm.prompts import Prompt
from rcm.steering.conditions import Kind, Operation, Trial
from rcm.steering.runner import SteeringRunner

CLOSE = 0.1  # of the budget
ROUNDS = 8
Measured = Callable[[Sequence[int], Sequence[float]], Sequence[float]]  # KL of some directions, each at its strength


class Way(NamedTuple):
    """An operation, and the kind of prompts that it is for: harmful ones are pushed away from refusing."""

    operation: Operation
    kind: Kind

    @property
    def sign(self) -> int:
        return 1 if self.kind == "harmless" else -1


@dataclass(frozen=True)
class Reached:
    """`kl` was measured at `strength`. Where it is not near the budget, no strength within reach has that KL."""

    strength: float
    kl: float
    reached: bool


@dataclass
class _Search:
    """A budget between two measured strengths; each is (strength, KL)."""

    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    guess: float = 1.0
    kl: float = math.nan

    def learn(self, kl: float, budget: float) -> None:
        self.kl = kl
        if kl < budget:
            self.low = self.guess, kl
        else:
            self.high = self.guess, kl

    def next(self, budget: float, most: float) -> float:
        if self.low is None or self.high is None:  # KL grows about as the square, near zero
            factor = math.sqrt(budget / self.kl) if self.kl > 0 else math.inf
            return min(self.guess * min(max(factor, 0.25), 4.0), most)
        (low, before), (high, after) = self.low, self.high
        share = math.log(budget / before) / math.log(after / before) if 0 < before < after else 0.5
        share = min(max(share, 0.1), 0.9)  # never stuck at one end
        return low * (high / low) ** share


def strengths(
    runner: SteeringRunner, way: Way, names: Sequence[str], harmless: Sequence[Prompt], budget: float, most: float
) -> dict[str, Reached]:
    """For each of these directions, the strength at which steering so costs the budget on harmless prompts."""

    def measured(which: Sequence[int], at: Sequence[float]) -> list[float]:
        pushed = [(names[i], way.sign * strength) for i, strength in zip(which, at, strict=True)]
        rows = [[Trial(way.kind, i, p, way.operation, s, name) for name, s in pushed] for i, p in enumerate(harmless)]
        return runner.kl(rows, f"steering: {way.operation} at equal KL").mean(0).tolist()

    return dict(zip(names, strengths_at(budget, measured, len(names), most), strict=True))


def strengths_at(budget: float, measured: Measured, directions: int, most: float) -> list[Reached]:
    """For each direction the strength whose KL is the budget, at most `most`."""
    searches = [_Search(guess=min(1.0, most)) for _ in range(directions)]
    going = list(range(directions))
    for _ in range(ROUNDS):
        for i, kl in zip(going, measured(going, [searches[i].guess for i in going]), strict=True):
            searches[i].learn(kl, budget)
        going = [i for i in going if not _done(searches[i], budget, most)]
        if not going:
            break
        for i in going:
            searches[i].guess = searches[i].next(budget, most)
    return [Reached(one.guess, one.kl, _near(one.kl, budget)) for one in searches]


def _done(search: _Search, budget: float, most: float) -> bool:
    return _near(search.kl, budget) or (search.guess >= most and search.kl < budget)


def _near(kl: float, budget: float) -> bool:
    return abs(kl / budget - 1) <= CLOSE
