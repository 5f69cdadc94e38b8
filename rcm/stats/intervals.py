"""Intervals of 95 %. Below a stated n there is none, rather than one that does not hold; all draws come from a seed.

rates    Wilson's (1927); where prompts come in categories, with the effective number of prompts and the quantile of
         t that the number of categories allows (Korn and Graubard 1998, Survey Methodology 24:193)
means    t's over prompts, or over categories
others   BCa bootstrap (Efron 1987); by categories, the delete-one jackknife with t's quantile (Shao and Tu 1995)
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import norm, t

Samples = Float[np.ndarray, " _"]  # the two groups differ in number
Statistic = Callable[[Samples, Samples], float]  # of harmful and harmless, in this order
Interval = tuple[float, float]
FEWEST = (
    8  # of a group, below which there is no interval: at 4 a bootstrap's covers 76 % instead of 95 in a skewed case
)
FEWEST_CLUSTERS = 5


class Estimate(NamedTuple):
    """A value with its 95 % interval; NaN where there was nothing to measure."""

    value: float
    low: float
    high: float


def wilson(successes: int | float, n: int | float, quantile: float = float(norm.ppf(0.975))) -> Interval:
    """Wilson's interval of a rate: honest at few prompts and at rates of 0 and 1. `n` may be an effective number."""
    p, square = successes / n, quantile**2 / n
    middle, half = p + square / 2, quantile * math.sqrt(p * (1 - p) / n + square / (4 * n))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def rate_interval(hits: Bool[np.ndarray, " prompt"], clusters: Sequence[str] = ()) -> Interval:
    """Of a share of prompts; `clusters` names the category of each, and none or empty ones are no categories."""
    n, quantile = counted(hits, clusters)
    return wilson(float(hits.mean()) * n, n, quantile)


def counted(hits: Bool[np.ndarray, " prompt"], clusters: Sequence[str] = ()) -> tuple[float, float]:
    """For how many independent prompts these count, and the quantile that the interval of their share takes."""
    names = _names(clusters)
    if len(names) < FEWEST_CLUSTERS:
        return float(len(hits)), float(norm.ppf(0.975))
    right = np.array([hits[rows].sum() for rows in names.values()], dtype=float)
    of = np.array([len(rows) for rows in names.values()], dtype=float)
    return effective_number(right, of), float(t.ppf(0.975, len(names) - 1))


def effective_number(hits: Float[np.ndarray, " cluster"], of: Float[np.ndarray, " cluster"]) -> float:
    """How many independent ones would vary as much as the clusters do; never more than there are."""
    n, groups, rate = of.sum(), len(of), hits.sum() / of.sum()
    of_clusters = groups / max(groups - 1, 1) * ((hits - rate * of) ** 2).sum() / n**2
    of_single = rate * (1 - rate) / n
    return float(n / max(1.0, of_clusters / of_single)) if of_single else float(n)


def paired_difference_interval(
    before: Bool[np.ndarray, " prompt"], after: Bool[np.ndarray, " prompt"], clusters: Sequence[str] = ()
) -> Interval:
    """Of the difference between two shares of the same prompts (Agresti and Min 2005, Stat Med 24:729: half a prompt
    more in each of the four cells, so that no difference at all is not taken for certain); by category as wide as the
    jackknife over categories, where that is wider."""
    n = len(before) + 2
    gained, lost = (float((one & ~other).sum()) + 0.5 for one, other in ((after, before), (before, after)))
    middle = (gained - lost) / n
    half = float(norm.ppf(0.975)) * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    low, high = middle - half, middle + half
    differences = after.astype(float) - before
    by_category = by_cluster(lambda index: float(differences[index].mean()), clusters) or (low, high)
    return max(-1.0, min(low, by_category[0])), min(1.0, max(high, by_category[1]))


def mean_interval(values: Samples, clusters: Sequence[str] = ()) -> Interval | None:
    """Of a mean; None below `FEWEST`."""
    names = _names(clusters)
    if len(names) >= FEWEST_CLUSTERS:
        return by_cluster(lambda index: float(values[index].mean()), clusters)
    if len(values) < FEWEST:
        return None
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def bootstrap(statistic: Callable[..., float], *groups: Samples, seed: int, draws: int = 1000) -> Interval | None:
    """BCa interval of a statistic of one or more groups, each resampled with replacement; None where one is too small
    or nothing varies."""
    if min(map(len, groups)) < FEWEST:
        return None
    found = scipy_bootstrap(
        groups,
        statistic,
        n_resamples=draws,
        vectorized=False,
        paired=False,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return (float(found.low), float(found.high)) if math.isfinite(found.low + found.high) else None


def by_cluster(statistic: Callable[[Int[np.ndarray, " _"]], float], clusters: Sequence[str]) -> Interval | None:
    """Of a statistic of the prompts with these indices, where whole categories would be drawn anew: each is left out in
    turn. None below `FEWEST_CLUSTERS`."""
    names = _names(clusters)
    if len(names) < FEWEST_CLUSTERS:
        return None
    everyone = np.arange(len(clusters))
    value = statistic(everyone)
    without = np.array([statistic(np.setdiff1d(everyone, rows)) for rows in names.values()])
    groups = len(names)
    error = math.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    half = float(t.ppf(0.975, groups - 1)) * error
    return value - half, value + half


def _names(clusters: Sequence[str]) -> dict[str, Int[np.ndarray, " prompt"]]:
    """Which prompts each category has; prompts without a category are in none, and then there are no categories."""
    if not all(clusters):
        return {}
    column = np.asarray(clusters)
    return {name: np.flatnonzero(column == name) for name in dict.fromkeys(clusters)}
