"""One statistic for share, interval and p-value: exact under swapped labels, and honest about what is not critical."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rcm.circuits.ground_truth import CIRCUIT, DETECT_A, DETECT_B, SHAPE, ground_truth, twins
from rcm.execution.components import Rows, Shape
from rcm.execution.engine import engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.patching import Effects, Interchange, interchange
from rcm.stats import label_swap_max_t, mean_interval

COMPONENTS = Shape(8, 4).components(["mlp"])


def meaningless(draw: np.random.Generator, pairs: int, circuit: float) -> Interchange:
    """Labels mean nothing: the two prompts of a pair differ by chance, one cell carries a part of any difference, and
    what a patch takes from either prompt besides has one skewed distribution."""
    harmful, harmless = draw.normal(0, 3, size=(2, pairs))
    carried = np.zeros((pairs, len(COMPONENTS)))
    carried[:, 0] = circuit * (harmful - harmless)
    damage = draw.exponential(size=(2, pairs, len(COMPONENTS))) - 1
    into_harmful, into_harmless = harmful[:, None] - carried - damage[0], harmless[:, None] + carried - damage[1]
    return Interchange(*map(torch.from_numpy, (harmful, harmless, into_harmful, into_harmless)))


def swapped(study: Interchange, pairs: Sequence[bool]) -> Interchange:
    """The same measurements where some pairs changed places."""
    chosen = torch.tensor(pairs)
    alone = torch.where(chosen, study.harmless, study.harmful), torch.where(chosen, study.harmful, study.harmless)
    rows = chosen[:, None]
    into = (
        torch.where(rows, study.into_harmless, study.into_harmful),
        torch.where(rows, study.into_harmful, study.into_harmless),
    )
    return Interchange(*alone, *into)


def test_swapped_labels_change_ways_and_signs_and_never_the_choice_of_pairs() -> None:
    """What max-T supposes of its figures holds for shares: measured again after swapping, they are as it says."""
    study = meaningless(np.random.default_rng(0), 12, circuit=1.0)
    chosen = [bool(i % 3) for i in range(12)]
    again, rows = swapped(study, chosen), torch.tensor(chosen)[:, None]
    necessity, sufficiency = study.shares
    assert torch.equal(again.gap.abs(), study.gap.abs())
    assert torch.allclose(again.shares[0], torch.where(rows, -sufficiency, necessity))
    assert torch.allclose(again.shares[1], torch.where(rows, -necessity, sufficiency))


def test_of_pairs_with_a_gap_labels_without_meaning_are_rarely_significant() -> None:
    """Though in every pair one cell carries most of the gap. Were only pairs chosen in which the harmful prompt is
    refused more, that cell would be significant nearly always."""
    smallest, one_sided = [], []
    for seed in range(600):
        study = meaningless(np.random.default_rng(seed), 24, circuit=0.8)
        effects = Effects.of(study, COMPONENTS, min_gap=1.0, seed=seed)
        assert 8 < effects.with_gap.sum() <= 24
        smallest.append(min(effects.necessity.p.min(), effects.sufficiency.p.min()))
        if seed < 20:
            kept = study.where(study.gap >= 1.0)
            one_sided.append(min(map(np.min, label_swap_max_t(*kept.shares.numpy(), seed=seed))))
    assert 0.03 <= np.mean(np.array(smallest) <= 0.05) <= 0.07
    assert np.mean(np.array(one_sided) <= 0.05) > 0.5


def test_the_share_is_that_of_all_pairs_with_a_gap_and_counts_against_where_it_is_reversed() -> None:
    gap = torch.tensor([4.0, 4.0, 4.0, -4.0, 0.5] * 4, dtype=torch.float64)
    zero = torch.zeros(20, dtype=torch.float64)
    study = Interchange(gap, zero, zero[:, None].expand(-1, 2), gap[:, None].expand(-1, 2))  # everything is replaced
    effects = Effects.of(study, COMPONENTS[:2], min_gap=1.0, seed=0)
    assert effects.with_gap.sum() == 16
    assert effects.share == pytest.approx([0.5, 0.5])  # three of four, less one of four


def test_intervals_go_by_category_where_pairs_have_categories() -> None:
    draw = np.random.default_rng(0)
    study, categories = meaningless(draw, 36, circuit=0.5), [f"category {i % 6}" for i in range(36)]
    effects = Effects.of(study, COMPONENTS, 1.0, 0, categories)
    kept = np.flatnonzero(effects.with_gap)
    necessity = study.shares[0].numpy()[kept]
    for cell in range(len(COMPONENTS)):
        interval = mean_interval(necessity[:, cell], [categories[i] for i in kept])
        assert (effects.necessity.low[cell], effects.necessity.high[cell]) == pytest.approx(interval)
    alone = Effects.of(study, COMPONENTS, 1.0, 0)
    assert alone.necessity.low != pytest.approx(effects.necessity.low)
    assert alone.necessity.p.tolist() == effects.necessity.p.tolist()


def strong(shares: Sequence[np.ndarray]) -> Effects:
    """Pairs with a gap of 2, in which each cell has these shares, both ways."""
    share = 2 * torch.from_numpy(np.stack(shares, axis=1))
    gap = torch.full((len(share),), 2.0, dtype=torch.float64)
    study = Interchange(gap, torch.zeros_like(gap), gap[:, None] - share, share)
    return Effects.of(study, COMPONENTS[: share.shape[1]], min_gap=1.0, seed=0)


def test_a_strong_cell_that_is_not_critical_says_what_it_lacks() -> None:
    """One cell is the strongest of all, by two pairs of twelve; one is real and small; one is both."""
    wiggle = np.linspace(-0.004, 0.004, 12)
    effects = strong([np.repeat([0.0, 3.0], [10, 2]), 0.015 + wiggle, 0.3 + wiggle])
    assert effects.strongest_first([0, 1, 2]) == [0, 2, 1]
    assert effects.critical(0.02).tolist() == [False, False, True]
    assert effects.lacking(0, 0.02) == f"p = {effects.necessity.p[0]:.2g} over all cells"
    assert effects.lacking(1, 0.02) == "share not certainly above min_share"
    assert effects.lacking(2, 0.02) == ""
    few = strong([(0.3 + wiggle)[:7]])
    assert few.lacking(0, 0.02) == "fewer than 8 pairs, so no interval"
    assert np.isnan(few.necessity.low).all()
    assert not few.critical(0.02).any()


def test_a_cell_against_refusing_is_as_strong_as_one_for_it() -> None:
    wiggle = np.linspace(-0.01, 0.01, 12)
    effects = strong([0.1 + wiggle, -0.4 + wiggle])
    assert effects.strongest_first([0, 1]) == [1, 0]
    assert effects.critical(0.02).tolist() == [True, True]
    assert effects.share == pytest.approx([0.1, -0.4])


def test_of_a_circuit_that_is_known_both_heads_are_critical_and_no_other() -> None:
    """Each does all in one half of the pairs, and nothing in the other; a head that does a ten-thousandth, as steadily
    to either prompt, has the larger |t| whatever the labels."""
    model, components = ground_truth("strict"), SHAPE.components(["head", "mlp"])
    pairs = [(model.template.tokens(ours), model.template.tokens(theirs)) for ours, theirs in twins(40, seed=1000)]
    base, source = (cache_components(model, side) for side in zip(*pairs[:4], strict=True))
    engine = engine_of(model, base, source, seed=0)
    study = interchange(engine, pairs, Rows.each(["head", "mlp"], SHAPE), LogOdds(model.refusal_tokens or ()))
    effects = Effects.of(study, components, min_gap=1.0, seed=0)
    assert {one for one, critical in zip(components, effects.critical(0.02), strict=True) if critical} == set(CIRCUIT)
    for head in (DETECT_A, DETECT_B):
        assert effects.share[components.index(head)] == pytest.approx(0.5, abs=0.01)
        assert effects.necessity.p[components.index(head)] <= 0.001
    shares = study.shares.numpy()
    damage = shares[0] - shares[1]
    steady = np.abs(damage.mean(0)) / damage.std(0) > 1
    assert steady[np.abs(effects.share) < 1e-3].any()
