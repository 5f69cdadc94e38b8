"""Tuning must teach what it is told to, and leave the model as it was."""

import pytest
import torch

from rcm.execution.passes import last_logits
from rcm.models.adapter import check_adapter, merged, trained_on
from rcm.models.loaded import LoadedModel
from rcm.prompts import texts
from rcm.record.identity import prompt_digest
from rcm.record.run import Run
from rcm.record.storage import Store
from tests.conftest import save
from tests.planted import UNUSED_AXIS, WIDTH, by_name, method, planted_model, planted_prompts, reported


@pytest.fixture(scope="module")
def tuned():
    """The planted model, made to answer everything, then taught to refuse again; and what came of it."""
    model = planted_model()
    refuse = model.template.tokenizer("R")["input_ids"][0]
    with torch.no_grad():  # `R` is read from an axis that nothing writes to
        model.hf.get_output_embeddings().weight[refuse] = 5 * torch.eye(WIDTH)[UNUSED_AXIS]
    before = last_logits(model, ["abc", "a#c"])
    settings = method(
        "safety_tune", refusals=["RRRR"], max_new_tokens=4, epochs=12, batch=8, learning_rate=1e-2, checkpoints=2
    )
    results = list(reported(settings, model, planted_prompts()).values())
    return model, before, results


def test_tuned_model_refuses_what_it_should(tuned) -> None:
    found = by_name(tuned[2])
    assert found["safety_tune/refusal_rate_harmful"].value >= 0.9
    assert found["safety_tune/refusal_rate_harmless"].value <= 0.1
    losses = found["safety_tune/loss"].lines[0].y
    assert losses[-1] < losses[0] / 4


def test_base_is_left_as_it_was(tuned) -> None:
    model, before, _ = tuned
    torch.testing.assert_close(last_logits(model, ["abc", "a#c"]), before)
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())


def test_stored_adapter_brings_the_behaviour_back(tuned, tmp_path) -> None:
    model, _, results = tuned
    adapter = by_name(results)["safety_tune/adapter"]
    with Store(Run("id", tmp_path / "run", {}, {}, {})) as store:
        store.save(adapter)
    folder = tmp_path / "run" / "adapter"
    check_adapter(folder, model.hf.config, "tiny")
    base = save(model, tmp_path / "base")
    again = type(model.hf).from_pretrained(base)
    twin = LoadedModel.of(merged(again, folder), model.template.tokenizer, "chat")
    harmful = texts(planted_prompts().test.harmful)
    refuse = model.template.tokenizer("R")["input_ids"][0]
    assert (last_logits(twin, harmful).argmax(-1) == refuse).float().mean() >= 0.9
    assert trained_on(folder) >= {prompt_digest(prompt) for prompt in texts(planted_prompts().train.harmful)}


def test_checkpoints_on_the_way_are_kept(tuned) -> None:
    names = [result.name for result in tuned[2] if type(result).__name__ == "Adapter"]
    assert len(names) == 3
    assert names[-1] == "safety_tune/adapter"
    early, late = (by_name(tuned[2])[name].tensors for name in (names[0], names[-1]))
    assert any(not torch.equal(early[key], late[key]) for key in late)


def test_strength_weakens_what_was_learnt(tuned) -> None:
    model = tuned[0]
    settings = method(
        "safety_tune", refusals=["RRRR"], max_new_tokens=4, epochs=12, batch=8, learning_rate=1e-2, strength=0.01
    )
    found = reported(settings, model, planted_prompts())
    weak = found["safety_tune/adapter"]
    assert found["safety_tune/loss"].lines[0].y[-1] < 0.5
    assert weak.config["lora_alpha"] / weak.config["r"] == pytest.approx(0.01 * settings.scale)
    assert found["safety_tune/refusal_rate_harmful"].value <= 0.1
