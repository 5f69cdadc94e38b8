"""p-values that hold for many comparisons at once."""

import numpy as np
from jaxtyping import Bool, Float


def label_swap_max_t(
    necessity: Float[np.ndarray, "pair cell"], sufficiency: Float[np.ndarray, "pair cell"], seed: int, draws: int = 2000
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """p-values that hold for all cells of both maps together (Westfall and Young 1993, single-step max-T).

    If the labels meant nothing, the two prompts of a pair could change places. Then what harmful loses by a patch is
    what harmless would have gained, with the other sign: necessity and minus sufficiency change places. Swapping random
    pairs this way and keeping the largest statistic of all cells gives what chance alone reaches somewhere.

    The statistic of a cell in one way is the smaller of two |t|, and 0 where they are of different signs: that of the
    way, and that of the mean of both ways. For a way is a sum of two parts,

        (necessity + sufficiency) / 2    what labels do, which changes its sign with them
        (necessity - sufficiency) / 2    damage that a patch does to either prompt, which no swap changes

    and damage that is steady over pairs, however small, makes for a large |t| of the way under any labels. Kept as the
    largest of all, it would hide every other cell. What labels do has mean 0 under swaps, in every cell and unit.

    Exact: observed and swapped data go through the same function, and where labels mean nothing every swap is as
    likely; so the rank of the observed largest among the others is uniform, whatever the statistic, the distribution
    and the dependence of cells. The mean of the ways alone is as exact, and finds less of what acts in one way only.
    """
    n = len(necessity)
    swaps = np.random.default_rng(seed).random((draws, n)) < 0.5
    swaps = np.concatenate([np.zeros((1, n), dtype=bool), swaps])  # the first is what was observed
    both = _swapped_t(necessity + sufficiency, -necessity - sufficiency, swaps)
    observed, largest = [], np.zeros(draws)
    for way, other in ((necessity, sufficiency), (sufficiency, necessity)):
        alone = np.sign(both) * _swapped_t(way, -other, swaps)
        statistic = np.maximum(np.minimum(np.abs(both), alone), 0)
        observed.append(statistic[0])
        largest = np.maximum(largest, statistic[1:].max(1, initial=0))
    first, second = (exceeded(largest, t) for t in observed)
    return first, second


def _swapped_t(
    kept: Float[np.ndarray, "pair cell"], swapped: Float[np.ndarray, "pair cell"], swaps: Bool[np.ndarray, "draw pair"]
) -> Float[np.ndarray, "draw cell"]:
    """Student's t of the mean against zero when some pairs are swapped, as r = t / sqrt(t^2 + n - 1); 0 where all is 0.

    r, the sum over the root of n times the sum of squares, is in the same order and ends at 1, where nothing varies and
    t is infinite.
    """
    of_kept, of_swapped = (~swaps).astype(float), swaps.astype(float)
    sums = of_kept @ kept + of_swapped @ swapped
    squares = of_kept @ kept**2 + of_swapped @ swapped**2
    return np.divide(sums, np.sqrt(len(kept) * squares), out=np.zeros_like(sums), where=squares > 0)


def exceeded(chance: Float[np.ndarray, " draw"], values: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """How often chance is at least as large, counting the observation itself: never 0, so never an overstatement."""
    return (1 + (chance[:, None] >= values - 1e-9).sum(0)) / (1 + len(chance))
