"""Interventions against an independent reference, and what they promise: nothing left of r, no trace of the hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rcm.execution.interventions import Ablate, Add, Affine, Clamp, Intervention, applied, without
from rcm.execution.passes import last_logits
from rcm.models import LoadedModel
from rcm.models.points import device_of

PROMPTS = ("Hi", "How do I bake a good loaf of bread at home?", "Stop it now.", "Name three rivers")
Tiny = Callable[..., LoadedModel]

# Where each family's blocks are, and which modules' outputs they add to the stream: read off transformers' code.
PRE_NORM = ("model.layers", "self_attn", "mlp")
POST_NORM = ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm")
WRITERS = {
    **dict.fromkeys(("gemma2", "gemma3_text", "olmo2"), POST_NORM),
    "opt": ("model.decoder.layers", "self_attn", "fc2"),
    "gpt2": ("transformer.h", "attn", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp"),
}


def module(root: nn.Module, path: str) -> Any:
    return reduce(getattr, path.split("."), root)


def unit(rows: int, seed: int = 0) -> Tensor:
    directions = torch.randn(rows, 32, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=-1, keepdim=True)


@contextmanager
def naive(model: LoadedModel, family: str, intervention: Intervention) -> Iterator[None]:
    """The same by replacing `forward` of the modules named above, for one prompt alone."""
    blocks, *writers = WRITERS.get(family, PRE_NORM)
    layers = list(module(model.hf, blocks))
    replaced: list[nn.Module] = []

    def replace(target: nn.Module, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        forward = target.forward

        def changed(*args: Any, **kwargs: Any) -> Any:
            if args:
                args = (before(args[0]), *args[1:])
            else:
                kwargs["hidden_states"] = before(kwargs["hidden_states"])
            out = forward(*args, **kwargs)
            return (after(out[0]), *out[1:]) if isinstance(out, tuple) else after(out)

        target.forward = changed
        replaced.append(target)

    def same(x: Tensor) -> Tensor:
        return x

    match intervention:
        case Ablate(directions=r):
            keep = torch.eye(32) - torch.outer(r[0], r[0])
            for layer in layers:
                replace(layer, lambda x: x @ keep, same)
                for writer in writers:
                    replace(module(layer, writer), same, lambda x: x @ keep)
        case Add(layer=layer, vectors=v):
            replace(layers[layer], lambda x: x + v[0], same)
        case Clamp(layer=layer, directions=r, values=a):
            replace(layers[layer], lambda x: x + (a[0] - x @ r[0])[..., None] * r[0], same)
        case Affine(directions=r, values=a):
            keep = torch.eye(32) - torch.outer(r[0], r[0])
            for value, layer in zip(a[0], layers, strict=True):
                replace(layer, lambda x, value=value: x @ keep + value * r[0], same)
                for writer in writers:
                    replace(module(layer, writer), same, lambda x: x @ keep)
    try:
        yield
    finally:
        for target in replaced:
            target.__dict__.pop("forward", None)


@pytest.mark.parametrize(
    "intervention",
    [
        Ablate(unit(1)),
        Add(0, 3 * unit(1)),
        Add(2, 3 * unit(1)),
        Clamp(1, unit(1), torch.tensor([-4.0])),
        Affine(unit(1), torch.tensor([[2.0, -3.0, 5.0]])),
    ],
    ids=["ablate", "add first", "add last", "clamp", "affine"],
)
@torch.inference_mode()
def test_logits_are_those_of_the_reference(tiny: Tiny, family: str, intervention: Intervention):
    model = tiny(family)
    wanted = []
    for prompt in PROMPTS:
        with naive(model, family, intervention):
            wanted.append(model.hf(torch.tensor([model.template.tokens(prompt)]), use_cache=False).logits[0, -1])
    scale = torch.stack(wanted).abs().max()
    got = last_logits(model, PROMPTS, [intervention])
    assert (got - torch.stack(wanted)).abs().max() < 1e-5 * scale
    assert (got - last_logits(model, PROMPTS)).abs().max() > 0.01 * scale


@torch.inference_mode()
def test_after_ablation_nothing_is_left_along_the_direction(tiny: Tiny, family: str):
    """Each row has its own direction, and biases, norms and scaled embeddings all write to the stream."""
    model, directions = tiny(family), unit(len(PROMPTS))
    batch, seen = model.template.batch(PROMPTS), []

    def left(x: Tensor, where: str) -> None:
        along = (x * directions[:, None]).sum(-1).abs()
        seen.append((where, float((along / x.norm(dim=-1))[batch.attention_mask.bool()].max())))

    def entering(_: nn.Module, args: Any, kwargs: Any) -> None:
        left(args[0] if args else kwargs["hidden_states"], "input")

    def leaving(_: nn.Module, args: Any, out: Any) -> None:
        left(out[0] if isinstance(out, tuple) else out, "output")

    with applied(model.points, [Ablate(directions)]):
        for layer in model.points.layers:
            layer.register_forward_pre_hook(entering, with_kwargs=True)
        model.points.layers[-1].register_forward_hook(leaving)
        model.hf(**batch._asdict(), use_cache=False)
    assert [where for where, _ in seen] == ["input", "input", "input", "output"]
    assert max(share for _, share in seen) < 1e-5


def test_zero_vectors_change_nothing(tiny: Tiny, family: str):
    model, zero = tiny(family), torch.zeros(1, 32)
    nothing = [Ablate(zero), Add(1, zero), Clamp(1, zero, torch.tensor([5.0])), Affine(zero, torch.ones(1, 3))]
    assert torch.equal(last_logits(model, PROMPTS, nothing), last_logits(model, PROMPTS))


@torch.inference_mode()
def test_every_row_gets_its_own(tiny: Tiny, family: str):
    model, r = tiny(family), unit(4)
    together = [
        Ablate(r),
        Add(1, 3 * unit(4, 1)),
        Clamp(2, r, torch.arange(4.0)),
        Affine(unit(4, 2), torch.arange(12.0).view(4, 3)),
    ]

    def logits(rows: Sequence[int]) -> Tensor:
        batch = model.template.batch([PROMPTS[row] for row in rows])
        with applied(model.points, [intervention.rows(rows) for intervention in together]):
            return model.hf(**batch._asdict(), position_ids=batch.position_ids, use_cache=False).logits[:, -1]

    alone = torch.cat([logits([row]) for row in range(4)])
    for order in ([0, 1, 2, 3], [3, 0, 2], [1, 1]):
        assert (logits(order) - alone[order]).abs().max() < 1e-5 * alone.abs().max()


def test_rows_are_picked_in_order_and_one_row_serves_all():
    some = Clamp(1, unit(3), torch.arange(3.0)).rows([2, 0])
    assert some.values.tolist() == [2.0, 0.0]
    assert torch.equal(some.directions, unit(3)[[2, 0]])
    assert Clamp(1, unit(1), torch.ones(1)).rows([5, 6]).values.tolist() == [1.0]
    assert Add(0, unit(1)).rows([5, 6]).vectors.shape == Ablate(unit(1)).rows([5, 6]).directions.shape == (1, 32)


@pytest.mark.parametrize("last", [None, Add(99, unit(1))], ids=["in the block", "while hooking"])
def test_hooks_are_gone_after_an_exception(tiny: Tiny, last: Intervention | None):
    model = tiny()
    before = last_logits(model, PROMPTS)
    interventions = [Ablate(unit(1)), Add(1, unit(1)), *([last] if last else [])]
    with pytest.raises((RuntimeError, IndexError)), applied(model.points, interventions):
        raise RuntimeError
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.hf.modules())
    assert torch.equal(last_logits(model, PROMPTS), before)


def test_projection_is_removed_in_full_precision():
    x, r = torch.randn(100, 5, 32, generator=torch.manual_seed(0)).bfloat16(), unit(100)
    naive_removal = x - (x * r[:, None].bfloat16()).sum(-1, keepdim=True) * r[:, None].bfloat16()

    def left(activations: Tensor) -> Tensor:
        return torch.einsum("rtd,rd->rt", activations.float(), r).abs()

    assert without(x, r).dtype == torch.bfloat16
    assert left(without(x, r)).mean() < 0.7 * left(naive_removal).mean()
    assert left(without(x, r)).max() < 0.01


class Brought:
    """A vector that notes where it is brought."""

    def __init__(self, tensor: Tensor, log: list[torch.device]) -> None:
        self.tensor, self.log = tensor, log

    def to(self, device: torch.device) -> Tensor:
        self.log.append(device)
        return self.tensor


def test_vectors_are_brought_to_a_device_once_for_a_batch(tiny: Tiny) -> None:
    """Not in each call of a hook, nor for each of the sites."""
    model, log = tiny(), list[torch.device]()
    ablate = Ablate(unit(1))
    object.__setattr__(ablate, "directions", Brought(unit(1), log))
    with applied(model.points, [ablate]), torch.inference_mode():
        for _ in range(3):
            model.hf(torch.tensor([model.template.tokens("Hi")]))
    assert log == [torch.device("cpu")]


def test_a_module_that_accelerate_feeds_computes_where_its_weights_are_brought() -> None:
    layer = torch.nn.Linear(2, 2, device="meta")
    layer._hf_hook = SimpleNamespace(execution_device="cpu")
    assert device_of(layer) == torch.device("cpu")
    assert device_of(torch.nn.Linear(2, 2)) == torch.device("cpu")
    assert device_of(torch.nn.ReLU()) == torch.device("cpu")
