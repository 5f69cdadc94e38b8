"""Which tokens open a refusal, found from the model itself.

A token counts if the model opens its replies to harmful prompts with it clearly more often than its replies to harmless
ones: mean probability on harmful training prompts less that on harmless ones. Fixed lists go wrong silently: two tokens
may both read "I" and only one of them ever be written.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.stats.metrics import first_token_probabilities, log_odds


class Opening(NamedTuple):
    """A token and its mean probability as the first of a reply."""

    token: int
    harmful: float
    harmless: float


class FirstTokens(NamedTuple):
    """How likely the reply to each prompt opens with each of some tokens, and with any other."""

    tokens: tuple[int, ...]
    these: Float[Tensor, "prompt token"]
    others: Float[Tensor, " prompt"]

    @classmethod
    def of(cls, logits: Float[Tensor, "prompt vocabulary"], tokens: Sequence[int]) -> "FirstTokens":
        return cls(tuple(tokens), *first_token_probabilities(logits, tokens))

    def log_odds(self, refusal_tokens: Sequence[int]) -> Float[Tensor, " prompt"]:
        """Of opening with one of these, which must be among the tokens."""
        if lacking := set(refusal_tokens) - set(self.tokens):
            raise ValueError(f"the probabilities of tokens {sorted(lacking)} were not kept")
        refusing = torch.tensor([token in refusal_tokens for token in self.tokens], dtype=torch.bool)
        return log_odds(self.these[:, refusing].sum(-1), self.others + self.these[:, ~refusing].sum(-1))


LEAST_SURPLUS = 0.02  # of probability mass; below it lies what mere chance between two sets of prompts shows
MOST_TOKENS = 8


def may_open(harmful: Float[Tensor, " vocabulary"]) -> list[int]:
    """The tokens that harmless prompts may yet show to open refusals: no others can exceed them by enough."""
    return torch.nonzero(harmful >= LEAST_SURPLUS)[:, 0].tolist()


def refusal_openings(
    harmful: Float[Tensor, " token"], harmless: Float[Tensor, " token"], tokens: Sequence[int] | None = None
) -> list[Opening]:
    """The tokens that open refusals, from the mean probabilities of each as the first of a reply; the most telling
    first. `tokens`: which the probabilities are of; None is the whole vocabulary
    (`rcm.execution.passes.mean_probabilities`)."""
    surplus, places = torch.topk(harmful - harmless, min(MOST_TOKENS, len(harmful)))
    return [
        Opening(int(place) if tokens is None else tokens[place], float(harmful[place]), float(harmless[place]))
        for gain, place in zip(surplus, places, strict=True)
        if gain >= LEAST_SURPLUS
    ]
