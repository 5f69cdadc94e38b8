"""The interval of a rate holds although the judge errs; without its errors it does not."""

import numpy as np
import pytest

from rcm.stats import JudgeErrors, misjudged_interval, rate_interval


def counts(hits: int, of: int) -> np.ndarray:
    return np.arange(of) < hits


def test_the_formula_is_lang_and_reiczigels() -> None:
    """As R's `asht::prevSeSp` computes it, step by step: 20 of 100, sensitivity 54 of 60, specificity 190 of 200."""
    z, se, sp = 1.959963984540054, 55 / 62, 191 / 202
    rate = (20 + z**2 / 2) / (100 + z**2)
    share = (rate + sp - 1) / (se + sp - 1)
    shift = 2 * z**2 * (share * se * (1 - se) / 62 - (1 - share) * sp * (1 - sp) / 202)
    variance = rate * (1 - rate) / (100 + z**2) + share**2 * se * (1 - se) / 62 + (1 - share) ** 2 * sp * (1 - sp) / 202
    half = z * variance**0.5 / (se + sp - 1)
    found = misjudged_interval(counts(20, 100), JudgeErrors(((54, 60),), ((190, 200),)))
    assert found == pytest.approx((share + shift - half, share + shift + half))


@pytest.mark.parametrize("n", [12, 48, 144])
@pytest.mark.parametrize("true", [0.02, 0.3, 0.7, 0.98])
def test_it_covers_what_people_would_count(n: int, true: float) -> None:
    """Sensitivity .90 and specificity .93, each known from tests of its own in every draw."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(800):
        errors = JudgeErrors(((random.binomial(80, 0.90), 80),), ((random.binomial(80, 0.93), 80),))
        found = misjudged_interval(counts(random.binomial(n, true * 0.90 + (1 - true) * 0.07), n), errors)
        covered += found is not None and found[0] <= true <= found[1]
    assert covered / 800 >= 0.93


def test_without_its_errors_the_interval_does_not_cover() -> None:
    random = np.random.default_rng(1)
    drawn = [rate_interval(counts(random.binomial(144, 0.98 * 0.9 + 0.02 * 0.07), 144)) for _ in range(500)]
    assert np.mean([low <= 0.98 <= high for low, high in drawn]) < 0.3


def test_a_judge_that_differs_from_model_to_model_is_known_less_well() -> None:
    """The same pooled counts; in one case all models agree with them, in the other one model is judged badly."""
    alike = JudgeErrors(((90, 100),) * 4, ((95, 100),) * 4)
    unlike = JudgeErrors(((100, 100), (100, 100), (100, 100), (60, 100)), ((95, 100),) * 4)
    narrow, wide = (misjudged_interval(counts(70, 100), errors) for errors in (alike, unlike))
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_a_judge_near_chance_has_no_corrected_interval() -> None:
    assert misjudged_interval(counts(5, 10), JudgeErrors(((5, 10),), ((6, 10),))) is None
    assert misjudged_interval(counts(0, 0), JudgeErrors(((50, 50),), ((50, 50),))) is None


def test_of_misses_it_is_the_mirror() -> None:
    errors = JudgeErrors(((54, 60), (30, 40)), ((190, 200),))
    low, high = misjudged_interval(counts(70, 100), errors)
    mirrored = misjudged_interval(counts(30, 100), errors.of_misses)
    assert mirrored == pytest.approx((1 - high, 1 - low))
