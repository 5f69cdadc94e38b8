"""Conditions of an experiment, and the rows that prompts make under them. Any rows of one operation share a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rcm.prompts import Prompt

Operation = Literal["none", "add", "ablate", "clamp", "affine", "conditional"]
Kind = Literal["harmful", "harmless"]
Asked = Mapping[Kind, Sequence[tuple[int, Prompt]]]  # prompts of each kind, with their numbers
Budget = Literal["", "reached", "not reached", "as adding"]
OURS, RANDOM, SHUFFLED = "refusal direction", "random", "shuffled labels"
FAMILIES = (OURS, RANDOM, SHUFFLED)
UNSTEERED = 0.0


@dataclass(frozen=True)
class Trial:
    """One prompt under one intervention. `strength` in natural norms; negative strengths push away from refusing.
    `direction` is `refusal direction`, `random 3` or `shuffled labels 1`."""

    kind: Kind
    index: int
    prompt: Prompt
    operation: Operation
    strength: float
    direction: str = OURS


@dataclass(frozen=True, eq=False)
class Condition:
    """What is done to prompts of a kind. `strengths`: of each direction of a family. `budget`: where they were sought
    at equal KL, whether they all cost it, or, of the condition, that they are those of adding."""

    kind: Kind
    operation: Operation
    family: str
    strengths: Mapping[str, float]
    budget: Budget = ""

    @property
    def equal_kl(self) -> bool:
        return self.budget != ""

    @property
    def strength(self) -> float:
        """The mean of its directions'."""
        return float(np.mean(list(self.strengths.values())))

    def trial(self, index: int, prompt: Prompt) -> Trial:
        """Every prompt meets one direction of the family, drawn by its number: in turn would give each direction some
        categories only, since prompts cycle through them. So the rate is that of a direction of this kind, on average;
        where directions are told apart, each meets every prompt (`rcm.steering.headline`)."""
        names = list(self.strengths)
        direction = names[int(np.random.default_rng(index).integers(len(names)))]
        return Trial(self.kind, index, prompt, self.operation, self.strengths[direction], direction)


def family_of(direction: str) -> str:
    """The name without its number."""
    return direction.rstrip("0123456789").strip()


def members(family: str, controls: int) -> list[str]:
    """The directions of a family."""
    return [family] if family == OURS else [f"{family} {i}" for i in range(1, controls + 1)]


def conditions(
    kind: Kind, operation: Operation, strengths: Sequence[float], controls: int, families: Sequence[str] = FAMILIES
) -> list[Condition]:
    """Every strength with every family that has a direction."""
    return [
        Condition(kind, operation, family, dict.fromkeys(members(family, controls), strength))
        for family in families
        if family == OURS or controls
        for strength in strengths
    ]
