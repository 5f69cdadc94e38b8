"""Figures under many interventions against one pass for each intervention and prompt, and the work that they save."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rcm.execution.interventions import Ablate, Add, Intervention
from rcm.execution.passes import shared_tokens
from rcm.execution.shared_layers import ablated, added
from rcm.models import LoadedModel
from tests.execution.test_interventions import naive, unit

PROMPTS = (
    "Hi",
    "How do I bake a good loaf of bread at home?",
    "Stop it now.",
    "Name three rivers",
    "x",
    *(f"Count to {n}" for n in range(4)),
)
TOKENS = [5, 70, 200]
Tiny = Callable[..., LoadedModel]


LAYERS, VECTORS = [2, 0, 1], 3 * unit(3, seed=1)


def chosen(logits: Tensor, _: Sequence[int]) -> Tensor:
    """A figure that the whole stream has a say in."""
    return logits[:, TOKENS] @ torch.tensor([1.0, -2.0, 3.0])


@torch.inference_mode()
def slow(model: LoadedModel, family: str, interventions: Sequence[Intervention]) -> Tensor:
    """The reference: hooks of the tests' own, one intervention and one prompt at a time, nothing padded or cached."""
    figures = torch.empty(len(interventions), len(PROMPTS), dtype=torch.float64)
    for row, intervention in enumerate(interventions):
        for column, prompt in enumerate(PROMPTS):
            with naive(model, family, intervention):
                logits = model.hf(torch.tensor([model.template.tokens(prompt)]), use_cache=False).logits[:, -1]
            figures[row, column] = chosen(logits, [column])[0]
    return figures


def fast(model: LoadedModel) -> Tensor:
    """Of three added vectors, then of two ablated directions."""
    adding = added(model, PROMPTS, VECTORS, LAYERS, chosen, "test")
    return torch.cat([adding, torch.stack(list(ablated(model, PROMPTS, unit(2), chosen)))])


def fast_and_slow(model: LoadedModel, family: str) -> tuple[Tensor, Tensor]:
    adding = [Add(layer, VECTORS[row : row + 1]) for row, layer in enumerate(LAYERS)]
    ablating = [Ablate(row[None]) for row in unit(2)]
    return fast(model), slow(model, family, [*adding, *ablating])


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def test_figures_are_those_of_one_pass_each(tiny: Tiny, family: str, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(family, batch_size=16)
    assert model.template.beginning
    got, wanted = fast_and_slow(model, family)
    assert error(got, wanted) < 1e-5
    assert error(wanted[:1], wanted[1:2]) > 0.01
    assert not caplog.records, "no family needs all blocks"


@pytest.mark.parametrize("batch_size", [1, 4, 24, 64])
def test_any_batch_size(tiny: Tiny, batch_size: int) -> None:
    assert error(*fast_and_slow(tiny(batch_size=batch_size), "llama")) < 1e-5


@pytest.mark.parametrize("window", [8, 24, 64])
@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "gemma3_text", "phi3"])
def test_with_a_sliding_window(tiny: Tiny, architecture: str, window: int) -> None:
    assert error(*fast_and_slow(tiny(architecture, sliding_window=window, batch_size=16), architecture)) < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_with_nothing_to_share(tiny: Tiny, architecture: str) -> None:
    model = tiny(architecture, template="{{ messages[0].content }} ->", batch_size=16)
    assert not model.template.beginning
    assert error(*fast_and_slow(model, architecture)) < 1e-5


def test_blocks_before_the_vector_are_not_run(tiny: Tiny) -> None:
    model = tiny(batch_size=64)
    shared_tokens(model, PROMPTS)  # checks itself the first time
    calls = blocks_run(model, lambda: added(model, PROMPTS, unit(4), [2, 2, 2, 2], chosen, "test"))
    # Beginning and prompts go through the first blocks as they are, and in a comparison; through the last also in the
    # other side of the comparison, and to measure.
    assert calls == [4, 4, 8]


def test_rows_are_variants_times_prompts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, shapes = tiny(batch_size=32), []
    shared_tokens(model, PROMPTS)
    model.hf.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    list(ablated(model, PROMPTS, unit(6), chosen))
    rows, tokens = zip(*shapes, strict=True)
    assert rows == (4, 32, 4, 2, 16, 2), "four variants, then two: the beginning, eight prompts, one prompt"
    assert tokens[0] == tokens[3] == len(model.template.beginning)


def test_what_is_not_taken_is_not_run(tiny: Tiny) -> None:
    model = tiny(batch_size=len(PROMPTS))  # a variant at a time: its beginning, its prompts
    shared_tokens(model, PROMPTS)
    assert blocks_run(model, lambda: ablated(model, PROMPTS, unit(10), chosen)) == [0, 0, 0]
    assert blocks_run(model, lambda: next(ablated(model, PROMPTS, unit(10), chosen))) == [2, 2, 2]
    assert blocks_run(model, lambda: list(ablated(model, PROMPTS, unit(10), chosen))) == [20, 20, 20]


def test_a_block_that_looks_past_the_stream_makes_all_run(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """The last block adds what the first attention put out: it knows nothing of it where a pass enters behind."""
    model, put_out = tiny(batch_size=8), [torch.zeros(1)]
    first, last = model.points.attention_out[0], model.points.mlp_out[2]
    first.register_forward_hook(lambda _, __, output: put_out.append(output))

    def add(_: Any, __: Any, output: Tensor) -> Tensor:
        return output + put_out.pop() if len(put_out) > 1 else output

    last.register_forward_hook(add)
    assert error(*fast_and_slow(model, "llama")) < 1e-5
    assert "all blocks" in caplog.text


def test_no_variants_are_no_figures(tiny: Tiny) -> None:
    assert list(ablated(tiny(), PROMPTS, unit(0), chosen)) == []
    assert added(tiny(), PROMPTS, unit(0), [], chosen, "test").shape == (0, len(PROMPTS))


def test_the_model_is_left_as_it_was(tiny: Tiny) -> None:
    model = tiny(batch_size=16)

    def breaking(logits: Tensor, index: Sequence[int]) -> Tensor:
        raise RuntimeError

    before = [dict(vars(layer)) for layer in model.points.layers]
    with pytest.raises(RuntimeError):
        added(model, PROMPTS, VECTORS, LAYERS, breaking, "test")
    with pytest.raises(RuntimeError):
        list(ablated(model, PROMPTS, unit(5), breaking))
    assert [vars(layer) for layer in model.points.layers] == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.hf.modules())


def blocks_run(model: LoadedModel, work: Callable[[], Any]) -> list[int]:
    """How often each block's attention is run."""
    calls = [0] * model.n_layers

    def count(layer: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[layer] += 1

        return hook

    hooks = [module.register_forward_hook(count(layer)) for layer, module in enumerate(model.points.attention_out)]
    work()
    for hook in hooks:
        hook.remove()
    return calls
