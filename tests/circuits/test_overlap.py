"""Equal circuits are told from circuits that share their layers alone, at the rate that p says."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr

from rcm.circuits.overlap import OF_SCORES, OF_SETS, Overlap, overlap, permuted_rho, random_jaccard
from rcm.errors import InputError
from rcm.execution.components import Component, Shape

COMPONENTS = Shape(6, 8).components(["head", "mlp"])
TWINS = 400


def scores(draw: np.random.Generator, depth: float = 1.0, of: Sequence[Component] = COMPONENTS) -> dict:
    """The deeper a layer, the more its components do; MLPs do most of all."""
    return {one: depth * one.layer + 5 * (one.kind == "mlp") + draw.normal() for one in of}


def strongest(of: dict, number: int = 14) -> list[Component]:
    return sorted(of, key=lambda one: -of[one])[:number]


def both(ours: dict, theirs: dict, seed: int = 0, draws: int = 500) -> Overlap:
    return overlap(ours, theirs, strongest(ours), strongest(theirs), seed, draws)


def test_equal_circuits_overlap_more_than_their_layers_make_them() -> None:
    ours = scores(np.random.default_rng(0))
    found = both(ours, dict(reversed(ours.items())))
    assert (found.jaccard, found.rho) == (1.0, pytest.approx(1.0))
    assert (found.components, found.exchangeable) == (54, 48)
    for null, of in ((found.jaccard_null, OF_SETS), (found.rho_null, OF_SCORES)):
        assert null is not None
        assert (null.p, null.draws, null.of) == (1 / 501, 500, of)
        assert 0.3 < null.value < 1


def test_circuits_that_share_a_part_are_found() -> None:
    """Half of what a component does beside its layer is common to both."""
    small = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        common = scores(draw)
        ours, theirs = ({one: common[one] + draw.normal() for one in COMPONENTS} for _ in range(2))
        null = both(ours, theirs, seed).rho_null
        assert null is not None
        small += null.p <= 0.05
    assert small >= 14


def test_circuits_that_share_layers_alone_are_seldom_taken_for_equal() -> None:
    """Though their overlap is large: were components permuted over all layers, every such pair would be one circuit."""
    p, over_all, figures = [], [], []
    for seed in range(TWINS):
        draw = np.random.default_rng(seed)
        ours, theirs = scores(draw), scores(draw)
        found = both(ours, theirs, seed, 199)
        assert found.jaccard_null is not None
        assert found.rho_null is not None
        p.append((found.jaccard_null.p, found.rho_null.p))
        figures.append((found.jaccard, found.rho))
        over_all.append(spearmanr(list(ours.values()), list(theirs.values())).pvalue)
    assert np.mean(figures, axis=0) == pytest.approx([0.4, 0.75], abs=0.15)
    assert np.mean(np.array(over_all) <= 0.05) > 0.95
    for level in (0.05, 0.25, 0.5):
        jaccard, rho = (np.array(p) <= level).sum(0)
        assert binomtest(int(rho), TWINS, level).pvalue > 0.01  # uniform
        assert binomtest(int(jaccard), TWINS, level, "greater").pvalue > 0.01  # has few values, so p is never too small


def test_draws_are_those_of_sets_and_scores_permuted_one_by_one() -> None:
    group = np.array([0, 1, 0, 1, 1, 2, 0, 1, 2, 3])
    ours, theirs = np.random.default_rng(0).permuted(np.tile(np.arange(10.0), (2, 1)), axis=1)
    kept, drawn = {0, 1, 3, 5, 9}, {1, 2, 4, 5, 8, 9}
    draw, jaccard, rho = np.random.default_rng(1), [], []
    for _ in range(4000):
        order = np.arange(10)
        for one in range(4):
            places = np.flatnonzero(group == one)
            order[places] = draw.permutation(places)
        random = {int(order[i]) for i in drawn}
        jaccard.append(len(kept & random) / len(kept | random))
        rho.append(spearmanr(ours, theirs[order]).statistic)
    counts = [np.bincount(group[list(some)], minlength=4) for some in (kept, drawn)]
    fast = [
        random_jaccard(np.bincount(group), *counts, np.random.default_rng(2), 4000),
        permuted_rho(group, ours, theirs, np.random.default_rng(3), 4000),
    ]
    for slow, drawn_at_once in zip((jaccard, rho), fast, strict=True):
        assert set(np.round(drawn_at_once, 9)) == set(np.round(slow, 9))
        for quantile in (0.1, 0.5, 0.9):
            assert np.quantile(drawn_at_once, quantile) == pytest.approx(np.quantile(slow, quantile), abs=0.06)
        assert drawn_at_once.mean() == pytest.approx(np.mean(slow), abs=0.02)


def test_what_is_alone_in_its_layer_says_nothing_against_chance() -> None:
    mlps = Shape(6, 8).components(["mlp"])
    ours = scores(np.random.default_rng(0), of=mlps)
    found = overlap(ours, ours, mlps[:3], mlps[:3], seed=0)
    assert (found.jaccard, found.rho) == (1.0, pytest.approx(1.0))
    assert (found.jaccard_null, found.rho_null, found.exchangeable) == (None, None, 0)
    heads = scores(np.random.default_rng(0))
    with_heads = overlap(heads, heads, mlps[:3], mlps[:3], seed=0)
    assert with_heads.jaccard_null is not None
    assert with_heads.jaccard_null.p == 1.0


def test_where_there_is_nothing_to_compare_there_is_no_figure() -> None:
    ours = scores(np.random.default_rng(0))
    level = dict.fromkeys(ours, 1.0)
    found = overlap(ours, level, [], [], seed=0)
    assert np.isnan([found.jaccard, found.rho]).all()
    assert (found.jaccard_null, found.rho_null) == (None, None)
    nothing = overlap({}, {}, [], [], seed=0)
    assert np.isnan([nothing.jaccard, nothing.rho]).all()
    apart = overlap(ours, ours, COMPONENTS[:4], [], seed=0)
    assert apart.jaccard == 0
    assert apart.jaccard_null is not None
    assert apart.jaccard_null.p == 1.0


def test_what_cannot_be_compared_is_told() -> None:
    ours = scores(np.random.default_rng(0))
    other = Component("head", 9, 1)
    with pytest.raises(InputError, match=r"head 9\.1 has a score in one of the two models alone, and so have 0 more"):
        overlap(ours, ours | {other: 1.0}, [], [], seed=0)
    with pytest.raises(InputError, match=r"head 9\.1 is of a circuit and has no score"):
        overlap(ours, ours, [], [other], seed=0)
    with pytest.raises(InputError, match=r"head 0\.1 has scores of .* and nan, which have no rank"):
        overlap(ours, ours | {Component("head", 0, 1): float("nan")}, [], [], seed=0)
