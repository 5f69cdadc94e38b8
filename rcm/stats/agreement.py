"""How surely two judges agree: a 95 % interval of Cohen's kappa.

The large-sample variance of Fleiss, Cohen and Everitt (1969, Psychol Bull 72:323), with half a reply more in each of
the four cells: without them two judges who never differed would agree for certain, however few replies they read. In
20,000 draws each of 8 to 450 replies, of rates from 0.1 to 0.8 and kappas from 0 to 1, it held the true one in 93 % or
more, but for 89 % at 8 replies and 91 % at 48 of which a tenth are refused.
"""

import math

import numpy as np
from jaxtyping import Bool
from scipy.stats import norm

from rcm.stats.intervals import FEWEST, Interval


def kappa_interval(first: Bool[np.ndarray, " reply"], second: Bool[np.ndarray, " reply"]) -> Interval | None:
    """Of kappa of two judges of the same replies; None below `FEWEST`, and where both say one and the same of all."""
    if len(first) < FEWEST or len(set(first) | set(second)) < 2:
        return None
    counts = np.array([[np.sum((first == one) & (second == other)) for other in (0, 1)] for one in (0, 1)], dtype=float)
    estimate, _ = _kappa(counts)
    middle, error = _kappa(counts + 0.5)
    half = float(norm.ppf(0.975)) * error
    return max(-1.0, min(middle - half, estimate)), min(1.0, max(middle + half, estimate))


def _kappa(counts: np.ndarray) -> tuple[float, float]:
    """The value, and its standard error."""
    n = float(counts.sum())
    p = counts / n
    row, column = p.sum(1), p.sum(0)
    same, chance = float(np.trace(p)), float(row @ column)
    agree = sum(p[i, i] * ((1 - chance) - (row[i] + column[i]) * (1 - same)) ** 2 for i in (0, 1))
    differ = (1 - same) ** 2 * sum(p[i, j] * (column[i] + row[j]) ** 2 for i, j in ((0, 1), (1, 0)))
    square = float(agree + differ) - (same * chance - 2 * chance + same) ** 2
    return (same - chance) / (1 - chance), math.sqrt(max(square, 0.0) / n) / (1 - chance) ** 2
