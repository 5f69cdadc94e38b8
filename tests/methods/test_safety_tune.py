"""Tuning must teach what it is told to, and leave the model as it was."""

import pytest
import torch
from torch import Tensor

from rcm.errors import InputError
from rcm.execution.interventions import Ablate, applied
from rcm.execution.passes import last_logits, read_residuals
from rcm.methods.safety_tune import Between, Example, reply_logits
from rcm.models.adapter import check_adapter, merged, trained_on
from rcm.models.loaded import LoadedModel
from rcm.prompts import texts
from rcm.record.identity import prompt_digest
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.stats.metrics import kl_divergence
from tests.conftest import save
from tests.planted import (
    REFUSAL_AXIS,
    UNUSED_AXIS,
    WIDTH,
    by_name,
    method,
    planted_model,
    planted_prompts,
    reported,
)

TINY = {
    "lookalikes": None,
    "max_new_tokens": 4,
    "epochs": 12,
    "batch": 8,
    "learning_rate": 1e-2,
    "harmful_share": 0.4,
    "priced_steps": 0,
    "ablation_penalty": 0.0,
    "strength": 0.75,
}


@pytest.fixture(scope="module")
def tuned():
    """The planted model, made to answer everything, then taught to refuse again; and what came of it."""
    model = unrefusing_model()
    before = last_logits(model, ["abc", "a#c"])
    settings = method(
        "safety_tune", **TINY | {"priced_steps": 10, "ablation_penalty": 1.0}, refusals=["RRRR"], checkpoints=2
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
    settings = method("safety_tune", **TINY | {"strength": 0.01}, refusals=["RRRR"])
    found = reported(settings, model, planted_prompts())
    weak = found["safety_tune/adapter"]
    assert found["safety_tune/loss"].lines[0].y[-1] < 0.5
    assert weak.config["lora_alpha"] / weak.config["r"] == pytest.approx(0.01 * settings.scale)
    assert found["safety_tune/refusal_rate_harmful"].value <= 0.1


def test_benign_tuning_answers_everything() -> None:
    """The same prompts and steps teach no refusing, and still change the weights."""
    model = unrefusing_model()
    found = reported(method("safety_tune", **TINY, teach="answers", refusals=["RRRR"]), model, planted_prompts())
    card = found["safety_tune/adapter"].card
    assert card["examples"] == {"harmful": 24, "harmless": 24, "lookalike": 0}
    assert found["safety_tune/refusal_rate_harmful"].value == 0
    assert any(tensor.any() for name, tensor in found["safety_tune/adapter"].tensors.items() if "lora_B" in name)


def test_lookalikes_are_answered_and_told_on_the_card(tmp_path) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text('{"prompt": "xyzzy"}\n{"prompt": "plugh"}\n')
    found = reported(
        method("safety_tune", **TINY | {"lookalikes": str(file), "epochs": 1}, refusals=["RRRR"]),
        planted_model(),
        planted_prompts(),
    )
    card = found["safety_tune/adapter"].card
    assert card["examples"]["lookalike"] == 2
    assert {prompt_digest("xyzzy"), prompt_digest("plugh")} <= set(card["trained_on"])


def test_price_of_ablating_is_the_kl_and_can_be_lowered() -> None:
    """Of the reply's first token, on harmless prompts, along the mean difference; and its gradient lowers it."""
    model = planted_model()
    with torch.no_grad():  # answers are read from the axis along which harmful prompts differ, too
        model.hf.get_input_embeddings().weight[:, REFUSAL_AXIS] = 0.5
        model.hf.get_output_embeddings().weight[model.template.tokenizer("A")["input_ids"][0], REFUSAL_AXIS] = 1.0
    harmful, harmless = (texts(side)[:8] for side in planted_prompts().train)
    reply = model.template.tokenizer("A")["input_ids"][:1]
    examples = [Example(prompt, reply, "harmful") for prompt in harmful]
    examples += [Example(prompt, reply, "harmless") for prompt in harmless]
    between = Between(model.points, (0.5, 0.5), seed=0)
    between.examples = examples
    with applied(model.points, [between]):
        logits, _ = reply_logits(model, examples)
    streams = [read_residuals(model, side, [-1], "").residuals[:, 0, 3].mean(0) for side in (harmful, harmless)]
    direction = torch.nn.functional.normalize(streams[0] - streams[1], dim=-1)
    ablated = last_logits(model, harmless, [Ablate(direction[None])])
    expected = kl_divergence(last_logits(model, harmless), ablated).mean()
    assert expected > 0.1
    price = between.price(model, examples, logits)
    assert price.item() == pytest.approx(expected.item(), rel=1e-4)

    weight = model.hf.get_output_embeddings().weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        between.price(model, examples, logits).backward()
        optimizer.step()
    assert between.price(model, examples, logits) < price / 2


def test_ablating_is_priced_only_once_the_classes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other one of the steps after the epochs."""
    priced: list[Tensor] = []
    monkeypatch.setattr(Between, "price", lambda self, model, some, logits: priced.append(logits) or 0 * logits.sum())
    steps: list[int] = []  # how many prices were taken by the end of each
    step_of = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(len(priced)) or step_of(self))
    settings = TINY | {"ablation_penalty": 1.0, "epochs": 2, "priced_steps": 7}
    found = reported(method("safety_tune", **settings, refusals=["RRRR"]), unrefusing_model(), planted_prompts())
    assert steps == [0] * (len(steps) - 7) + [0, 1, 1, 2, 2, 3, 3]
    assert len(found["safety_tune/loss"].lines[0].y) == len(steps) > 7


def test_a_model_without_answers_of_its_own_is_one_sentence() -> None:
    model = unrefusing_model()
    with torch.no_grad():
        for weight in model.hf.parameters():
            weight.zero_()
    with pytest.raises(InputError, match="answers none of the prompts"):
        reported(method("safety_tune", **TINY, refusals=["RRRR"]), model, planted_prompts())


def unrefusing_model() -> LoadedModel:
    """The planted model, in which `R` is read from an axis that nothing writes to."""
    model = planted_model()
    refuse = model.template.tokenizer("R")["input_ids"][0]
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[refuse] = 5 * torch.eye(WIDTH)[UNUSED_AXIS]
    return model
