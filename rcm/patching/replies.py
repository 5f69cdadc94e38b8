"""The two replies of a pair, whose likelihoods are a metric that looks further than the first token."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from rcm.execution.decoding import reply_tokens
from rcm.execution.passes import first_token
from rcm.models import LoadedModel
from rcm.stats.metrics import refusal_log_odds

Replies = Int[Tensor, "pair token"]


def own_replies(
    model: LoadedModel, pairs: Sequence[tuple[str, str]], refusal_tokens: tuple[int, ...], length: int
) -> tuple[list[int], Replies, Replies]:
    """Which pairs can be measured, and what the model says to the prompt of each that it would rather refuse, and to
    the other.

    Of every reply its first `length` tokens: a pair with a shorter one is left out, since it would have another metric
    than the rest, or all would have to be cut to it. A pair's labels have no part in any of this: the metric built on
    it stays as it is when they are swapped, which `rcm.stats.label_swap_max_t` needs.
    """
    sides = [list(side) for side in zip(*pairs, strict=True)]
    replies = [reply_tokens(model, side, length, label="patching: replies") for side in sides]
    kept = [i for i, both in enumerate(zip(*replies, strict=True)) if min(map(len, both)) == length]
    first, second = (torch.tensor([side[i] for i in kept], dtype=torch.long).reshape(-1, length) for side in replies)
    label = "patching: what is rather refused"
    odds = [
        first_token(model, side, lambda logits, _: refusal_log_odds(logits, refusal_tokens), label)[kept]
        for side in sides
    ]
    rather = (odds[0] >= odds[1])[:, None]
    return kept, torch.where(rather, first, second), torch.where(rather, second, first)
