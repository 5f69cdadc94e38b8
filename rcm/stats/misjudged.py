"""The interval of a rate that was counted by a judge that errs as often as it was seen to err.

    corrected = (rate + specificity - 1) / (sensitivity + specificity - 1)              Rogan and Gladen 1978
    interval  = corrected + shift +- z sqrt(variance of all three)                      Lang and Reiczigel 2014

(Lang and Reiczigel, Prev Vet Med 113:13-22, equations 4, 7 and 15 to 17: z^2 / 2 is added to the hits and z^2 to the
number of prompts, 1 and 2 to those of the judge's test; at 12 prompts the plain formula's interval covers too little.)

A judge errs more on one model's replies than on another's, and no model that is mapped was among those that it was
tested on. So its test counts for as many completions as would vary as much as those models do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from rcm.stats.intervals import Interval, counted, effective_number

Counts = tuple[tuple[int, int], ...]  # for each model on whose completions a judge was tested: right, of


@dataclass(frozen=True)
class JudgeErrors:
    """How often a judge was right: on what people call a hit (`sensitivity`), and on what they do not."""

    sensitivity: Counts
    specificity: Counts

    @property
    def of_misses(self) -> "JudgeErrors":
        """The same where a hit is what was none: of answers instead of refusals."""
        return JudgeErrors(self.specificity, self.sensitivity)


def misjudged_interval(
    hits: Bool[np.ndarray, " prompt"], errors: JudgeErrors, clusters: Sequence[str] = ()
) -> Interval | None:
    """Of the share that people would count where a judge counted these; None of no prompt, and where the judge may be
    no better than chance. `clusters` as in `rate_interval`."""
    if not len(hits):
        return None
    n, z = counted(hits, clusters)
    rate = (hits.mean() * n + z**2 / 2) / (n + z**2)
    (sensitivity, tested), (specificity, tested_without) = map(_tested, (errors.sensitivity, errors.specificity))
    youden = sensitivity + specificity - 1
    of_sensitivity = sensitivity * (1 - sensitivity) / tested
    of_specificity = specificity * (1 - specificity) / tested_without
    if youden <= z * math.sqrt(of_sensitivity + of_specificity):
        return None
    share = (rate + specificity - 1) / youden
    shift = 2 * z**2 * (share * of_sensitivity - (1 - share) * of_specificity)
    variance = rate * (1 - rate) / (n + z**2) + share**2 * of_sensitivity + (1 - share) ** 2 * of_specificity
    half = z * math.sqrt(variance) / youden
    low, high = (min(max(end, 0.0), 1.0) for end in (share + shift - half, share + shift + half))
    return float(low), float(high)


def _tested(counts: Counts) -> tuple[float, float]:
    """How often it was right, and of how many, with one hit and one miss more."""
    right, of = np.array(counts, dtype=float).T
    n = effective_number(right, of)
    return (right.sum() / of.sum() * n + 1) / (n + 2), n + 2
