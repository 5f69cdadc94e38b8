"""Conditions of an experiment, and the rows that prompts make under them. Any rows of one operation share a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rcm.prompts import Prompt

Operation = Literal["none", "add", "ablate", "clamp", "affine", "conditional"]
Kind = Literal["harmful", "harmless"]
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
    """What is done to prompts of a kind. `strengths`: of each direction of a family. `equal_kl`: whether they are those
    at which the KL budget is reached."""

    kind: Kind
    operation: Operation
    family: str
    strengths: Mapping[str, float]
    equal_kl: bool = False

    @property
    def strength(self) -> float:
        """The mean of its directions'."""
        return float(np.mean(list(self.strengths.values())))

    def trial(self, index: int, prompt: Prompt) -> Trial:
        """Directions take turns: every prompt is one trial of one of them, so Wilson's interval is over trials."""
        direction = list(self.strengths)[index % len(self.strengths)]
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
