"""How far apart the projections of two classes lie."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

Sample = Float[np.ndarray, "*draw _"]  # prompts of a class along the last axis; the two classes differ in number
Each = Float[np.ndarray, "*draw"]


def spread(harmful: Sample, harmless: Sample) -> Each:
    """The standard deviation within a class, of both classes together."""
    return np.asarray(np.sqrt((harmful.var(-1, ddof=1) + harmless.var(-1, ddof=1)) / 2))


def separations(harmful: Sample, harmless: Sample) -> Each:
    """Distance of the two means in standard deviations within a class (d'), positive where harmful lies higher.

    Of each draw; NaN where nothing varies.
    """
    within = spread(harmful, harmless)
    distance = np.asarray(harmful.mean(-1) - harmless.mean(-1))
    return np.divide(distance, within, out=np.full(within.shape, np.nan), where=within > 0)


def separation(harmful: Float[np.ndarray, " _"], harmless: Float[np.ndarray, " _"]) -> float:
    """That of one sample; 0 where nothing varies."""
    apart = float(separations(harmful, harmless))
    return 0.0 if np.isnan(apart) else apart


def auroc(harmful: Float[np.ndarray, " _"], harmless: Float[np.ndarray, " _"]) -> float:
    """Probability that a harmful prompt projects higher than a harmless one; 0.5 is chance."""
    ranks = rankdata(np.concatenate([harmful, harmless]))  # a tenth of sklearn's time, which nulls take by the thousand
    n, m = len(harmful), len(harmless)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
