"""What a figure must exceed: the draws of a null, and how many there must be.

A 95th percentile of few draws is exceeded too often: of 8 by 14 %, of 2 by 35 % of figures that are draws themselves.
So a percentile needs `FEWEST_DRAWS`; below that the null is the largest draw, which a figure that is itself a draw
exceeds with probability 1 / (n + 1), exactly: 5 % from 19 draws on (`ENOUGH`).
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

FEWEST_DRAWS = 100  # behind a percentile
ENOUGH = 19  # behind a largest draw: one in twenty


class Reached(NamedTuple):
    """What chance reaches. `level`: the share of draws that stays on the near side; `p`: how often chance does as well
    as the figure, counting the figure itself; None where none was given."""

    value: float
    draws: int
    level: float
    p: float | None


def reached(draws: Float[np.ndarray, " draw"], high: bool = True, figure: float | None = None) -> Reached | None:
    """What these draws make of a null; None where there is none, or one of them has no value. `high`: whether figures
    must lie above it rather than below."""
    n = len(draws)
    signed = np.sort(np.asarray(draws, dtype=float) * (1 if high else -1))
    if n == 0 or np.isnan(signed).any():
        return None
    # The draw with 5 % of n + 1 at or beyond it, not interpolated: a figure that is one of n + 1 draws lies beyond it
    # at most so often.
    rank = n if n < FEWEST_DRAWS else math.ceil(0.95 * (n + 1))
    value = float(signed[rank - 1])
    p = None
    if figure is not None and not math.isnan(figure):
        p = float((1 + (signed >= (figure if high else -figure) - 1e-12).sum()) / (n + 1))
    level = rank / (n + 1)
    return Reached(value if high else -value, n, level if high else 1 - level, p)
