"""Figures under many interventions against one pass for each intervention and prompt, and the work that they save."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rcm.execution import first_token
from rcm.execution.first_token import ablated, added
from rcm.execution.interventions import Ablate, Add, Intervention
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
    assert not caplog.records, "no family reads rows from the start"


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


def test_blocks_before_the_vector_see_a_row_for_each_prompt(tiny: Tiny) -> None:
    model, rows = tiny(batch_size=64), list[list[int]]()
    fast(model)  # checks itself the first time
    for layer in model.points.layers:
        layer.register_forward_hook(lambda _, __, out: rows.append(list(out.shape[:1])))
    added(model, PROMPTS, unit(4), [2, 2, 2, 2], chosen, "test")
    beginning, prompts = [[1], [1], [4]], [[len(PROMPTS)], [len(PROMPTS)], [4 * len(PROMPTS)]]
    assert rows == [*beginning, *prompts]


def test_rows_are_variants_times_prompts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_token, "MORE", 1)
    model, shapes = tiny(batch_size=32), []
    fast(model)
    model.hf.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    list(ablated(model, PROMPTS, unit(6), chosen))
    rows, tokens = zip(*shapes, strict=True)
    # Four variants of eight prompts, four of the ninth from its start, then two of all nine.
    assert rows == (1, 8, 1, 1, 9), "the first block makes rows of them"
    assert tokens[0] == tokens[3] == len(model.template.beginning) < tokens[2]


def test_what_is_not_taken_is_not_run(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_token, "MORE", 1)
    model = tiny(batch_size=len(PROMPTS))  # a variant at a time
    fast(model)
    passes = blocks_run(model, lambda: list(ablated(model, PROMPTS, unit(1), chosen)))
    assert blocks_run(model, lambda: ablated(model, PROMPTS, unit(10), chosen)) == [0, 0, 0]
    assert blocks_run(model, lambda: next(ablated(model, PROMPTS, unit(10), chosen))) == passes
    assert blocks_run(model, lambda: list(ablated(model, PROMPTS, unit(10), chosen))) == [10 * n for n in passes]


def test_a_block_that_looks_past_the_stream_makes_all_run(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """The last block adds what the first attention put out, which has a row for each prompt alone."""
    model, put_out = tiny(batch_size=8), [torch.zeros(1)]
    first, last = model.points.attention_out[0], model.points.mlp_out[2]
    first.register_forward_hook(lambda _, __, output: put_out.append(output))

    def add(_: Any, __: Any, output: Tensor) -> Tensor:
        return output + put_out.pop() if len(put_out) > 1 else output

    last.register_forward_hook(add)
    assert error(*fast_and_slow(model, "llama")) < 1e-5
    assert "is read from the start" in caplog.text


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
