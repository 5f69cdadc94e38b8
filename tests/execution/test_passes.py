"""Forward passes: batches, padding and the shared beginning change nothing."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rcm.execution.passes import first_token, last_logits, mean_probabilities, read_residuals
from rcm.models import LoadedModel

PROMPTS = ("Hi", "How do I bake a good loaf of bread at home?", "Stop it now.", "Name three rivers", "x")
Tiny = Callable[..., LoadedModel]


@torch.inference_mode()
def slow_logits(model: LoadedModel) -> Tensor:
    """The reference: one prompt at a time, nothing padded, nothing cached."""
    rows = [torch.tensor([model.template.tokens(prompt)]) for prompt in PROMPTS]
    return torch.cat([model.hf(row, use_cache=False).logits[:, -1] for row in rows])


def error(got: Tensor, wanted: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((got - wanted).abs().max() / wanted.abs().max())


def test_a_prompt_gets_the_same_logits_alone_and_in_a_padded_batch(tiny: Tiny, family: str):
    model = tiny(family)
    assert len(model.template.beginning) > 5
    wanted = slow_logits(model)
    assert error(wanted[:1], wanted[1:2]) > 0.05, "these prompts end alike, so what differs came through attention"
    assert error(last_logits(model, PROMPTS), wanted) < 1e-5
    assert error(torch.cat([last_logits(model, [prompt]) for prompt in PROMPTS]), wanted) < 1e-5


@pytest.mark.parametrize("template", [None, "{{ messages[0].content }} ->"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_without_much_or_anything_shared(tiny: Tiny, architecture: str, template: str | None):
    model = tiny(architecture, template=template)
    assert error(last_logits(model, PROMPTS), slow_logits(model)) < 1e-5


@pytest.mark.parametrize("window", [8, 24, 40, 64])
@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text", "phi3"])
def test_a_sliding_window_does_not_count_the_padding(tiny: Tiny, architecture: str, window: int):
    model = tiny(architecture, sliding_window=window)
    assert error(last_logits(model, PROMPTS), slow_logits(model)) < 1e-5


def test_recorded_are_the_hidden_states_at_the_positions(tiny: Tiny, family: str):
    model, positions = tiny(family), (-4, -1, -7)
    recorded = read_residuals(model, PROMPTS, positions, "test", figures=lambda logits, index: logits[:, 5:7])
    assert recorded.prompts == list(PROMPTS)
    assert recorded.figures is not None
    assert error(recorded.figures, slow_logits(model)[:, 5:7]) < 1e-5
    with torch.inference_mode():
        for prompt, got in zip(PROMPTS, recorded.residuals, strict=True):
            states = model.hf(torch.tensor([model.template.tokens(prompt)]), output_hidden_states=True).hidden_states
            wanted = torch.stack(states[:-1])[:, 0, positions].transpose(0, 1)  # the last one is past the final norm
            assert error(got, wanted) < 1e-5


@pytest.mark.parametrize("position", [-1, -12, -20])
def test_one_position_further_back_than_the_beginning_is_long(tiny: Tiny, position: int):
    model = tiny()
    assert read_residuals(model, PROMPTS, [position], "test").residuals.shape == (5, 1, 3, 32)


def test_before_the_first_block_the_end_of_instruction_is_the_same_for_all(tiny: Tiny):
    model = tiny("llama")
    positions = range(-len(model.template.end_of_instruction), 0)
    first = read_residuals(model, PROMPTS, list(positions), "test").residuals[:, :, 0]
    assert torch.equal(first, first[:1].expand_as(first))


def test_some_layers_are_those_of_all(tiny: Tiny):
    model = tiny()
    every = read_residuals(model, PROMPTS, (-2, -1), "test")
    some = read_residuals(model, PROMPTS, (-2, -1), "test", range(1, 3))
    assert (list(every.layers), list(some.layers), some.figures) == ([0, 1, 2], [1, 2], None)
    assert torch.equal(some.residuals, every.residuals[:, :, 1:])
    assert torch.equal(torch.as_tensor(some.at(1, 2)), every.residuals[:, 1, 2])


def test_figures_and_probabilities_are_those_of_all_logits(tiny: Tiny):
    model = tiny(batch_size=2)
    wanted = slow_logits(model)
    assert error(mean_probabilities(model, PROMPTS, "test"), wanted.softmax(-1).mean(0).double()) < 1e-5
    asked: list[int] = []

    def figure(logits: Tensor, index: Sequence[int]) -> Tensor:
        asked.extend(index)
        return logits.max(-1).values

    assert error(first_token(model, PROMPTS, figure), wanted.max(-1).values) < 1e-5
    assert sorted(asked) == [0, 1, 2, 3, 4]


def test_batches_hold_little_padding(tiny: Tiny):
    model, padding = tiny(batch_size=2), []
    last_logits(model, PROMPTS)  # checks itself the first time

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        if "attention_mask" in given:  # not the beginning alone
            padding.append(int((given["attention_mask"] == 0).sum()))

    model.hf.register_forward_pre_hook(note, with_kwargs=True)
    last_logits(model, PROMPTS)
    assert padding == [1, 5, 0]  # "x" beside "Hi", "Stop it now." beside "Name three rivers", the longest
