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


def refusal_openings(harmful: Float[Tensor, " vocabulary"], harmless: Float[Tensor, " vocabulary"]) -> list[Opening]:
    """The tokens that open refusals, from the mean probabilities of each as the first of a reply
    (`rcm.execution.passes.mean_probabilities`); the most telling first."""
    surplus, tokens = torch.topk(harmful - harmless, min(MOST_TOKENS, len(harmful)))
    return [
        Opening(int(token), float(harmful[token]), float(harmless[token]))
        for gain, token in zip(surplus, tokens, strict=True)
        if gain >= LEAST_SURPLUS
    ]
