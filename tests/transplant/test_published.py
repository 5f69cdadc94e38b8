"""Directions that somebody else found, as files, read with their place or refused in one sentence."""

import io
import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rcm.errors import InputError
from rcm.record.identity import run_id
from rcm.transplant.published import published
from rcm.transplant.torch_file import tensor_of
from tests.planted import LAYERS, planted_model

VECTOR = torch.arange(1.0, 33.0)


def reference(folder: Path, vector: Any = VECTOR, **metadata: Any) -> Path:
    """As the published reference leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(vector, folder / "direction.pt")
    (folder / "direction_metadata.json").write_text(json.dumps({"pos": -1, "layer": 3} | metadata))
    return folder


def file(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    save_file(tensors, path, metadata)
    return path


def test_the_references_folder(tmp_path: Path) -> None:
    found = published(reference(tmp_path / "gemma"), None, None)
    assert (found.label, found.position, found.layer, found.chosen) == ("gemma", -1, 3, True)
    assert found.vector.tolist() == VECTOR.tolist()
    assert found.length_at(-1, 3) == pytest.approx(float(VECTOR.norm()))
    assert found.vector_of_all_at(-1, 2) is None
    with pytest.raises(InputError, match="of position -1, layer 3 alone"):
        found.vector_at(-1, 2)


def test_a_safetensors_file_with_its_place_or_told_its_place(tmp_path: Path) -> None:
    told = published(file(tmp_path / "a.safetensors", {"r": VECTOR.half()}, position="-2", layer="1"), None, None)
    assert (told.label, told.position, told.layer) == ("a", -2, 1)
    silent = file(tmp_path / "b.safetensors", {"r": VECTOR})
    assert published(silent, -1, 4).layer == 4
    unit = file(tmp_path / "c.safetensors", {"r": VECTOR / VECTOR.norm()})
    assert published(unit, -1, 4).length_at(-1, 4) is None


def test_a_stack_of_directions_gives_the_one_of_the_place(tmp_path: Path) -> None:
    stack = torch.randn(2, 6, 32)
    every = {"mean_difference": stack, "probe": stack.clone()}
    three = file(tmp_path / "a.safetensors", every, positions="[-4, -1]")
    assert np.allclose(published(three, -4, 5).vector, stack[0, 5])
    assert np.allclose(published(file(tmp_path / "b.safetensors", {"x": stack[0]}), -1, 2).vector, stack[0, 2])
    with pytest.raises(InputError, match=r"shape \[2, 6, 32\], and has no position -3, layer 5"):
        published(three, -3, 5)
    with pytest.raises(InputError, match="layer 6; choose another"):
        published(three, -4, 6)


class Code:
    """What `torch.load` would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("vector", "metadata", "told"),
    [
        (Code(), {}, "cannot be read as a tensor and nothing else"),
        ({"r": VECTOR}, {}, r"holds a dict\); give the vector alone"),
        (VECTOR * torch.nan, {}, "holds no direction"),
        (VECTOR * 0, {}, "holds no direction"),
        (VECTOR[None, None, None], {}, "holds no direction"),
        (VECTOR, {"layer": None}, r"does not say the layer .* method\.transplant\.layer=NUMBER"),
        (VECTOR, {"pos": "last"}, "says 'last' for the position"),
        (VECTOR, {"pos": 3}, "counted from the end of the prompt"),
    ],
    ids=["code", "a dict", "no numbers", "nothing", "a grid", "no layer", "no position", "from the beginning"],
)
def test_what_is_no_direction(
    tmp_path: Path, vector: Any, metadata: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=told):
        published(reference(tmp_path, vector, **metadata), None, None)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "tensor",
    [
        VECTOR,
        VECTOR.double(),
        VECTOR.half(),
        VECTOR.bfloat16(),
        torch.randn(2, 3, 4),
        torch.randn(6, 4).T,
        torch.randn(10)[3:7],
        torch.randn(1000, 300)[::2],
        VECTOR.clone().requires_grad_(),
    ],
    ids=["float", "double", "half", "bfloat16", "stack", "transposed", "part", "every other", "with gradient"],
)
def test_a_tensor_is_what_torch_would_load(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save(tensor, tmp_path / "x.pt")
    found = tensor_of(tmp_path / "x.pt")
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor.detach())


def test_no_more_is_taken_than_a_tensor_by_itself(tmp_path: Path) -> None:
    for number, other in enumerate(([VECTOR], (VECTOR, VECTOR), torch.arange(3), "words", torch.nn.Linear(2, 2), None)):
        torch.save(other, tmp_path / f"{number}.pt")
        with pytest.raises(ValueError, match="it holds"):
            tensor_of(tmp_path / f"{number}.pt")


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_never_more(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    torch.save(VECTOR, buffer)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        file_of = Path(folder) / "x.pt"
        file_of.write_bytes(content)
        with suppress(ValueError, OSError):
            assert isinstance(tensor_of(file_of), torch.Tensor)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("no")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        published(tmp_path / "a.safetensors", -1, 3)
    several = file(tmp_path / "b.safetensors", {"x": VECTOR, "y": VECTOR.clone()})
    with pytest.raises(InputError, match="holds 2 tensors, none of them called direction"):
        published(several, -1, 3)
    reference(tmp_path / "c")
    (tmp_path / "c" / "direction.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="cannot be read as a tensor"):
        published(tmp_path / "c", None, None)
    reference(tmp_path / "d")
    (tmp_path / "d" / "direction_metadata.json").write_text("{pos")
    with pytest.raises(InputError, match="is no JSON"):
        published(tmp_path / "d", None, None)


def test_it_fits_models_of_its_width_that_are_deep_enough(tmp_path: Path) -> None:
    model = planted_model()
    assert published(reference(tmp_path / "a"), None, None).obstacle(model, False) is None
    wide = published(reference(tmp_path / "b", torch.ones(48)), None, None)
    assert "a vector of 48 at layer 3, and this model has 6 layers of width 32" in str(wide.obstacle(model, False))
    assert "6 layers" in str(published(reference(tmp_path / "c", layer=LAYERS), None, None).obstacle(model, False))
    early = published(reference(tmp_path / "d", pos=-40), None, None)
    assert "of position -40, and the chat template ends every prompt in" in str(early.obstacle(model, False))


def test_its_content_names_the_run(tmp_path: Path) -> None:
    def named(place: Path) -> str:
        return run_id({"method": {"transplant": {"source": str(place)}}})

    first, same = reference(tmp_path / "a"), reference(tmp_path / "b")
    other = reference(tmp_path / "c", VECTOR + 1)
    assert named(first) == named(same) != named(other)
