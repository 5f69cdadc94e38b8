"""Effects of single components over many pairs: shares of the gap, their intervals, and which of them are real.

Share, interval and p-value are of one quantity: what a component changes in a pair, in gaps of that pair
(`Interchange.shares`), over the pairs that have a gap either way. Under swapped labels such a figure changes its sign
and its way, and the choice of pairs does not change at all, so the p-values are exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from rcm.execution.components import Component, Kind
from rcm.patching.interchange import Interchange
from rcm.stats import FEWEST, label_swap_max_t, mean_interval

Cells = Float[np.ndarray, " cell"]
Draws = Float[np.ndarray, " draw"]
Shares = Float[np.ndarray, "pair cell"]
ALPHA = 0.05
WAYS = ("necessity", "sufficiency")
LOST = {"necessity": "lost", "sufficiency": "gained"}  # of refusing


@dataclass(frozen=True)
class ShareEstimates:
    """Mean share of the gap for each cell, its 95 % interval (NaN where pairs are too few), and its p-value over all
    cells."""

    share: Cells
    low: Cells
    high: Cells
    p: Cells

    def critical(self, min_share: float) -> Bool[np.ndarray, " cell"]:
        """Significant, and certainly larger than `min_share`, for refusing or against it."""
        return (self.p <= ALPHA) & ((self.low > min_share) | (self.high < -min_share))

    def lacking(self, cell: int, min_share: float) -> str:
        """What a cell lacks to be critical; empty where it lacks nothing."""
        if self.critical(min_share)[cell]:
            return ""
        if self.p[cell] > ALPHA:
            return f"p = {self.p[cell]:.2g} over all cells"
        if math.isnan(self.low[cell]):
            return f"fewer than {FEWEST} pairs, so no interval"
        return "share not certainly above min_share"


@dataclass(frozen=True)
class Effects:
    """What each component does, both ways. `shares` are those of each pair with a gap, for further resampling."""

    components: Sequence[Component]
    necessity: ShareEstimates
    sufficiency: ShareEstimates
    shares: Shares  # mean of the two ways
    with_gap: Bool[np.ndarray, " any_pair"]

    @classmethod
    def of(
        cls,
        study: Interchange,
        components: Sequence[Component],
        min_gap: float,
        seed: int,
        categories: Sequence[str] = (),
    ) -> "Effects":
        """From the pairs whose gap is at least `min_gap`, whichever prompt is refused more; `categories`: of all pairs,
        which intervals go by."""
        with_gap = study.gap.abs() >= min_gap
        necessity, sufficiency = study.where(with_gap).shares.numpy()
        none = np.ones(len(components))
        p = label_swap_max_t(necessity, sufficiency, seed) if with_gap.any() else (none, none)
        clusters = [category for category, kept in zip(categories, with_gap.tolist(), strict=bool(categories)) if kept]
        return cls(
            components,
            estimate(necessity, p[0], clusters),
            estimate(sufficiency, p[1], clusters),
            (necessity + sufficiency) / 2,
            with_gap.numpy(),
        )

    @property
    def share(self) -> Cells:
        """Of both ways together: what everything that is shown is ranked by."""
        return mean_over_pairs(self.shares)

    def of_kind(self, kind: Kind) -> list[int]:
        """The cells of one kind of component."""
        return [cell for cell, component in enumerate(self.components) if component.kind == kind]

    def critical(self, min_share: float) -> Bool[np.ndarray, " cell"]:
        """Critical in at least one way."""
        return self.necessity.critical(min_share) | self.sufficiency.critical(min_share)

    def strongest_first(self, cells: Sequence[int]) -> list[int]:
        """These cells, for refusing or against it."""
        return [cells[place] for place in np.argsort(-np.abs(self.share[list(cells)]), kind="stable")]

    def lacking(self, cell: int, min_share: float) -> str:
        """Why a cell is not critical, in the way in which it does more; empty where it is."""
        if self.critical(min_share)[cell]:
            return ""
        return max(self.necessity, self.sufficiency, key=lambda way: abs(way.share[cell])).lacking(cell, min_share)


def estimate(shares: Shares, p: Cells, clusters: Sequence[str] = ()) -> ShareEstimates:
    """Of shares that pairs have in each cell, and the cells' p-values; `clusters`: the category of each pair."""
    ends = [mean_interval(cell, clusters) or (math.nan, math.nan) for cell in shares.T]
    low, high = np.array(ends).reshape(-1, 2).T
    return ShareEstimates(mean_over_pairs(shares), low, high, p)


def mean_over_pairs(shares: Shares) -> Cells:
    """NaN where there are no pairs."""
    return shares.mean(0) if len(shares) else np.full(shares.shape[1], np.nan)


def stability(shares: Shares, top: int, seed: int, draws: int = 200) -> tuple[Draws, Draws]:
    """How alike the ranking of cells by |share| is when pairs are resampled: Spearman's rho over all, Jaccard index of
    the first `top`; one value for each draw."""
    draw = np.random.default_rng(seed)
    whole = np.abs(shares.mean(0))
    first = set(np.argsort(-whole)[:top])
    rho, jaccard = [], []
    for _ in range(draws):
        again = np.abs(shares[draw.integers(len(shares), size=len(shares))].mean(0))
        leading = set(np.argsort(-again)[:top])
        rho.append(spearmanr(whole, again).statistic)
        jaccard.append(len(first & leading) / len(first | leading))
    return np.array(rho), np.array(jaccard)
