"""Intervals, nulls, multiplicity, and (in `metrics`, `separability`) pure functions of logits and projections."""

from rcm.stats.agreement import kappa_interval
from rcm.stats.draws import ENOUGH, FEWEST_DRAWS, Reached, reached
from rcm.stats.intervals import (
    FEWEST,
    FEWEST_CLUSTERS,
    Estimate,
    Interval,
    Samples,
    Statistic,
    bootstrap,
    by_cluster,
    mean_interval,
    paired_difference_interval,
    rate_interval,
    wilson,
)
from rcm.stats.misjudged import JudgeErrors, misjudged_interval
from rcm.stats.multiplicity import label_swap_max_t
from rcm.stats.nulls import permuted_rates, trend

__all__ = [
    "ENOUGH",
    "FEWEST",
    "FEWEST_CLUSTERS",
    "FEWEST_DRAWS",
    "Estimate",
    "Interval",
    "JudgeErrors",
    "Reached",
    "Samples",
    "Statistic",
    "bootstrap",
    "by_cluster",
    "kappa_interval",
    "label_swap_max_t",
    "mean_interval",
    "misjudged_interval",
    "paired_difference_interval",
    "permuted_rates",
    "rate_interval",
    "reached",
    "trend",
    "wilson",
]
