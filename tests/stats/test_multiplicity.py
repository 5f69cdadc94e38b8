"""Max-T over swapped labels: exact under any labels without meaning, and not blind beside what swaps cannot change."""

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from rcm.stats import label_swap_max_t

STEADY = 4  # cells that do the same tiny damage in every pair
Ways = tuple[np.ndarray, np.ndarray]


def meaningless(draw: np.random.Generator, pairs: int, cells: int = 30) -> Ways:
    """What labels do has heavy tails, and either sign as often; some damage is skewed, and some of it tiny and steady,
    as rounding and what leaks through a trained model are. Cells share a part of each pair's."""
    labels = draw.standard_t(2, (pairs, cells)) * 0.05 + draw.standard_t(2, (pairs, 1)) * 0.02
    labels[:, :STEADY] *= 1e-5
    damage = draw.exponential(0.03, (pairs, cells)) + draw.normal(0, 0.05, (pairs, cells))
    damage[:, :STEADY] = 3e-4 + 1e-5 * draw.random((pairs, STEADY))
    return labels + damage, labels - damage


def plant(ways: Ways, share: float, which: tuple[int, ...] = (0, 1)) -> Ways:
    """The last cell does this share more, in these ways."""
    for way in which:
        ways[way][:, -1] += share
    return ways


def found(pairs: int, share: float, which: tuple[int, ...], times: int = 100) -> float:
    """In which part of data sets the planted cell is significant in all of these ways."""
    hits = 0
    for seed in range(times):
        p = label_swap_max_t(*plant(meaningless(np.random.default_rng(seed), pairs), share, which), seed + times, 200)
        hits += all(p[way][-1] <= 0.05 for way in which)
    return hits / times


def test_it_is_the_smaller_t_of_the_way_and_of_both_under_every_swap() -> None:
    """Against scipy's t, pair by pair; r = t / sqrt(t^2 + n - 1) is in the same order."""
    n, draws, seed = 9, 200, 3
    ways = tuple(np.random.default_rng(0).normal([0.0, 0.3, 0.6, 0.9], 1, (2, n, 4)))

    def statistics(necessity: np.ndarray, sufficiency: np.ndarray) -> np.ndarray:
        both, *each = (ttest_1samp(one, 0).statistic for one in (necessity + sufficiency, necessity, sufficiency))
        return np.array([np.where(both * one > 0, np.minimum(abs(both), abs(one)), 0.0) for one in each])

    largest = []
    for swap in np.random.default_rng(seed).random((draws, n)) < 0.5:
        necessity, sufficiency = (way.copy() for way in ways)
        for pair in np.flatnonzero(swap):
            necessity[pair], sufficiency[pair] = -ways[1][pair], -ways[0][pair]
        largest.append(statistics(necessity, sufficiency).max())
    slow = [[(1 + sum(one >= t - 1e-9 for one in largest)) / (1 + draws) for t in way] for way in statistics(*ways)]
    fast = label_swap_max_t(*ways, seed, draws)
    assert np.array(fast) == pytest.approx(np.array(slow))
    assert len(set(np.ravel(slow))) >= 6


@pytest.mark.parametrize("pairs", [8, 16, 40])
def test_where_labels_mean_nothing_the_smallest_p_is_uniform(pairs: int) -> None:
    """So at 5 % it is wrong 5 % of the time, whatever the tails, the damage and the cells that are all but constant."""
    smallest = []
    for seed in range(500):
        p = label_swap_max_t(*meaningless(np.random.default_rng(seed), pairs), seed + 500, 99)
        smallest.append(min(map(np.min, p)))
    assert np.mean(np.array(smallest) <= 0.05) <= 0.08  # by chance once in 500 where it holds
    # Of 99 draws p has steps of a hundredth, which spread evenly are uniform.
    steps = np.array(smallest) - np.random.default_rng(0).random(500) / 100
    assert kstest(steps, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("pairs", "share"), [(8, 0.7), (16, 0.3), (40, 0.15)])
@pytest.mark.parametrize("which", [(0, 1), (0,), (1,)])
def test_a_planted_share_is_found_beside_damage_that_is_tiny_and_steady(
    pairs: int, share: float, which: tuple[int, ...]
) -> None:
    """Whose |t| is the largest of all in either way, under any labels."""
    assert found(pairs, share, which) >= (0.7 if len(which) == 2 else 0.4)
    necessity, sufficiency = plant(meaningless(np.random.default_rng(0), pairs), share, which)
    steady = abs(ttest_1samp(necessity, 0).statistic[:STEADY])
    assert steady.min() > max(abs(ttest_1samp(way, 0).statistic[STEADY:]).max() for way in (necessity, sufficiency))
    assert min(label_swap_max_t(necessity, sufficiency, 0)[0][:STEADY]) > 0.05


def test_damage_that_outweighs_the_share_is_significant_in_one_way_alone() -> None:
    """What harmful loses is damage and share; what harmless gains is the share less the damage, and speaks of damage
    alone where that is more."""
    labels, damage = np.random.default_rng(0).normal([[0.1], [0.3]], 0.02, (2, 20))
    necessity, sufficiency = label_swap_max_t((labels + damage)[:, None], (labels - damage)[:, None], seed=0)
    assert necessity[0] <= 1e-3
    assert sufficiency[0] == 1.0


def test_what_never_varies_is_reached_by_two_of_all_swaps() -> None:
    """By none and by all; so p in five pairs is 1 / 16, and no more can be said of cells that no patch moves."""
    constant = np.full((5, 1), 1 / 3)
    for way in (*label_swap_max_t(constant, constant, seed=0), *label_swap_max_t(-constant, -constant, seed=0)):
        assert way[0] == pytest.approx(1 / 16, abs=0.02)
    still = np.zeros((5, 2))
    assert np.concatenate(label_swap_max_t(still, still, seed=0)).tolist() == [1.0] * 4
