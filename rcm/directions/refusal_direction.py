"""The direction that a run found, as later methods take it."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from rcm.record.results import Adapter, Outcome, Result, Tensors

SELECTED, NEAREST_MISS, NONE, TOO_FEW = "selected", "nearest_miss", "none", "too_few"
CHOSEN = (SELECTED, NEAREST_MISS)  # by what they cause
CAVEAT = "nearest miss"


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
    def chosen(self) -> bool:
        """Whether it was chosen by what it causes: selected by every filter, or the nearest miss. Else its place is
        merely the most separable one."""
        return self.outcome.value in CHOSEN

    def marked(self, result: Result) -> Result:
        """What was found by means of it; with a caveat where it is a nearest miss."""
        if self.outcome.value != NEAREST_MISS or isinstance(result, Tensors | Adapter):
            return result
        if isinstance(result, Outcome):
            return replace(result, caveat=CAVEAT, because=f"{result.because} Of a nearest miss, no selected direction.")
        return replace(result, caveat=CAVEAT)
