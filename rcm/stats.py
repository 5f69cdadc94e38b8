"""Intervals and nulls. All are 95 %; all draws come from a seed."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import binomtest

Samples = Float[np.ndarray, " _"]  # the two groups differ in number
Statistic = Callable[[Samples, Samples], float]  # of harmful and harmless, in this order


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a rate (Wilson 1927): honest at few prompts and at rates of 0 and 1."""
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(statistic: Callable[..., float], *groups: Samples, seed: int, draws: int = 1000) -> tuple[float, float]:
    """Percentile interval of a statistic of one or more groups, each resampled with replacement."""
    random = np.random.default_rng(seed)
    drawn = (random.choice(group, (draws, len(group))) for group in groups)
    values = [statistic(*samples) for samples in zip(*drawn, strict=True)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


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
    return float(_exceeded(chance, np.array([(varied @ ranks).sum()]))[0])


def label_swap_max_t(
    necessity: Float[np.ndarray, "pair cell"], sufficiency: Float[np.ndarray, "pair cell"], seed: int, draws: int = 2000
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """p-values that hold for all cells of both maps together (Westfall and Young 1993, single-step max-T).

    If the labels meant nothing, the two prompts of a pair could change places. Then what harmful loses by a patch is
    what harmless would have gained, with the other sign: necessity and minus sufficiency change places. Swapping random
    pairs this way and keeping the largest |t| of all cells gives what chance alone reaches somewhere.
    """
    n = len(necessity)
    swaps = np.random.default_rng(seed).random((draws, n)) < 0.5
    observed, chance = [], []
    for kept, swapped in ((necessity, -sufficiency), (sufficiency, -necessity)):
        sums = kept.sum(0) + swaps @ (swapped - kept)
        squares = (kept**2).sum(0) + swaps @ (swapped**2 - kept**2)
        observed.append(np.abs(_t(kept.sum(0), (kept**2).sum(0), n)))
        chance.append(np.abs(_t(sums, squares, n)))
    largest = np.concatenate(chance, axis=1).max(1)
    first, second = (_exceeded(largest, t) for t in observed)
    return first, second


def _t(
    sums: Float[np.ndarray, "*draw cell"], squares: Float[np.ndarray, "*draw cell"], n: int
) -> Float[np.ndarray, "*draw cell"]:
    """Student's t of a mean against zero; 0 where nothing varies and nothing is there."""
    variance = np.maximum(squares - sums**2 / n, 1e-12 * squares) / max(n - 1, 1)
    return np.divide(sums / n, np.sqrt(variance / n), out=np.zeros_like(sums), where=variance > 0)


def _exceeded(chance: Float[np.ndarray, " draw"], values: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """How often chance is at least as large, counting the observation itself: never 0, so never an overstatement."""
    return (1 + (chance[:, None] >= values - 1e-9).sum(0)) / (1 + len(chance))
