"""Pure functions of logits."""

import torch
from jaxtyping import Float
from torch import Tensor


def refusal_log_odds(
    logits: Float[Tensor, "prompt vocabulary"], refusal_tokens: tuple[int, ...]
) -> Float[Tensor, " prompt"]:
    """log p - log(1 - p), p the probability that the reply opens with a refusal token (Arditi et al. 2024, 2.4).

    What does not refuse is summed up without the refusal tokens, not subtracted from one: so float32 is exact enough
    for the whole vocabulary, of which a copy in float64 would be an eighth of patching's time.
    """
    tokens = list(refusal_tokens)
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    refused = weights[:, tokens].double().sum(-1)
    weights[:, tokens] = 0
    answered = weights.sum(-1).double()
    p = refused / (refused + answered)
    return torch.log(p + 1e-8) - torch.log(answered / (refused + answered) + 1e-8)


def kl_divergence(
    before: Float[Tensor, "prompt vocabulary"], after: Float[Tensor, "prompt vocabulary"]
) -> Float[Tensor, " prompt"]:
    """KL(before || after) of the first token of the reply, in nats."""
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)
