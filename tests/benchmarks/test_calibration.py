"""The rules hold their error rates on tables of known truth (the whole table: benchmarks/calibration.py)."""

import pytest

from benchmarks.calibration import HARD, TRUTHS, by_word, said, table
from rcm.comparison.rule import OPEN

DRAWS, N = 60, 96


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
def test_no_truth_is_mistaken(truth) -> None:
    words = said(truth, N, DRAWS, seed=0)
    wrong = DRAWS - words[truth.word] - words[OPEN] * (truth.word != OPEN)
    assert wrong <= 0.05 * DRAWS, words
    if truth not in HARD and truth.word != OPEN:
        assert words[truth.word] >= 0.7 * DRAWS, words


def test_words_are_counted_over_the_truths_of_others() -> None:
    row = {"truth": "x", "word": "coupling", "n": 48, "draws": 100}
    words = {"coupling": 0.9, "representation": 0.04, "mixed": 0.0, "behaviour": 0.0, "unchanged": 0.0, "open": 0.06}
    other = row | {"truth": "y", "word": "representation"} | words | {"coupling": 0.03, "representation": 0.97}
    found = {one["word"]: one for one in by_word([row | words, other])}
    assert found["coupling"]["wrong"][0] == 0.03
    assert found["coupling"]["found"][0] == 0.9
    assert found["representation"]["wrong"][0] == 0.04


def test_a_table_has_a_row_for_each_truth_whose_words_add_up() -> None:
    rows = table(24, 4)
    assert [row["truth"] for row in rows] == [truth.name for truth in TRUTHS]
    for row in rows:
        assert sum(row[word] for word in ("coupling", "representation", "mixed", "behaviour", "unchanged", "open")) == 1
