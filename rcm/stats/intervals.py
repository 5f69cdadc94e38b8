"""Intervals of 95 %; all draws come from a seed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest

Samples = Float[np.ndarray, " _"]  # the two groups differ in number
Statistic = Callable[[Samples, Samples], float]  # of harmful and harmless, in this order


class Estimate(NamedTuple):
    """A value with its 95 % interval; NaN where there was nothing to measure."""

    value: float
    low: float
    high: float


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
