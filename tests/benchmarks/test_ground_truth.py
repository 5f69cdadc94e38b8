"""That training learns: a few steps of it."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.ground_truth import OTHERS, Training
from rcm.circuits.ground_truth import CIRCUIT, NODES, Name, ground_truth


@pytest.mark.parametrize(("name", "parts"), [("strict", {"task", "interchange", "strict"}), ("task", {"task"})])
def test_every_part_of_the_loss_falls_and_what_was_trained_is_what_is_loaded(
    name: Name, parts: set[str], tmp_path: Path
) -> None:
    training = Training(name)
    losses = list(islice(training.losses(), 60))
    assert set(losses[0]) == parts
    for part in parts:
        assert sum(one[part] for one in losses[-3:]) < 0.6 * sum(one[part] for one in losses[:3])
    training.save(tmp_path / name)
    stored = ground_truth(name, tmp_path).hf.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in training.hf.state_dict().items())


def test_the_seed_decides_what_is_trained() -> None:
    first, again, other = (list(Training("strict", 3, seed).losses()) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_what_must_not_matter_is_never_the_circuit_at_the_last_token() -> None:
    where = Training("strict").others(tokens=9)
    assert not where[:, ~OTHERS, -1].any()
    assert where[:, OTHERS, -1].any(0).all()
    assert where[:, [NODES.index(node) for node in CIRCUIT], :-1].any(0).all()
    at_last_alone = ~where[..., :-1].any((1, 2))
    assert 0.3 < at_last_alone.double().mean() < 0.7
