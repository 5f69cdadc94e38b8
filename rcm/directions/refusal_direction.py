"""The direction that a run found, as later methods take it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from rcm.record.results import Outcome

SELECTED, NONE, TOO_FEW = "selected", "none", "too_few"


@dataclass(frozen=True)
class RefusalDirection:
    """A direction at a place. `vector` has its natural length; `harmful` and `harmless` are the mean activations of the
    training prompts at its position. `shuffled` are mean differences at its place of labels that tell nothing, brought
    to its length. `refusal_tokens` open refusals; empty if none do. `positions`: all that were looked at."""

    position: int
    layer: int
    vector: Float[Tensor, " d_model"]
    harmful: Float[Tensor, "layer d_model"]
    harmless: Float[Tensor, "layer d_model"]
    shuffled: Float[Tensor, "control d_model"]
    refusal_tokens: tuple[int, ...]
    outcome: Outcome
    positions: tuple[int, ...]

    @property
    def selected(self) -> bool:
        """Whether it causes refusing, by every filter; else its place is merely the most separable one."""
        return self.outcome.value == SELECTED
