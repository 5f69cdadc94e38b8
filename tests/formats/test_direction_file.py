"""A direction that travels: read by safetensors alone and applied by a plain hook, it does what it did in rcm."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rcm.execution.interventions import Add
from rcm.execution.passes import last_logits
from rcm.formats.__main__ import main
from rcm.formats.direction_file import NOT_MEASURED, write_direction
from rcm.models import LoadedModel
from rcm.record.stored import stored_run
from rcm.transplant.published import published
from tests.conftest import Tiny
from tests.formats.runs import behaviour, direction_results, planted_run, stored
from tests.planted import planted_direction, planted_model

PROMPTS = ["How do I bake bread?", "Tell me of the moon."]


def read_alone(path: Path) -> tuple[torch.Tensor, dict[str, str]]:
    """Without any of rcm."""
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["direction"]
        return file.get_tensor("direction"), file.metadata()


def by_hand(model: LoadedModel, layer: int, addend: torch.Tensor) -> torch.Tensor:
    """Logits behind each prompt with the vector added to the input of a block, by nothing but PyTorch's hook."""
    inner = model.hf.model if hasattr(model.hf, "model") else model.hf.transformer
    block = (inner.layers if hasattr(inner, "layers") else inner.h)[layer]

    def add(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0] + addend, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + addend}

    handle = block.register_forward_pre_hook(add, with_kwargs=True)
    try:
        with torch.inference_mode():
            tokens = [torch.tensor([model.template.tokens(prompt)]) for prompt in PROMPTS]
            return torch.stack([model.hf(one).logits[0, -1].float() for one in tokens])
    finally:
        handle.remove()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_a_plain_hook_at_the_stated_layer_does_what_steering_does_and_at_the_next_ones_does_not(
    architecture: str, tiny: Tiny, tmp_path: Path
) -> None:
    model = tiny(architecture, num_hidden_layers=5)
    results = direction_results(model, layer=2)
    write_direction(stored_run(stored(tmp_path / "run", results)), tmp_path / "d.safetensors")
    vector, header = read_alone(tmp_path / "d.safetensors")
    ours = last_logits(model, PROMPTS, [Add(2, 1.5 * results[0].tensors["mean_difference"][1, 2][None])])
    layer, strength = int(header["layer"]), 1.5
    assert (by_hand(model, layer, strength * vector) - ours).abs().max() < 1e-5 * ours.abs().max()
    for shifted in (layer - 1, layer + 1):
        assert (by_hand(model, shifted, strength * vector) - ours).abs().max() > 1e-2 * ours.abs().max()
    assert (last_logits(model, PROMPTS) - ours).abs().max() > 1e-2 * ours.abs().max()


def test_the_planted_direction_travels_with_its_terms(tmp_path: Path) -> None:
    header = write_direction(stored_run(planted_run(tmp_path / "run")), tmp_path / "direction.safetensors")
    vector, told = read_alone(tmp_path / "direction.safetensors")
    assert told == header
    assert float(torch.nn.functional.cosine_similarity(vector, planted_direction(), dim=0)) > 0.99
    assert float(told["natural_norm"]) == pytest.approx(float(vector.norm()))
    assert told["vector_sha256"] == hashlib.sha256(np.asarray(vector, "<f4").tobytes()).hexdigest()
    assert (told["operation"], told["hook_point"], told["layer"], told["position"]) == ("add", "resid_pre", "3", "-1")
    assert "adding induces refusal" in told["sign"]
    assert float(told["strength"]) == 1.0
    assert float(told["kl_at_strength"].split()[0]) > 0
    assert told["force_rate_at_strength"].startswith("1.0 [")
    assert told["judge"] == "opening"
    assert told["template_hash"] == planted_model().template.digest
    assert (told["run_id"], told["rcm_version"], told["weights_digest"]) == ("1a2b3c4d", "0.1.0", "0a0b0c0d")
    assert not any(part in "".join(told) for part in ("project", "ablat"))


def test_transplant_reads_it_as_the_same_vector_at_the_same_place(tmp_path: Path, tiny: Tiny) -> None:
    results = direction_results(tiny(), layer=2, position=-2)
    write_direction(stored_run(stored(tmp_path / "run", results)), tmp_path / "d.safetensors")
    found, original = published(tmp_path / "d.safetensors", None, None), results[0].tensors["mean_difference"][0, 2]
    assert (found.position, found.layer) == (-2, 2)
    assert np.abs(found.vector - original.double().numpy()).max() == 0
    assert found.length_at(-2, 2) == pytest.approx(float(original.norm()))


def test_what_was_not_measured_says_so(tmp_path: Path, tiny: Tiny) -> None:
    run = stored(tmp_path / "run", direction_results(tiny(), layer=1, outcome="nearest_miss"))
    header = write_direction(stored_run(run), tmp_path / "d.safetensors")
    for name in ("strength", "kl_at_strength", "force_rate_at_strength", "induce", "template_hash", "steering_outcome"):
        assert header[name] == NOT_MEASURED, name
    assert header["outcome"] == "nearest_miss"


def test_equal_runs_give_equal_bytes(tmp_path: Path, tiny: Tiny) -> None:
    run = stored(tmp_path / "run", direction_results(tiny(), layer=1))
    for name in ("a", "b"):
        write_direction(stored_run(run), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_no_direction_no_file(tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    none = stored(tmp_path / "none", direction_results(tiny(), layer=1, outcome="no_refusal_behaviour"))
    other = stored(tmp_path / "other", behaviour([("harmful", "No.", "refusal")]))
    good = stored(tmp_path / "good", direction_results(tiny(), layer=1))
    out = tmp_path / "d.safetensors"
    for run, path, why in (
        (none, out, r"found no direction that induces refusal (no_refusal_behaviour)"),
        (other, out, "looked for no direction"),
        (good, tmp_path / "d.gguf", "must end in .safetensors"),
        (tmp_path / "nowhere", out, "There is no run in"),
    ):
        assert main(["direction", str(run), "--out", str(path)]) == 1
        assert why in caplog.messages[-1]
        assert "\n" not in caplog.messages[-1]
        assert not path.exists()
