"""What was said under steering."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from rcm.judges import Verdict
from rcm.judges.redaction import transcript
from rcm.steering.conditions import Trial


@dataclass(frozen=True)
class SteeredReply:
    """A trial, what the model said, and the verdict."""

    trial: Trial
    completion: str
    verdict: Verdict

    @property
    def flipped(self) -> bool:
        """Whether a harmless prompt was refused, or a harmful one answered; in words."""
        return self.verdict.refuses if self.trial.kind == "harmless" else self.verdict is Verdict.COMPLIANCE

    @property
    def can_flip(self) -> bool:
        """Of a reply by the unsteered model: whether there is a behaviour to turn over."""
        return self.verdict is Verdict.COMPLIANCE if self.trial.kind == "harmless" else self.verdict.refuses


def categories(replies: Sequence[SteeredReply]) -> list[str]:
    """Of the prompts."""
    return [one.trial.prompt.category for one in replies]


def flipped(replies: Sequence[SteeredReply]) -> Bool[np.ndarray, " prompt"]:
    """Which were turned over."""
    return np.array([one.flipped for one in replies], dtype=bool)


def invalid(replies: Sequence[SteeredReply]) -> Bool[np.ndarray, " prompt"]:
    """Which are no language."""
    return np.array([one.verdict is Verdict.INVALID for one in replies], dtype=bool)


def steered_transcript(reply: SteeredReply, *, redact: bool) -> dict[str, str | float]:
    trial = reply.trial
    described = transcript(trial.kind, trial.prompt, reply.completion, reply.verdict, redact=redact)
    return {**described, "operation": trial.operation, "strength": trial.strength, "direction": trial.direction}
