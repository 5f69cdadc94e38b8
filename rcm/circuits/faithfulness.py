"""How much of the behaviour a set of components carries.

    f(C) = (m(C) - m(0)) / (m(N) - m(0))

with m the metric's mean over pairs when everything outside of C is ablated, N all components and 0 none: a ratio of
means, not a mean of ratios, which a few pairs with nearly no gap would rule. It is not clamped: a circuit may overshoot
(f > 1) or work against (f < 0). Its interval is the jackknife's over categories, or over pairs (`by_category`).

Over circuits of growing size (Mueller et al. 2025, MIB, arXiv:2504.13151), with k the share of components kept:

    CPR    area under f(k)               of a circuit that carries much early: high
    CMD    area between f(k) and 1       of one that does what the model does: zero
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from rcm.stats import FEWEST, Estimate, by_cluster, mean_interval

Scores = Float[np.ndarray, " pair"]
NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


def by_category(statistic: Callable[[Int[np.ndarray, " _"]], float], clusters: Sequence[str]) -> Estimate:
    """A statistic of the pairs with these indices. Its interval leaves out each category in turn, or each pair where
    there are fewer than five categories; NaN below eight pairs."""
    n = len(clusters)
    value = statistic(np.arange(n))
    alone = [str(pair) for pair in range(n)]
    interval = (by_cluster(statistic, clusters) or by_cluster(statistic, alone)) if n >= FEWEST else None
    return Estimate(value, *(interval or NOTHING[1:]))


def faithfulness(circuit: Scores, nothing: Scores, everything: Scores, clusters: Sequence[str] = ()) -> Estimate:
    """f(C) with its interval; NaN where what everything does is not certainly other than what nothing does, as then
    there is nothing to carry. `clusters`: the category of each pair."""
    gap = mean_interval(everything - nothing, clusters)
    if gap is None or gap[0] <= 0 <= gap[1]:
        return NOTHING

    def ratio(some: Scores, none: Scores, whole: Scores) -> float:
        return float((some.mean() - none.mean()) / (whole.mean() - none.mean()))

    each = np.stack([circuit, nothing, everything])
    return by_category(lambda index: ratio(*each[:, index]), clusters or [""] * len(circuit))


def areas(kept: Float[np.ndarray, " size"], faithful: Float[np.ndarray, " size"]) -> tuple[float, float]:
    """CPR and CMD, by trapezoids over the share of components kept, which runs from 0 to 1.

    MIB sums over nine sizes from .001 to 1; over as many sizes, from 0 on, these are the same areas.
    """
    if kept[0] != 0 or kept[-1] != 1 or (np.diff(kept) <= 0).any():
        raise ValueError(f"shares of components kept must rise from 0 to 1, not {kept.tolist()}")
    return float(np.trapezoid(faithful, kept)), float(np.trapezoid(np.abs(1 - faithful), kept))


def carried(kept: Scores, removed: Scores, nothing: Scores, everything: Scores) -> float:
    """How much of the behaviour a circuit carries: 1 where it does what the model does, and the rest what nothing does.

        1 - max(|1 - f(C)|, |f(not C)|)

    `kept`: the metric with only the circuit, `removed`: without it. Overshooting counts against it as falling short
    does. May be below 0.
    """
    gap = float((everything - nothing).mean())
    alone, rest = (float((one - nothing).mean()) / gap if gap else float("nan") for one in (kept, removed))
    return 1 - max(abs(1 - alone), abs(rest))
