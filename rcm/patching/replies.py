"""The two replies of a pair, whose likelihoods are a metric that looks further than the first token."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from rcm.execution.decoding import reply_tokens
from rcm.execution.passes import last_logits
from rcm.models import LoadedModel
from rcm.stats.metrics import refusal_log_odds

Replies = Int[Tensor, "pair token"]


def own_replies(
    model: LoadedModel, pairs: Sequence[tuple[str, str]], refusal_tokens: tuple[int, ...], most: int
) -> tuple[Replies, Replies]:
    """What the model says to the prompt of each pair that it would rather refuse, and to the other.

    As many tokens as the shortest reply has, at most `most`. A pair's labels have no part in it: the metric built on it
    stays as it is when they are swapped, which `rcm.stats.label_swap_max_t` needs.
    """
    sides = [list(side) for side in zip(*pairs, strict=True)]
    replies = [reply_tokens(model, side, most, label="patching: replies") for side in sides]
    length = min(_length(row, model) for side in replies for row in side)
    first, second = (torch.tensor([row[:length] for row in side]) for side in replies)
    odds = [refusal_log_odds(last_logits(model, side), refusal_tokens) for side in sides]
    rather = (odds[0] >= odds[1])[:, None]
    return torch.where(rather, first, second), torch.where(rather, second, first)


def _length(row: Sequence[int], model: LoadedModel) -> int:
    """Tokens of a reply before its padding, the one that ends the turn included."""
    stops = model.hf.generation_config.eos_token_id or []
    ends = [place for place, token in enumerate(row, start=1) if token in stops]
    return ends[0] if ends else len(row)
