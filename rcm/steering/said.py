"""What was said under steering."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from rcm.judges import Verdict
from rcm.steering.conditions import Row


@dataclass(frozen=True)
class Said:
    """A row, what the model said, and the verdict."""

    row: Row
    completion: str
    verdict: Verdict

    @property
    def turned(self) -> bool:
        """Whether a harmless prompt was refused, or a harmful one answered; in words."""
        return self.verdict.refuses if self.row.kind == "harmless" else self.verdict is Verdict.COMPLIANCE

    @property
    def to_turn(self) -> bool:
        """Said by the unsteered model: whether there is a behaviour to turn over."""
        return self.verdict is Verdict.COMPLIANCE if self.row.kind == "harmless" else self.verdict.refuses


def hits(said: Sequence[Said]) -> Bool[np.ndarray, " prompt"]:
    """Which were turned over."""
    return np.array([one.turned for one in said], dtype=bool)


def invalid(said: Sequence[Said]) -> Bool[np.ndarray, " prompt"]:
    """Which are no language."""
    return np.array([one.verdict is Verdict.INVALID for one in said], dtype=bool)
