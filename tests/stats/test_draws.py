"""A null is exceeded by chance as often as it says."""

import numpy as np
import pytest

from rcm.record.results import Null
from rcm.stats import reached


@pytest.mark.parametrize(("n", "share"), [(2, 1 / 3), (8, 1 / 9), (19, 0.05), (100, 0.05), (200, 0.05)])
@pytest.mark.parametrize("high", [True, False])
def test_chance_exceeds_it_as_often_as_its_level_says(n: int, share: float, high: bool) -> None:
    random = np.random.default_rng(0)
    beyond = 0
    for _ in range(8000):
        *draws, figure = random.standard_normal(n + 1)
        found = reached(np.array(draws), high)
        assert found is not None
        beyond += figure > found.value if high else figure < found.value
        far = found.level if high else 1 - found.level
    assert 1 - far == pytest.approx(share, abs=0.004)
    assert beyond / 8000 == pytest.approx(share, abs=0.012)


def test_p_counts_the_figure_itself() -> None:
    found = reached(np.arange(19.0), figure=100.0)
    assert found is not None
    assert found.p == pytest.approx(1 / 20)
    assert reached(np.arange(19.0), high=False, figure=0.5).p == pytest.approx(2 / 20)


def test_no_draws_no_null() -> None:
    assert reached(np.array([])) is None
    assert reached(np.array([1.0, np.nan])) is None
    assert Null.of_draws(np.array([]), "nothing") is None
    assert Null.of_draws(np.arange(200.0), "numbers", figure=500.0) == Null(190.0, "numbers", 200, 191 / 201, 1 / 201)
