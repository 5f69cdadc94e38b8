"""Shares add up, are right where effects add, and are not told where nothing is certain."""

from dataclasses import replace

import numpy as np
import pytest

from rcm.transplant.shares import PartEffects, alike, parted, shares

CATEGORIES = [str(i % 12) for i in range(48)]
SCATTER = np.random.default_rng(0).standard_normal((2, 48))


def effects(along: float, across: float, both: float | None = None) -> PartEffects:
    one, two = along + 0.3 * SCATTER[0], across + 0.3 * SCATTER[1]
    together = one + two if both is None else both + 0.3 * SCATTER[0]
    return PartEffects(CATEGORIES, one, two, together, one, np.linspace(4, 5, 19), np.linspace(1, 3, 19))


def test_parts_add_up_and_stand_at_right_angles() -> None:
    own, other = np.random.default_rng(1).standard_normal((2, 16))
    along, across = parted(own, other)
    np.testing.assert_allclose(along + across, own)
    assert across @ other == pytest.approx(0, abs=1e-12)
    assert np.linalg.matrix_rank(np.stack([along, other])) == 1


@pytest.mark.parametrize("cosine", [-0.3, 0.0, 0.81, 1.0])
def test_alike_have_the_cosine(cosine: float) -> None:
    own = np.random.default_rng(2).standard_normal(64)
    drawn = alike(own, cosine, 30, seed=0)
    np.testing.assert_allclose(drawn @ own / np.linalg.norm(own), cosine, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    if cosine < 1:
        assert np.abs(np.corrcoef(drawn) - np.eye(30)).max() < 0.9  # they differ from one another


@pytest.mark.parametrize(("along", "across", "share"), [(6, 0, 1), (0, 6, 0), (3, 3, 0.5), (4.5, 1.5, 0.75)])
def test_shares_of_effects_that_add(along: float, across: float, share: float) -> None:
    found = shares(effects(along, across))
    assert found.along.value == pytest.approx(share, abs=0.02)
    assert found.along.low < share < found.along.high
    assert found.along.value + found.across.value == pytest.approx(1)
    assert found.own.value == pytest.approx(6, abs=0.1)
    assert (found.n, found.draws, found.refits, found.alike) == (48, 19, (4, 5), (1, 3))


def test_shares_share_what_the_parts_do_only_together() -> None:
    """Either alone does all of it (redundant), or nothing (both are needed): a half each."""
    assert shares(effects(6, 6, both=6)).along.value == pytest.approx(0.5, abs=0.02)
    assert shares(effects(0, 0, both=6)).along.value == pytest.approx(0.5, abs=0.02)


def test_no_share_of_an_effect_that_is_not_certain() -> None:
    found = shares(effects(0.01, -0.01))
    assert np.isnan(found.along.value)
    assert found.own.low < 0 < found.own.high


def test_too_few_prompts_have_no_interval() -> None:
    few = effects(3, 3)
    cut = {name: getattr(few, name)[:4] for name in ("along", "across", "both", "other")}
    found = shares(replace(few, categories=[""] * 4, **cut))
    assert np.isnan(found.own.low)
    assert np.isnan(found.along.value)
