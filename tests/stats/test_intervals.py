"""Intervals hold what they promise, also where prompts come in categories; too few have none."""

import numpy as np
import pytest

from rcm.stats import (
    FEWEST,
    bootstrap,
    by_cluster,
    mean_interval,
    paired_difference_interval,
    rate_interval,
    wilson,
)

CATEGORIES = [f"c{i % 12}" for i in range(48)]


def test_wilson_is_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)  # Wilson (1927), as statsmodels gives it
    assert wilson(0, 12)[0] == 0
    assert wilson(12, 12)[1] == 1


def test_rates_without_categories_have_wilsons() -> None:
    hits = np.arange(10) < 8
    assert rate_interval(hits) == wilson(8, 10)
    assert rate_interval(hits, [""] * 10) == wilson(8, 10)


def _coverage(interval_of, p: float, spread: float, draws: int = 1500) -> float:
    """How often the interval covers the mean of rates that differ by category."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(draws):
        rates = np.clip(p + spread * random.standard_normal(12), 0, 1)
        hits = random.random(48) < np.array([rates[i % 12] for i in range(48)])
        low, high = interval_of(hits)
        covered += low <= p <= high
    return covered / draws


def test_rates_by_category_cover_where_categories_differ() -> None:
    by_category = _coverage(lambda hits: rate_interval(hits, CATEGORIES), 0.5, 0.35)
    alone = _coverage(lambda hits: rate_interval(hits), 0.5, 0.35)
    assert by_category >= 0.93
    assert alone <= 0.90  # so the categories are needed
    assert _coverage(lambda hits: rate_interval(hits, CATEGORIES), 0.5, 0.0) >= 0.94


@pytest.mark.parametrize("n", [FEWEST, 24])
def test_means_cover(n: int) -> None:
    random = np.random.default_rng(1)
    drawn = [mean_interval(random.standard_normal(n)) for _ in range(1500)]
    assert 0.93 <= np.mean([one is not None and one[0] <= 0 <= one[1] for one in drawn]) <= 0.97


def test_means_by_category_cover_where_categories_differ() -> None:
    random = np.random.default_rng(2)
    covered = {"by": 0, "alone": 0}
    for _ in range(1000):
        shifts = random.standard_normal(12)
        values = random.standard_normal(48) + np.array([shifts[i % 12] for i in range(48)])
        for name, clusters in (("by", CATEGORIES), ("alone", [])):
            low, high = mean_interval(values, clusters)
            covered[name] += low <= 0 <= high
    assert covered["by"] >= 930
    assert covered["alone"] <= 850


def test_bootstrap_covers_a_difference_of_medians() -> None:
    random = np.random.default_rng(3)
    drawn = [
        bootstrap(lambda a, b: np.median(a) - np.median(b), *random.exponential(size=(2, 20)), seed=0, draws=300)
        for _ in range(200)
    ]
    assert np.mean([one is not None and one[0] <= 0 <= one[1] for one in drawn]) >= 0.9


def test_too_few_have_no_interval() -> None:
    few = np.arange(FEWEST - 1.0)
    assert mean_interval(few) is None
    assert bootstrap(np.mean, few, seed=0) is None
    assert bootstrap(np.mean, np.ones(20), seed=0) is None  # nothing varies
    assert by_cluster(lambda index: 0.0, ["a", "b"] * 10) is None


def test_by_cluster_is_the_t_interval_of_equal_clusters() -> None:
    """Of a mean, leaving out clusters of one prompt gives the textbook's standard error."""
    values = np.random.default_rng(4).standard_normal(20)
    alone = by_cluster(lambda index: float(values[index].mean()), [str(i) for i in range(20)])
    assert alone == pytest.approx(mean_interval(values))


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_paired_differences_cover(spread: float) -> None:
    """Also where a whole category changes."""
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(1000):
        readiness = random.standard_normal(48)
        before, after = (
            readiness + random.standard_normal(48) + spread * random.standard_normal(12)[np.arange(48) % 12] > 0
            for _ in range(2)
        )
        low, high = paired_difference_interval(before, after, CATEGORIES)
        covered += low <= 0 <= high
    assert covered >= 940


def test_no_difference_among_few_is_not_certainly_none() -> None:
    same = np.zeros(8, dtype=bool)
    low, high = paired_difference_interval(same, same)
    assert low == -high
    assert high == pytest.approx(1.96 * 1 / 10, abs=1e-3)  # sqrt(0.5 + 0.5) / (8 + 2)


def test_a_difference_of_shares_is_none_of_more_than_one() -> None:
    none = np.zeros(48, dtype=bool)
    assert paired_difference_interval(none, ~none, CATEGORIES)[1] <= 1
    assert paired_difference_interval(~none, none, CATEGORIES)[0] >= -1
    # Nine categories turn, three do not: over so few that differ so much, the jackknife goes beyond.
    some = np.arange(48) % 12 < 9
    assert paired_difference_interval(none, some, CATEGORIES)[1] == 1
    assert paired_difference_interval(some, none, CATEGORIES)[0] == -1
