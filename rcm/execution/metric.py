"""What is measured on every patched run: a figure for each prompt and row, from the logits at the last tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from rcm.stats.metrics import refusal_log_odds

Logits = Float[Tensor, "prompt row keep vocabulary"]


@runtime_checkable
class Metric(Protocol):
    """`keep`: at how many of the last tokens it needs logits."""

    @property
    def keep(self) -> int: ...

    def of(self, index: Sequence[int]) -> "Metric":
        """The same metric for some of the prompts, in this order."""
        ...

    def __call__(self, logits: Logits) -> Float[Tensor, "prompt row"]: ...


@dataclass(frozen=True)
class LogOdds:
    """Log-odds that the reply opens with a refusal token."""

    refusal_tokens: tuple[int, ...]
    keep: int = 1

    def of(self, index: Sequence[int]) -> "LogOdds":
        return self

    def __call__(self, logits: Logits) -> Float[Tensor, "prompt row"]:
        prompts, rows = logits.shape[:2]
        return refusal_log_odds(logits.flatten(0, 2), self.refusal_tokens).view(prompts, rows)


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood in nats of a reply that the prompts were continued with; each prompt has its own, equally long."""

    reply: Int[Tensor, "prompt keep"]

    @property
    def keep(self) -> int:
        return self.reply.shape[1]

    def of(self, index: Sequence[int]) -> "Likelihood":
        return Likelihood(self.reply[list(index)])

    def __call__(self, logits: Logits) -> Float[Tensor, "prompt row"]:
        target = self.reply.to(logits.device)[:, None, :, None].expand(-1, logits.shape[1], -1, -1)
        return (logits.gather(-1, target).squeeze(-1) - logits.logsumexp(-1)).sum(-1).double()
