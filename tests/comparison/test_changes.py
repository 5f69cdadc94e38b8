"""What differs between two runs is found where it is planted, and not where there is nothing."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import permutation_test

from rcm.comparison.changes import changes, holm
from rcm.comparison.reading import Reading
from tests.comparison.made import N, a_run, held_out, replies
from tests.conftest import tiny_model
from tests.planted import method, opening_judge, planted_prompts, reported


def random_run(
    folder: Path, name: str, stage: str, draw: np.random.Generator, distance: float, refuses: float
) -> Reading:
    """Projections this many standard deviations apart, and this share of harmful prompts refused."""
    refused = {"harmful": draw.random(N) < refuses, "harmless": draw.random(N) < 0.1}
    projected = held_out(draw.standard_normal(N) + distance, draw.standard_normal(N))
    return a_run(folder, name, stage, [replies(refused), projected])


def test_what_was_planted_is_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    base, tuned = (
        random_run(tmp_path, "base", "base", draw, 0.5, 0.1),
        random_run(tmp_path, "tuned", "safety", draw, 3, 0.9),
    )
    found = {one.label: one for one in changes(base, tuned)}
    assert found["harmful prompts refused"].significant
    assert found["separation"].significant
    assert found["separation"].interval[0] > 1
    assert not found["harmless prompts refused"].significant
    assert found["harmful prompts refused"].n == N
    assert "safe lookalikes refused" not in found
    assert (found["harmful prompts refused"].unit, found["separation"].unit) == ("share", "sigma")


def test_equal_models_are_rarely_told_apart(tmp_path: Path) -> None:
    """Of 40 pairs that differ by chance alone, one in twenty may show something: 2 are expected, 6 or more have a
    chance of 1.4 %."""
    draw = np.random.default_rng(0)
    alarms = 0
    for i in range(40):
        runs = [
            random_run(tmp_path / str(i), name, stage, draw, 2, 0.5) for name, stage in (("a", "base"), ("b", "chat"))
        ]
        alarms += any(one.significant for one in changes(*runs))
    assert alarms < 6


def test_other_prompts_are_exchanged_whole_and_fits_to_them_not_tested(tmp_path: Path) -> None:
    """At most 2 of 20 pairs may show something."""
    draw = np.random.default_rng(1)

    def run_of(folder: Path, seed: str) -> Reading:
        harmful, harmless = draw.standard_normal(N) + 2, draw.standard_normal(N)
        refused = {"harmful": harmful > 1.5, "harmless": harmless > 1.5}
        return a_run(folder, seed, "base", [replies(refused, seed), held_out(harmful, harmless, seed)])

    pairs = [(run_of(tmp_path / str(i), "0"), run_of(tmp_path / str(i), "1")) for i in range(20)]
    found = [changes(*pair) for pair in pairs]
    assert all(one.n is None for of in found for one in of)
    assert all([np.isnan(one.p) for one in of] == [False, False, True, True] for of in found)
    assert sum(any(one.significant for one in of) for of in found) <= 2
    assert [one.label for one in found[0]] == [
        *("harmful prompts refused", "harmless prompts refused"),
        *("separation", "probe accuracy"),
    ]


@pytest.mark.slow
def test_two_seeds_of_one_model_do_not_differ(tmp_path: Path) -> None:
    """A tiny model that opens its replies with `p` or not, as chance has it, on prompts drawn anew, measured as in a
    run; at most 2 of 20 pairs may show something."""
    model, judge = tiny_model(seed=1, batch_size=16), opening_judge("p")

    def run_of(seed: int) -> Reading:
        prompts = planted_prompts(seed, sizes=(1, 1, 48))
        found = reported(method("behaviour", max_new_tokens=2), model, prompts, judge, seed=seed)
        return a_run(tmp_path, str(seed), "base", list(found.values()))

    found = [changes(run_of(2 * i), run_of(2 * i + 1)) for i in range(20)]
    shares = np.array([[one.before for one in of] for of in found])
    assert shares.shape == (20, 2)
    assert (shares.std(0) > 0.02).all()  # chance has its part
    assert sum(any(one.significant for one in of) for of in found) <= 2


def test_the_p_value_is_that_of_an_exact_exchange(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    before, after = draw.random(N) < 0.4, draw.random(N) < 0.6
    quiet = {"harmless": np.zeros(N)}
    runs = [
        a_run(tmp_path, str(i), "base", [replies({"harmful": one} | quiet)]) for i, one in enumerate((before, after))
    ]
    change = next(one for one in changes(*runs) if one.label == "harmful prompts refused")
    slow = permutation_test(
        (after.astype(float), before.astype(float)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=5000,
        rng=0,
    )
    # Two figures were compared, of which the other has p = 1.
    assert change.p == pytest.approx(min(1, 2 * slow.pvalue), abs=0.03)
    differences = after.astype(float) - before
    assert change.d == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_a_figure_without_a_value_is_not_tested(tmp_path: Path) -> None:
    """Projections that do not vary within a class have no separation in standard deviations."""
    flat = held_out(np.zeros(N), np.zeros(N))
    runs = [a_run(tmp_path, name, "base", [flat]) for name in ("a", "b")]
    found = {one.label: one for one in changes(*runs)}
    assert np.isnan(found["separation"].difference)
    assert np.isnan(found["separation"].p)
    assert not found["separation"].significant
