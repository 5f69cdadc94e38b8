"""Each test on a planted circuit, on what is none, and how often it errs."""

import numpy as np
import pytest
from scipy.stats import binomtest

from rcm.circuits.hypotheses import (
    equivalence,
    independence,
    minimality,
    partial_necessity,
    sufficiency,
)

EXAMPLES, CIRCUITS = 100, 1000
DRAW = np.random.default_rng(0)
MODEL = DRAW.normal(8, 1, EXAMPLES)
RANDOM = MODEL - 6 + DRAW.normal(0, 1, (CIRCUITS, 1)) + DRAW.normal(0, 0.5, (CIRCUITS, EXAMPLES))


def test_a_circuit_that_does_what_the_model_does_is_sufficient() -> None:
    found = sufficiency(MODEL + 0.1, RANDOM, MODEL)
    assert (found.statistic, found.n, found.holds) == (1000, 1000, True)
    assert found.p < 1e-6


def test_what_overshoots_is_as_wrong_as_what_falls_short() -> None:
    assert not sufficiency(MODEL + 12, RANDOM, MODEL).holds


@pytest.mark.parametrize(("circuits", "wins"), [(100, 96), (1000, 916)])
def test_so_many_wins_are_needed(circuits: int, wins: int) -> None:
    """Of 100 as published, of 1,000 by the same formula; one less is not enough."""

    def of(won: int) -> bool:
        lost = np.full((circuits - won, EXAMPLES), MODEL)
        return sufficiency(MODEL + 1, np.concatenate([np.full((won, EXAMPLES), MODEL - 5), lost]), MODEL).holds

    assert of(wins)
    assert not of(wins - 1)


def test_at_most_one_in_twenty_is_shown_that_wins_as_often_as_is_not_enough() -> None:
    """Circuits that beat a random one with probability q, and complements that are worse than a random one likewise. On
    few examples, of which no win depends here."""
    draw, sufficient, necessary = np.random.default_rng(1), 0, 0
    model = MODEL[:5]
    for _ in range(2000):
        won = draw.random((CIRCUITS, 1)) < 0.9
        sufficient += sufficiency(model + 1, model + np.where(won, 5, 0), model).holds
        necessary += partial_necessity(model + 1, model + np.where(won, 0, 5), model).holds
    for shown in (sufficient, necessary):
        assert binomtest(shown, 2000, 0.05, "greater").pvalue > 0.01
        assert shown > 40, "nor is it never"


def test_a_complement_that_has_lost_the_behaviour_is_necessary() -> None:
    random_complements = MODEL - np.abs(DRAW.normal(0, 0.5, (CIRCUITS, 1)))
    assert partial_necessity(MODEL - 8, random_complements, MODEL).holds
    assert not partial_necessity(MODEL - 0.1, random_complements, MODEL).holds
    assert not partial_necessity(MODEL, np.tile(MODEL, (CIRCUITS, 1)), MODEL).holds, "ties are no wins"


def test_components_that_do_nothing_are_not_minimal() -> None:
    circuit = MODEL - 0.2
    added = circuit + DRAW.normal(0, 0.1, (CIRCUITS, 1))
    carrying, idle = circuit - 2, circuit + 0.001
    found = minimality(circuit, np.stack([carrying, idle, carrying]), added)
    assert [one.holds for one in found] == [True, False, True]


def test_minimality_is_corrected_for_the_number_of_components() -> None:
    """A component that wins 880 of 1,000 is rejected alone, and not among ten of its kind."""
    circuit, added = MODEL, np.concatenate([np.tile(MODEL, (880, 1)), np.tile(MODEL + 5, (120, 1))])
    alone, among = (minimality(circuit, np.tile(MODEL - 1, (n, 1)), added) for n in (1, 10))
    assert alone[0].statistic == among[0].statistic == 880
    assert among[0].p == pytest.approx(10 * alone[0].p)
    assert not alone[0].holds
    assert all(one.holds for one in among)


def test_equivalence_counts_examples() -> None:
    """The mean difference is positive, and half of the examples lie on either side."""
    apart = np.where(np.arange(EXAMPLES) % 2, 0.1, -5.0)
    assert equivalence(MODEL + apart, MODEL).holds
    assert equivalence(MODEL, MODEL).holds, "ties are no difference"
    assert not equivalence(MODEL - 0.01, MODEL).holds
    assert not equivalence(MODEL + 0.01, MODEL).holds
    assert equivalence(MODEL[:8] - 0.01, MODEL[:8]).p > equivalence(MODEL - 0.01, MODEL).p


def test_half_a_tie_speaks_for_neither() -> None:
    model = np.zeros(20)
    three, four = (np.where(np.arange(20) < wins, -1.0, 1.0) for wins in (3, 4))
    three[19] = 0
    between = equivalence(three, model)
    assert between.statistic == 3.5
    assert between.p == equivalence(four, model).p


@pytest.mark.parametrize("scores", [np.zeros(0), np.array([1.0, np.nan])])
def test_without_examples_or_scores_nothing_is_tested(scores: np.ndarray) -> None:
    for test in (
        lambda: sufficiency(scores, scores[None], scores),
        lambda: equivalence(scores, scores),
        lambda: independence(scores, scores, seed=0),
    ):
        with pytest.raises(ValueError, match="finite scores"):
            test()


def test_equivalence_errs_as_often_as_is_said() -> None:
    draw = np.random.default_rng(2)
    wrong = sum(
        not equivalence(np.where(draw.random(EXAMPLES) < 0.6, MODEL - 1, MODEL + 1), MODEL).holds for _ in range(2000)
    )
    assert binomtest(wrong, 2000, 0.05, "greater").pvalue > 0.01
    assert wrong > 20


def test_independence_sees_what_no_correlation_does() -> None:
    assert not independence(-MODEL, MODEL, seed=0).holds
    assert not independence(np.square(MODEL - MODEL.mean()), MODEL, seed=0).holds
    assert independence(DRAW.permutation(MODEL), MODEL, seed=0).holds
    assert independence(np.zeros(EXAMPLES), MODEL, seed=0).holds, "what never changes depends on nothing"


def test_independence_errs_as_often_as_is_said() -> None:
    draw = np.random.default_rng(3)
    p = [independence(draw.normal(size=30), draw.normal(size=30), seed, 99).p for seed in range(400)]
    assert binomtest(sum(one <= 0.05 for one in p), 400, 0.05).pvalue > 0.01
    assert min(p) >= 0.01, "the observed one counts"
