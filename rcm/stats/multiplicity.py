"""p-values that hold for many comparisons at once."""

import numpy as np
from jaxtyping import Float


def label_swap_max_t(
    necessity: Float[np.ndarray, "pair cell"], sufficiency: Float[np.ndarray, "pair cell"], seed: int, draws: int = 2000
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """p-values that hold for all cells of both maps together (Westfall and Young 1993, single-step max-T).

    If the labels meant nothing, the two prompts of a pair could change places. Then what harmful loses by a patch is
    what harmless would have gained, with the other sign: necessity and minus sufficiency change places. Swapping random
    pairs this way and keeping the largest |t| of all cells gives what chance alone reaches somewhere.
    """
    n = len(necessity)
    swaps = np.random.default_rng(seed).random((draws, n)) < 0.5
    observed, chance = [], []
    for kept, swapped in ((necessity, -sufficiency), (sufficiency, -necessity)):
        sums = kept.sum(0) + swaps @ (swapped - kept)
        squares = (kept**2).sum(0) + swaps @ (swapped**2 - kept**2)
        observed.append(np.abs(_t(kept.sum(0), (kept**2).sum(0), n)))
        chance.append(np.abs(_t(sums, squares, n)))
    largest = np.concatenate(chance, axis=1).max(1)
    first, second = (exceeded(largest, t) for t in observed)
    return first, second


def _t(
    sums: Float[np.ndarray, "*draw cell"], squares: Float[np.ndarray, "*draw cell"], n: int
) -> Float[np.ndarray, "*draw cell"]:
    """Student's t of a mean against zero; 0 where nothing varies and nothing is there."""
    variance = np.maximum(squares - sums**2 / n, 1e-12 * squares) / max(n - 1, 1)
    return np.divide(sums / n, np.sqrt(variance / n), out=np.zeros_like(sums), where=variance > 0)


def exceeded(chance: Float[np.ndarray, " draw"], values: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """How often chance is at least as large, counting the observation itself: never 0, so never an overstatement."""
    return (1 + (chance[:, None] >= values - 1e-9).sum(0)) / (1 + len(chance))
