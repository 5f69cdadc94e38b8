"""How alike two directions are, beside what shuffled labels give."""

from pathlib import Path

import pytest
import torch

from rcm.comparison.cosines import cosines
from rcm.errors import InputError
from rcm.record.results import Scalar
from tests.comparison.made import a_run, place, twins


def test_cosines_are_those_of_the_mean_differences(tmp_path: Path) -> None:
    """Half of the base's direction is the tuned model's: at every layer, but for the null of 400 dimensions."""
    base, tuned, _ = twins(tmp_path, vector=0.5)
    found = cosines(base, tuned)
    assert found is not None
    alike, null = (line.y for line in found.lines)
    assert alike == pytest.approx([0.5**0.5] * 3)
    tensors = [reading.run.tensors("direction/directions").tensors for reading in (base, tuned)]
    first, second = (of["mean_difference_all"][0, 1] for of in tensors)
    drawn = [
        *(torch.cosine_similarity(vector, second, dim=0).abs() for vector in tensors[0]["shuffled"][0, 1]),
        *(torch.cosine_similarity(first, vector, dim=0).abs() for vector in tensors[1]["shuffled"][0, 1]),
    ]
    assert null[1] == pytest.approx(float(torch.stack(drawn).quantile(0.95)))
    assert 0.05 < null[1] < 0.2  # two standard deviations of random vectors


def test_without_directions_of_one_shape_there_are_no_cosines(tmp_path: Path) -> None:
    _, tuned, _ = twins(tmp_path)
    smaller = a_run(tmp_path, "small", "base", place(2.0, [1.0] * 8, refuses=False))
    bare = a_run(tmp_path, "bare", "base", [Scalar("direction/position", -1.0)])
    assert cosines(smaller, tuned) is None
    assert cosines(bare, tuned) is None
    assert cosines(tuned, bare) is None


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"no tensors"), lambda file: file.unlink()])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, damage) -> None:
    base, tuned, _ = twins(tmp_path)
    damage(tuned.run.directory / "direction_directions.safetensors")
    with pytest.raises(InputError, match=r"direction_directions.safetensors cannot be read"):
        cosines(base, tuned)
