"""Pure functions of logits or of projections on a direction."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
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


def separation(harmful: Float[np.ndarray, " _"], harmless: Float[np.ndarray, " _"]) -> float:
    """Distance of the two means in standard deviations within a class (d'), positive where harmful lies higher."""
    within = np.sqrt((harmful.var(ddof=1) + harmless.var(ddof=1)) / 2)
    return float((harmful.mean() - harmless.mean()) / within) if within > 0 else 0.0


def auroc(harmful: Float[np.ndarray, " _"], harmless: Float[np.ndarray, " _"]) -> float:
    """Probability that a harmful prompt projects higher than a harmless one; 0.5 is chance."""
    ranks = rankdata(np.concatenate([harmful, harmless]))  # a tenth of sklearn's time, which nulls take by the thousand
    n, m = len(harmful), len(harmless)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
