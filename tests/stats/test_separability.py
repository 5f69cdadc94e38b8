"""One formula for one sample and for many draws at once."""

import numpy as np

from rcm.stats.separability import separation, separations, spread


def test_many_draws_at_once_are_each_of_them_alone() -> None:
    draw = np.random.default_rng(0)
    harmful, harmless = draw.standard_normal((5, 30)) + 2, draw.standard_normal((5, 20))
    together = separations(harmful, harmless)
    assert together.shape == (5,)
    assert together.tolist() == [separation(*both) for both in zip(harmful, harmless, strict=True)]
    a, b = harmful[0], harmless[0]
    within = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert separation(a, b) == float((a.mean() - b.mean()) / within)
    assert spread(a, b) == within


def test_where_nothing_varies_there_is_no_separation() -> None:
    flat = np.zeros((2, 4))
    assert np.isnan(separations(flat, flat + 1)).all()
    assert separation(flat[0], flat[0]) == 0
