"""Each limit is taken apart on the planted model: what its direction does there is known."""

import numpy as np
import pytest
import torch

from benchmarks.limits import LENGTHS, Asked, nearness, passing, rows, scored
from tests.planted import planted_model, planted_prompts


def test_the_planted_direction_passes_every_limit_and_noise_passes_none() -> None:
    model, prompts = planted_model(), planted_prompts()
    asked = Asked("planted", model, prompts.train, prompts.validation)
    names, vectors = zip(*asked.directions([3]), strict=True)
    noise = torch.randn(32, generator=torch.Generator().manual_seed(0))
    stack = torch.stack([*vectors, noise])
    found = scored(model, asked, stack, [3, 3, 3], {"own tokens": asked.tokens})
    harmful, harmless = asked.kept
    assert harmful.all()
    assert harmless.all()
    bypass, induce = found.bypass["own tokens"].mean(1), found.induce[1.0].mean(1)
    assert bypass[0] < 0 < bypass[2]
    assert induce[2] < 0 < induce[0]
    assert set(found.induce) == set(LENGTHS)
    assert passing(found.induce[1.0][0], 0.0, np.inf) == 1
    assert passing(found.induce[1.0][2], 0.0, np.inf) == 0
    table = "\n".join([*rows(asked, found, names), *nearness(asked, found, names)])
    assert "| planted | kept | 3 |" in table


def test_how_often_as_many_prompts_would_pass() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.05, 200)
    assert passing(values - values.mean() + 0.1, 0.0, 0.1) == pytest.approx(0.5, abs=0.04)
    assert passing(np.full(20, 0.2), 0.0, 0.1) == 0
    assert passing(np.full(20, 0.05), 0.0, 0.1) == 1
