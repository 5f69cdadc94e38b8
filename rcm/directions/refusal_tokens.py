"""Which tokens open a refusal, found from the model itself.

A token counts if the model opens its replies to harmful prompts with it clearly more often than its replies to harmless
ones: mean probability on harmful training prompts less that on harmless ones. Fixed lists go wrong silently: two tokens
may both read "I" and only one of them ever be written.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Opening(NamedTuple):
    """A token and its mean probability as the first of a reply."""

    token: int
    harmful: float
    harmless: float


LEAST_SURPLUS = 0.02  # of probability mass; below it lies what mere chance between two sets of prompts shows
MOST_TOKENS = 8


def refusal_openings(harmful: Float[Tensor, "_ vocabulary"], harmless: Float[Tensor, "_ vocabulary"]) -> list[Opening]:
    """The tokens that open refusals, from logits at the last token of the prompt; the most telling first."""
    on_harmful, on_harmless = harmful.softmax(-1).mean(0), harmless.softmax(-1).mean(0)
    surplus, tokens = torch.topk(on_harmful - on_harmless, min(MOST_TOKENS, harmful.shape[-1]))
    return [
        Opening(int(token), float(on_harmful[token]), float(on_harmless[token]))
        for gain, token in zip(surplus, tokens, strict=True)
        if gain >= LEAST_SURPLUS
    ]
