"""`select` against the published choices of Arditi et al., and against brute force."""

import json
from pathlib import Path

import numpy as np
import pytest

from rcm.directions.selection import Selection, select

PUBLISHED = Path(__file__).parents[3] / "shared/data/selection"
SURVIVORS = {"qwen-1_8b-chat": 12, "gemma-2b-it": 13, "meta-llama-3-8b-instruct": 25}


def grids(name: str) -> tuple[dict, tuple[np.ndarray, ...]]:
    path = PUBLISHED / f"{name}.json"
    if not path.exists():
        pytest.skip("the published scores are not at hand")
    stored = json.loads(path.read_text())
    n_positions = -min(candidate["position"] for candidate in stored["candidates"])
    arrays = np.full((3, n_positions, stored["n_layers"]), np.nan)
    for candidate in stored["candidates"]:
        figures = (candidate["refusal_score"], candidate["steering_score"], candidate["kl_div_score"])
        arrays[:, candidate["position"] + n_positions, candidate["layer"]] = figures
    return stored["published"], tuple(arrays)


def place(of: Selection) -> tuple[int, int]:
    assert of.best is not None
    return of.best.position, of.best.layer


@pytest.mark.parametrize("name", SURVIVORS)
def test_published_choices_come_out(name: str) -> None:
    published, (bypass, induce, kl) = grids(name)
    chosen = select(bypass, induce, kl)
    assert place(chosen) == (published["pos"], published["layer"])
    assert chosen.survivors == SURVIVORS[name]
    assert chosen.ranked[0].failed == ()


def test_least_bypass_alone_would_choose_otherwise() -> None:
    """Two of the three at a KL of several nats: ablating there breaks the model."""
    for name in ("qwen-1_8b-chat", "gemma-2b-it"):
        published, (bypass, _, kl) = grids(name)
        row, layer = np.unravel_index(np.nanargmin(bypass), bypass.shape)
        assert (row - len(bypass), layer) != (published["pos"], published["layer"])
        assert kl[row, layer] > 5


def test_equals_brute_force_with_unknown_figures() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        bypass, induce, kl = random.normal(size=(3, 4, 10))
        kl = np.abs(kl) * 0.2
        for grid in (bypass, induce, kl):
            grid[random.random(grid.shape) < 0.1] = np.nan
        passing = [
            (bypass[row, layer], row - 4, layer)
            for row in range(4)
            for layer in range(8)  # int(0.8 * 10)
            if induce[row, layer] >= 0 and kl[row, layer] <= 0.1 and not np.isnan(bypass[row, layer])
        ]
        chosen = select(bypass, induce, kl)
        assert chosen.survivors == len(passing)
        assert not passing or place(chosen) == min(passing)[1:]


def test_thresholds_are_inclusive() -> None:
    one = np.zeros((1, 5))
    assert select(one, one, one + 0.1).survivors == 4
    assert select(one, one, one + 0.1001).survivors == 0
    assert select(one, one - 1e-9, one).survivors == 0


def test_none_names_the_nearest_misses() -> None:
    bypass, induce, kl = np.array([[0.0, -5.0, -3.0]]), np.array([[-1.0, 1.0, 1.0]]), np.array([[0.5, 0.4, 0.01]])
    chosen = select(bypass, induce, kl, max_depth=0.67)
    assert chosen.survivors == 0
    assert [one.layer for one in chosen.ranked] == [1, 0], "what is too deep is no miss"
    assert [one.failed for one in chosen.ranked] == [("kl",), ("kl", "induce")]
    assert [one.excess for one in chosen.ranked] == pytest.approx([0.3, 1.4])


def test_what_does_nothing_is_no_near_miss() -> None:
    """It harms nothing either: only that refusing stays likely tells it from one that is nearly selected."""
    bypass, induce, kl = np.array([[6.0, -2.0, -8.0]]), np.array([[-0.01, 0.5, 3.0]]), np.array([[0.0, 0.3, 2.0]])
    near = select(bypass, induce, kl, max_depth=1.1)
    assert (near.survivors, place(near)) == (0, (-1, 1))
    assert [one.layer for one in near.ranked] == [1, 2, 0]


def test_nothing_known_selects_nothing() -> None:
    unknown = np.full((2, 3), np.nan)
    assert select(unknown, unknown, unknown).ranked == ()
