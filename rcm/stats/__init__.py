"""Intervals, nulls, multiplicity, and (in `metrics`, `separability`) pure functions of logits and projections."""

from rcm.stats.intervals import Estimate, Samples, Statistic, bootstrap, wilson
from rcm.stats.multiplicity import label_swap_max_t
from rcm.stats.nulls import permuted_rates, trend

__all__ = [
    "Estimate",
    "Samples",
    "Statistic",
    "bootstrap",
    "label_swap_max_t",
    "permuted_rates",
    "trend",
    "wilson",
]
