"""Pure functions of logits."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

CACHED = 2**22  # logits


def refusal_log_odds(
    logits: Float[Tensor, "prompt vocabulary"], refusal_tokens: tuple[int, ...]
) -> Float[Tensor, " prompt"]:
    """log p - log(1 - p), p the probability that the reply opens with a refusal token (Arditi et al. 2024, 2.4)."""
    refused, answered = first_token_probabilities(logits, refusal_tokens)
    return log_odds(refused.sum(-1), answered)


def log_odds(p: Float[Tensor, " prompt"], q: Float[Tensor, " prompt"]) -> Float[Tensor, " prompt"]:
    """log p - log q, of a probability and the one that is left."""
    return torch.log(p + 1e-8) - torch.log(q + 1e-8)


def first_token_probabilities(
    logits: Float[Tensor, "prompt vocabulary"], tokens: Sequence[int]
) -> tuple[Float[Tensor, "prompt token"], Float[Tensor, " prompt"]]:
    """Of some tokens, and of all others together; float64.

    The others are summed up without these tokens, not subtracted from one: so float32 is exact enough for the whole
    vocabulary, of which a copy in float64 would be an eighth of patching's time.
    """
    chosen = list(tokens)

    def of_some(some: Float[Tensor, "some vocabulary"]) -> tuple[Tensor, Tensor]:
        weights = (some - some.amax(-1, keepdim=True)).exp_()
        these = weights[:, chosen].double()
        if weights.requires_grad:
            weights = weights.clone()  # of what gradients go back through, nothing may change
        weights[:, chosen] = 0
        others = weights.sum(-1).double()
        total = these.sum(-1) + others
        return these / total[:, None], others / total

    # So many at a time as a cache holds: memory that is taken anew for all of them costs more than the arithmetic.
    these, others = zip(*map(of_some, logits.split(max(1, CACHED // logits.shape[-1]))), strict=True)
    return torch.cat(these), torch.cat(others)


def kl_divergence(
    before: Float[Tensor, "prompt vocabulary"], after: Float[Tensor, "prompt vocabulary"]
) -> Float[Tensor, " prompt"]:
    """KL(before || after) of the first token of the reply, in nats."""
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
