"""The direction that a run found, as later methods take it."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from rcm.record.results import Adapter, Outcome, Result, Tensors, Word, Words

SELECTED, NEAREST_MISS, NONE, TOO_FEW = "selected", "nearest_miss", "none", "too_few"
NO_REFUSAL = "no_refusal_behaviour"  # also of a model whose replies nobody judged
WORDS: Words = {
    SELECTED: Word(
        "a direction passes every filter: ablating it lets refusals pass, adding it makes harmless prompts refused, "
        "and ablating it costs harmless prompts little",
        "See whether it steers in text beyond its controls (method steering).",
    ),
    NEAREST_MISS: Word(
        "no direction passes every filter; what follows is of the one that misses them by least",
        "Read which filter it fails and by how much; its figures are marked wherever they stand.",
    ),
    NONE: Word(
        "no direction passes every filter, or none was scored",
        "Look at more positions (method.direction.positions=null), or let the nearest miss stand "
        "(method.direction.strict=false).",
    ),
    TOO_FEW: Word("there are too few prompts to choose a direction by", "Use more training and validation prompts."),
    NO_REFUSAL: Word(
        "too few prompts are about to be refused, or no token opens refusals: there is nothing to choose "
        "a direction by",
        "Map a model that refuses, or prompts that this one refuses (dataset=...).",
    ),
}
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
