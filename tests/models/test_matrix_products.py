"""Both libraries' products agree; the faster is taken where it agrees, and is not where it does not."""

import copy
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM

from rcm.models import matrix_products
from rcm.models.matrix_products import OneDnnLinear, by_onednn, onednn_speed, use_contiguous, use_faster

pytestmark = pytest.mark.skipif(not onednn_speed(), reason="this PyTorch has no oneDNN")


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
    )
    return LlamaForCausalLM(config).eval()


IDS = torch.arange(40).view(4, 10)


def _logits(model: LlamaForCausalLM) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def _taken(model: nn.Module) -> int:
    return sum(isinstance(layer, OneDnnLinear) for layer in model.modules())


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda times: monkeypatch.setattr(matrix_products, "onednn_speed", lambda: times)


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 3, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_same_up_to_rounding(shape: tuple[int, ...], bias: bool) -> None:
    x, weight = torch.randn(*shape), torch.randn(40, 24)
    added = torch.randn(40) if bias else None
    with torch.inference_mode():
        torch.testing.assert_close(by_onednn(x, weight, added), linear(x, weight, added))
        strided = torch.randn(*shape[:-1], 48)[..., ::2]
        torch.testing.assert_close(by_onednn(strided, weight, added), linear(strided, weight, added))


@pytest.mark.parametrize("shape", [(7, 24), (2, 361, 24), (1, 24), (3, 7, 24)])
def test_rows_that_do_not_divide_well_are_filled_up(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_products, "LARGE", 0)
    rows: list[int] = []
    operator = torch.ops.mkldnn._linear_pointwise

    def noted(x: Tensor, *rest: Any) -> Tensor:
        rows.append(x.numel() // x.shape[-1])
        return operator(x, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", noted)
    x, weight, bias = torch.randn(*shape), torch.randn(40, 24), torch.randn(40)
    with torch.inference_mode():
        torch.testing.assert_close(by_onednn(x, weight, bias), linear(x, weight, bias))
    assert rows == [4 * math.ceil(x.numel() / 24 / 4)]


def test_logits_are_the_same_by_either(model: LlamaForCausalLM, speed: Callable[[float], None]) -> None:
    before = _logits(model)
    speed(2.0)
    use_faster(model)
    assert _taken(model) == 2 * 7 + 1
    torch.testing.assert_close(_logits(model), before)


def test_where_it_is_not_clearly_faster_nothing_changes(
    model: LlamaForCausalLM, speed: Callable[[float], None]
) -> None:
    speed(1.2)
    use_faster(model)
    assert not _taken(model)


@pytest.mark.parametrize("off", [1e-3, float("nan")])
def test_where_one_shape_differs_nothing_changes(
    model: LlamaForCausalLM,
    speed: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    off: float,
) -> None:
    def wrong(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(x, weight, bias) * (1 + off if weight.shape == (96, 32) else 1)

    speed(2.0)
    monkeypatch.setattr(matrix_products, "by_onednn", wrong)
    use_faster(model)
    assert not _taken(model)
    assert "stay with MKL" in caplog.text


@pytest.mark.parametrize("trained", [True, False])
def test_gradients_are_the_same_by_either(
    model: LlamaForCausalLM, speed: Callable[[float], None], trained: bool
) -> None:
    model.requires_grad_(trained)
    embedded = torch.randn(4, 10, 32, requires_grad=True)

    def gradients() -> tuple[Tensor, ...]:
        loss = model(inputs_embeds=embedded).logits.square().sum()
        weights = [one for one in model.model.layers.parameters() if one.requires_grad]
        return torch.autograd.grad(loss, [embedded, *weights])

    expected = gradients()
    speed(2.0)
    use_faster(model)
    assert _taken(model)
    torch.testing.assert_close(gradients(), expected)


def test_of_nothing_comes_nothing(model: LlamaForCausalLM, speed: Callable[[float], None]) -> None:
    speed(2.0)
    use_faster(model)
    with torch.inference_mode():
        assert model.model.layers[0].mlp.up_proj(torch.empty(0, 32)).shape == (0, 48)


def test_a_model_that_is_dropped_is_gone(model: LlamaForCausalLM, speed: Callable[[float], None]) -> None:
    """As without: jobs of a multirun follow each other, and must not lie in memory together."""
    speed(2.0)
    use_faster(model)
    small = nn.Sequential(nn.Linear(4, 4))
    use_faster(small)
    gone = weakref.ref(small[0])
    gc.disable()
    try:
        del small
        assert gone() is None
    finally:
        gc.enable()


def test_copies_are_of_their_own_weights(model: LlamaForCausalLM, speed: Callable[[float], None]) -> None:
    speed(2.0)
    use_faster(model)
    before = _logits(model)
    copied = copy.deepcopy(model)
    copied.lm_head.weight.data.mul_(2)
    torch.testing.assert_close(_logits(copied), 2 * before)
    torch.testing.assert_close(_logits(model), before)
    hooked = nn.Sequential(nn.Linear(4, 4))
    hooked[0].__dict__["forward"] = lambda x: x + 1  # as accelerate's hooks do
    use_faster(hooked)
    assert torch.equal(hooked(torch.zeros(4)), torch.ones(4))


def test_other_layers_types_and_devices_are_left_alone(speed: Callable[[float], None]) -> None:
    class Special(nn.Linear):
        """One whose forward is its own."""

    speed(2.0)
    tree = nn.Sequential(Special(8, 8), nn.Linear(8, 8, dtype=torch.bfloat16), nn.Linear(8, 8, device="meta"))
    use_faster(tree)
    assert not _taken(tree)


def test_the_unembedding_gets_what_lies_side_by_side(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a slice PyTorch makes the same numbers a hundred times as slowly, in bfloat16 on the CPU."""
    model.bfloat16()
    use_contiguous(model)
    ids, laid = torch.arange(12).view(2, 6), list[bool]()
    wanted = model.lm_head.weight.float() @ model.model(input_ids=ids).last_hidden_state[:, -1].float().T

    def noted(x: torch.Tensor, *given: Any) -> torch.Tensor:
        if given[0] is model.lm_head.weight:
            laid.append(x.is_contiguous())
        return linear(x, *given)

    monkeypatch.setattr(matrix_products, "linear", noted)
    found = model(input_ids=ids, logits_to_keep=1).logits[:, 0].T
    assert laid == [True]
    torch.testing.assert_close(found.float(), wanted, rtol=2e-2, atol=2e-2)
    monkeypatch.undo()
    plain = nn.Linear(4, 4)
    model.set_output_embeddings(plain)
    plain.__dict__["forward"] = plain.forward  # as accelerate's hooks do
    use_contiguous(model)
    assert type(plain) is nn.Linear
