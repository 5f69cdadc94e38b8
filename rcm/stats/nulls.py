"""What chance alone reaches: rates under shuffled labels, trends under permuted strengths."""

import numpy as np
from jaxtyping import Bool, Float, Real

from rcm.stats.multiplicity import exceeded


def permuted_rates(
    harmful: Bool[np.ndarray, " _"], harmless: Bool[np.ndarray, " _"], seed: int, draws: int = 10_000
) -> Float[np.ndarray, " draw"]:
    """Rates of the first group when the labels of both are shuffled: what the rate is if the label means nothing."""
    pooled = int(harmful.sum() + harmless.sum())
    rest = len(harmful) + len(harmless) - pooled
    return np.random.default_rng(seed).hypergeometric(pooled, rest, len(harmful), draws) / len(harmful)


def trend(
    responses: Real[np.ndarray, "prompt strength"] | Bool[np.ndarray, "prompt strength"], seed: int, draws: int = 10_000
) -> float:
    """p-value of a response that rises with strength, on the same prompts throughout; one-sided.

    Page's (1963) test: the sum over prompts of rank times response, with strengths permuted within each prompt. Were
    strength without effect, a prompt's responses could have come in any order, however much prompts differ. With hits
    and misses nearly everything is tied, so the null is drawn rather than looked up.
    """
    strengths = responses.shape[1]
    ranks = np.arange(strengths) - (strengths - 1) / 2
    random = np.random.default_rng(seed)
    varied = responses[responses.max(1) > responses.min(1)].astype(float)  # the others say the same in any order
    chance = np.zeros(draws)
    for prompt in varied:
        chance += random.permuted(np.tile(ranks, (draws, 1)), axis=1) @ prompt
    return float(exceeded(chance, np.array([(varied @ ranks).sum()]))[0])
