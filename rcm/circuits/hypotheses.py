"""Is it a circuit? Five tests of a set of components against random ones (Shi et al. 2024, arXiv:2410.13032).

Each needs only the metric of each example under the model, the circuit, its complement, and random circuits of the same
size and layers; how they are patched, and at which positions, is the caller's. With M the model, C the circuit, R_i a
random one, `not` the complement, and loss the mean square difference from M over the examples:

    sufficiency         C comes nearer to M than a share q of random circuits     wins = #{loss(C) <= loss(R_i)}
    partial necessity   without C, M is missed by more than without random ones   wins = #{loss(not C) > loss(not R_i)}
    minimality          every component of C changes more than a random one does that is put in on top, for a share q
    equivalence         C does not exceed M in clearly more or fewer than half of the examples
    independence        what the complement says does not depend on what M says (HSIC)

The first two are shown where chance is rejected: not "better than a random circuit", which a tenth of the random ones
are at q = .9 and one in twelve would show of 1,000, but better than nearly all. The other three say that nothing speaks
against them: they hold where their null is *not* rejected, and with few examples nothing ever is; so each tells its
`n`. Three things are otherwise than in the published code: equivalence counts examples, as the paper has it, and not
the mean difference; minimality is corrected for the number of components (Bonferroni); permutations count the observed
one (+ 1). At q = .9 a circuit needs 96 wins of 100, or 916 of 1,000.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

Scores = Float[np.ndarray, " example"]
Circuits = Float[np.ndarray, "circuit example"]
ALPHA = 0.05
Q = 0.9  # of the random circuits, which a circuit must beat
EPSILON = 0.1  # by which a share of examples may differ from one half
PERMUTATIONS = 1000
FEWEST_CIRCUITS = 29  # random ones: of fewer, not even all wins show that a share Q of them is beaten


class Tested(NamedTuple):
    """`statistic` is of `n`: wins of random circuits, examples of examples; of independence the HSIC, whose `n` is the
    number of permutations. `holds`: what is said of the circuit, at 5 %."""

    statistic: float
    n: int
    p: float
    holds: bool


def _require_scores(*scores: Float[np.ndarray, "..."]) -> None:
    if not all(one.size and np.isfinite(one).all() for one in scores):
        raise ValueError("a test of a circuit needs examples, and finite scores of each")


def losses(scores: Circuits, model: Scores) -> Float[np.ndarray, " circuit"]:
    """How far circuits lie from the model: mean square difference over the examples."""
    _require_scores(model, scores)
    return np.square(scores - model).mean(-1)


def sufficiency(circuit: Scores, random: Circuits, model: Scores, q: float = Q) -> Tested:
    """Rejected: that it beats at most a share q of random circuits."""
    return _shown(int((losses(circuit[None], model)[0] <= losses(random, model)).sum()), len(random), q)


def partial_necessity(complement: Scores, random_complements: Circuits, model: Scores, q: float = Q) -> Tested:
    """Rejected: that its complement misses the model by more than at most a share q of random complements."""
    wins = int((losses(complement[None], model)[0] > losses(random_complements, model)).sum())
    return _shown(wins, len(random_complements), q)


def minimality(
    circuit: Scores,
    without_each: Float[np.ndarray, "component example"],
    added: Circuits,
    q: float = Q,
) -> list[Tested]:
    """Of each component: whether taking it out changes the circuit's scores by more than taking a random one out of the
    circuit that it was added to, for a share q of those. Fails where that is rejected.

    `added`: scores of the circuit with a random component more, one for each draw. Changes are of the mean score.
    """
    changes = np.abs((without_each - circuit).mean(-1))
    random = np.abs((added - circuit).mean(-1))
    wins = (changes[:, None] > random).sum(-1)
    p = np.minimum(1.0, len(changes) * binom.cdf(wins, len(random), q))
    return [Tested(float(w), len(random), float(one), bool(one > ALPHA)) for w, one in zip(wins, p, strict=True)]


def equivalence(circuit: Scores, model: Scores, epsilon: float = EPSILON) -> Tested:
    """Fails where it is rejected that the model exceeds the circuit in one half of the examples, give or take epsilon;
    ties are half an example each."""
    _require_scores(circuit, model)
    n = len(model)
    wins = float((model > circuit).sum() + (model == circuit).sum() / 2)
    apart = int(np.floor(abs(wins - n / 2) + n / 2))  # half a tie speaks for neither
    # Both tails at the edge of what is allowed, where the null is likeliest to be rejected.
    p = min(1.0, float(binom.sf(apart - 1, n, 0.5 + epsilon) + binom.cdf(n - apart, n, 0.5 + epsilon)))
    return Tested(wins, n, p, p > ALPHA)


def independence(complement: Scores, model: Scores, seed: int, permutations: int = PERMUTATIONS) -> Tested:
    """Fails where it is rejected that the complement's scores tell nothing of the model's: HSIC (Gretton et al. 2007)
    with Gaussian kernels of the median distance, under permutations of the examples."""
    _require_scores(complement, model)
    draw = np.random.default_rng(seed)
    first, second = _centred(complement), _kernel(model)
    observed = float((first * second).mean())
    shuffled = (draw.permutation(len(model)) for _ in range(permutations))
    reached = sum(float((first * second[np.ix_(order, order)]).mean()) >= observed - 1e-12 for order in shuffled)
    p = (1 + reached) / (1 + permutations)
    return Tested(observed, permutations, p, p > ALPHA)


def _shown(wins: int, n: int, q: float) -> Tested:
    p = float(binom.sf(wins - 1, n, q))
    return Tested(float(wins), n, p, p <= ALPHA)


def _kernel(scores: Scores) -> Float[np.ndarray, "example example"]:
    distances = np.abs(scores[:, None] - scores)
    width = np.median(distances[~np.eye(len(scores), dtype=bool)]) if len(scores) > 1 else 0.0
    return np.exp(-np.square(distances) / (2 * width**2)) if width > 0 else (distances == 0).astype(float)


def _centred(scores: Scores) -> Float[np.ndarray, "example example"]:
    kernel = _kernel(scores)
    return kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()
