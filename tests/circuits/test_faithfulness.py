"""A ratio of means with its interval, and the areas of known curves."""

import numpy as np
import pytest

from rcm.circuits.faithfulness import areas, faithfulness

PAIRS = 60
CATEGORIES = [f"c{i % 12}" for i in range(PAIRS)]


def scores(share: float, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a circuit that carries a share of a gap of ten nats."""
    draw = np.random.default_rng(seed)
    nothing = draw.normal(-3, 1, PAIRS)
    gap = draw.normal(10, 2, PAIRS)
    return nothing + share * gap + draw.normal(0, noise, PAIRS), nothing, nothing + gap


@pytest.mark.parametrize("share", [-0.2, 0.0, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("clusters", [CATEGORIES, []])
def test_the_share_is_found_and_not_clamped(share: float, clusters: list[str]) -> None:
    found = faithfulness(*scores(share, 0), clusters)
    assert found.value == pytest.approx(share, abs=0.03)
    assert found.low < found.value < found.high < found.low + 0.1


@pytest.mark.parametrize("clusters", [CATEGORIES, []])
def test_intervals_hold_the_share_as_often_as_they_say(clusters: list[str]) -> None:
    held = 0
    for seed in range(100):
        found = faithfulness(*scores(0.7, seed, noise=2.0), clusters)
        held += found.low <= 0.7 <= found.high
    assert held >= 88


def test_it_is_a_ratio_of_means() -> None:
    """One pair with nearly no gap would make a mean of ratios whatever it likes."""
    circuit, nothing, everything = scores(0.5, 1, noise=0.0)
    everything[0], circuit[0] = nothing[0] + 1e-6, nothing[0] + 3
    assert ((circuit - nothing) / (everything - nothing)).mean() > 1e4
    assert faithfulness(circuit, nothing, everything).value == pytest.approx(0.5, abs=0.02)


def test_where_there_is_nothing_to_carry_there_is_no_share() -> None:
    _, nothing, _ = scores(0.5, 2)
    noise = np.random.default_rng(5).normal(0, 1, PAIRS)
    assert np.isnan(faithfulness(nothing + 1, nothing, nothing + noise, CATEGORIES).value)


def test_areas_of_known_curves() -> None:
    kept = np.linspace(0, 1, 1001)
    step = (kept >= 1).astype(float)
    assert areas(kept, np.ones_like(kept)) == (pytest.approx(1), pytest.approx(0))
    assert areas(kept, step) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    assert areas(kept, kept) == (pytest.approx(0.5), pytest.approx(0.5))
    high, apart = areas(kept, np.full_like(kept, 1.5))
    assert (high, apart) == (pytest.approx(1.5), pytest.approx(0.5))


@pytest.mark.parametrize("kept", [[0.1, 1.0], [0.0, 0.9], [0.0, 0.5, 0.5, 1.0]])
def test_shares_that_do_not_run_from_nothing_to_all_are_refused(kept: list[float]) -> None:
    with pytest.raises(ValueError, match="must rise from 0 to 1"):
        areas(np.array(kept), np.ones(len(kept)))
