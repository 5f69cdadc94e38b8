"""The interval of kappa: it holds what is true as often as it says, and is none where nothing can be said."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rcm.stats import kappa_interval
from rcm.stats.agreement import _kappa


def drawn(n: int, rate: float, kappa: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two judges with the same rate and this kappa."""
    shared = rate * (1 - rate) * kappa
    cells = [rate**2 + shared, *[rate * (1 - rate) - shared] * 2, (1 - rate) ** 2 + shared]
    cell = np.random.default_rng(seed).choice(4, size=n, p=cells)
    return cell < 2, cell % 2 == 0


@pytest.mark.parametrize(("n", "rate", "kappa"), [(24, 0.3, 0.8), (96, 0.5, 0.4), (96, 0.8, 0.0), (200, 0.1, 0.8)])
def test_it_holds_the_true_kappa_in_95_of_100(n: int, rate: float, kappa: float) -> None:
    found = [kappa_interval(*drawn(n, rate, kappa, seed)) for seed in range(1000)]
    known = [ends for ends in found if ends is not None]
    assert len(known) > 990
    assert np.mean([low <= kappa <= high for low, high in known]) > 0.92
    width = np.mean([high - low for low, high in known])
    assert width < 8 / np.sqrt(n)


def test_the_value_is_kappa() -> None:
    first, second = drawn(60, 0.4, 0.5, 1)
    counts = np.array([[np.sum((first == i) & (second == j)) for j in (0, 1)] for i in (0, 1)], dtype=float)
    assert _kappa(counts)[0] == pytest.approx(cohen_kappa_score(first, second))
    low, high = kappa_interval(first, second)
    assert low < cohen_kappa_score(first, second) < high


def test_judges_that_never_differ_do_not_agree_for_certain() -> None:
    same = np.array([True] * 4 + [False] * 6)
    low, high = kappa_interval(same, same)
    assert high == 1
    assert low < 0.7
    assert kappa_interval(same[:7], same[:7]) is None
    assert kappa_interval(np.zeros(20, bool), np.zeros(20, bool)) is None
