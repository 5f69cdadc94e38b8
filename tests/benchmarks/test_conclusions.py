"""The words of the methods hold their error rates in worlds of known truth (the whole table: docs/claims.md)."""

import numpy as np
import pytest

from benchmarks.conclusions import WORLDS, table

DRAWS = 100


@pytest.mark.parametrize(
    ("word", "name", "right", "world"), WORLDS, ids=lambda part: part if isinstance(part, str) else ""
)
def test_no_word_is_often_wrong(word, name, right, world) -> None:
    draw = np.random.default_rng(1)
    said = sum(world(48, draw) == word for _ in range(DRAWS))
    if right:
        assert said >= 0.65 * DRAWS
    else:
        assert said <= 0.1 * DRAWS  # twice the level: by chance once in a hundred where it holds


def test_table_counts_every_world_at_every_size() -> None:
    rows = list(table(3, sizes=(8, 12)))
    assert [row[:3] for row in rows] == [world[:3] for world in WORLDS for _ in range(2)]
    assert all(row[3] in (8, 12) and 0 <= row[4] <= 3 for row in rows)
