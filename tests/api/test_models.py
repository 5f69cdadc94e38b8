"""Where a model comes from makes no difference to its figures."""

from pathlib import Path

import pytest
import torch

import rcm
from rcm.api.models import Model
from rcm.record.results import Scalar, Tensors
from tests.conftest import CHAT, save, tiny_model
from tests.planted import planted_prompts

QUICK = {"null_draws": 20, "null_directions": 1, "exhaustive": True, "dataset": planted_prompts()}


def scalars(model: Model) -> dict[str, float]:
    found = rcm.direction(model, **QUICK)
    return {name: one.value for name, one in found.results.items() if isinstance(one, Scalar)}


def directions(model: Model) -> dict[str, torch.Tensor]:
    (found,) = [
        one
        for one in rcm.direction(model, **QUICK).results.values()
        if isinstance(one, Tensors) and one.name == "direction/directions"
    ]
    return dict(found.tensors)


def test_a_model_of_ones_own_gives_the_figures_of_its_folder(tmp_path: Path) -> None:
    made = tiny_model("llama", template=CHAT)
    folder = save(made, tmp_path / "tiny")
    loaded = rcm.load(folder, batch_size=8, device="cpu")
    wrapped = rcm.wrap(made.hf, made.template.tokenizer, batch_size=8)
    assert scalars(loaded) == pytest.approx(scalars(wrapped), rel=0, abs=0, nan_ok=True)
    ours, theirs = directions(loaded), directions(wrapped)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sum(float(one.abs().sum()) for one in ours.values()) > 0


def test_what_is_wrapped_is_checked_like_what_is_loaded(sentence) -> None:
    made = tiny_model("llama")
    tokenizer = made.template.tokenizer
    assert "not a LoadedModel" in sentence(lambda: rcm.wrap(made, tokenizer))
    assert "not a str" in sentence(lambda: rcm.wrap(made.hf, "tokenizer"))
    assert "float64" in sentence(lambda: rcm.wrap(tiny_model("llama").hf.double(), tokenizer))
    assert "choose chat, plain, no_thinking, or of:MODEL" in sentence(
        lambda: rcm.wrap(made.hf, tokenizer, template="chatty")
    )
    broken = tiny_model("llama").hf
    broken.lm_head.weight[0, 0] = float("nan")
    assert "infinite or not a number" in sentence(lambda: rcm.wrap(broken, tokenizer))
    with torch.device("meta"):
        empty = type(made.hf)(made.hf.config)
    assert "load its weights" in sentence(lambda: rcm.wrap(empty, tokenizer))


def test_a_tokenizer_of_another_model_is_told_before_anything_is_measured(sentence) -> None:
    made = tiny_model("llama", vocab_size=64)
    model = rcm.wrap(made.hf, made.template.tokenizer)
    assert "has embeddings of 64" in sentence(lambda: rcm.direction(model, dataset=planted_prompts()))


def test_names_of_models(tmp_path: Path, sentence) -> None:
    said = sentence(lambda: rcm.load("smollm2-135"))
    assert "no folder, no GGUF file, no ORG/NAME of the hub" in said
    assert "smollm2-135m-refusal" in said
    assert "has no config.json" in sentence(lambda: rcm.load(tmp_path))
    assert "hf download nobody/nothing" in sentence(lambda: rcm.load("nobody/nothing"))
    assert "is the model's path already" in sentence(lambda: rcm.load(tmp_path, path="x"))
    assert "did you mean 'revision'" in sentence(lambda: rcm.load("pythia-70m", revison="step1"))
    assert "There is no device 'gpu'" in sentence(lambda: rcm.load("random", device="gpu"))


def test_a_model_of_the_hub_needs_no_option(hub_cache) -> None:
    hub_cache("someone/some-model", revision="step7")
    model = rcm.load("someone/some-model", revision="step7", template="plain", device="cpu")
    assert model.loaded.identity["name"] == "someone/some-model"
    assert "plain template" in repr(model)
