"""Effects of single components over many pairs: shares of the gap, their intervals, and which of them are real."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from rcm.execution.components import Component, Kind
from rcm.patching.interchange import Figures, Interchange
from rcm.stats import label_swap_max_t

Cells = Float[np.ndarray, " cell"]
Draws = Float[np.ndarray, " draw"]
ALPHA = 0.05


@dataclass(frozen=True)
class ShareEstimates:
    """Mean share of the gap for each cell, its 95 % interval over resampled pairs, and its p-value over all cells."""

    share: Cells
    low: Cells
    high: Cells
    p: Cells

    def critical(self, min_share: float) -> Bool[np.ndarray, " cell"]:
        """Significant, and certainly larger than `min_share`, for refusing or against it."""
        return (self.p <= ALPHA) & ((self.low > min_share) | (self.high < -min_share))


@dataclass(frozen=True)
class Effects:
    """What each component does, both ways. `shares` are those of each pair with a gap, for further resampling."""

    components: Sequence[Component]
    necessity: ShareEstimates
    sufficiency: ShareEstimates
    shares: Float[np.ndarray, "pair cell"]  # mean of the two ways
    with_gap: Bool[np.ndarray, " any_pair"]

    @classmethod
    def of(cls, study: Interchange, components: Sequence[Component], min_gap: float, seed: int) -> "Effects":
        """Estimates from pairs whose gap is at least `min_gap`; p-values from all pairs, in units of the metric.

        Choosing pairs by their gap would favour one order of the labels, which the p-values could not know.
        """
        p = label_swap_max_t(study.necessity.numpy(), study.sufficiency.numpy(), seed)
        with_gap = study.gap >= min_gap
        kept = study.where(with_gap)
        ways = [figures / kept.gap[:, None] for figures in (kept.necessity, kept.sufficiency)]
        necessity, sufficiency = (estimate(way, p_way, seed) for way, p_way in zip(ways, p, strict=True))
        return cls(components, necessity, sufficiency, torch.stack(ways).mean(0).numpy(), with_gap.numpy())

    def of_kind(self, kind: Kind) -> list[int]:
        """The cells of one kind of component."""
        return [cell for cell, component in enumerate(self.components) if component.kind == kind]

    def critical(self, min_share: float) -> Bool[np.ndarray, " cell"]:
        """Critical in at least one way."""
        return self.necessity.critical(min_share) | self.sufficiency.critical(min_share)


def estimate(shares: Figures, p: Cells, seed: int) -> ShareEstimates:
    """Of shares that prompts have in each cell, and the cells' p-values."""
    if not len(shares):
        nothing = np.full(len(p), np.nan)
        return ShareEstimates(nothing, nothing, nothing, p)
    # TransformerLens takes seconds to import, and only runs that load weights need it.
    from transformer_lens.utilities.statistics import bootstrap_ci, derive_generator

    low, high = bootstrap_ci(shares.T, generator=derive_generator(seed, "patching"))
    return ShareEstimates(shares.mean(0).numpy(), low.numpy(), high.numpy(), p)


def stability(shares: Float[np.ndarray, "pair cell"], top: int, seed: int, draws: int = 200) -> tuple[Draws, Draws]:
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
