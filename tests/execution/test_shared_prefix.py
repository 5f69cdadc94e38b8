"""Rows that share a prompt or an intervention, against one pass for each row."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rcm.execution.interventions import Ablate, Add, Affine, Clamp, Intervention, applied
from rcm.execution.self_checks import shared_tokens
from rcm.execution.shared_prefix import distinct, first_layer, read
from rcm.models import LoadedModel

PROMPTS = ("Hi", "How do I bake a good loaf of bread at home?", "Name three rivers")
Tiny = Callable[..., LoadedModel]


def unit(rows: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, 32, generator=torch.Generator().manual_seed(3)), dim=1)


def of_rows(rows: int) -> dict[str, Intervention]:
    """Two kinds of rows, in turn, of every intervention."""
    turn = torch.arange(rows) % 2
    return {
        "add": Add(2, 5 * turn[:, None] * unit(1)),
        "clamp": Clamp(1, unit(2)[turn], 3.0 * turn),
        "ablate": Ablate(unit(2)[turn]),
        "affine": Affine(unit(2)[turn], torch.tensor([[1.0, 2, 3], [-4, 0, 4]])[turn]),
    }


@torch.inference_mode()
def alone(model: LoadedModel, tokens: Sequence[int], intervention: Intervention, row: int, keep: int) -> Tensor:
    with applied(model.points, [intervention.rows([row])]):
        return model.hf(torch.tensor([tokens]), use_cache=False).logits[0, -keep:]


@pytest.mark.parametrize("name", of_rows(1))
def test_rows_are_those_of_a_pass_each(tiny: Tiny, family: str, name: str):
    model = tiny(family)
    rows = [tuple(model.template.tokens(prompt)) for prompt in PROMPTS for _ in range(4)]
    intervention = of_rows(len(rows))[name]
    wanted = torch.stack([alone(model, tokens, intervention, row, 2) for row, tokens in enumerate(rows)])
    for shared in (0, shared_tokens(model, [100])):
        got = read(model, rows, [intervention], shared, keep=2)
        assert (got.logits - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert got.mask.sum(1).tolist() == [len(tokens) for tokens in rows]
        assert {len(layer.keys) for layer in got.cache.layers} == {len(rows)}
    assert (wanted[0] - wanted[1]).abs().max() > 0.01 * wanted.abs().max()


def test_nothing_is_computed_twice(tiny: Tiny):
    """Below the intervention a row for each prompt; the beginning once, and above it once for each of two strengths."""
    model, seen = tiny(), []
    rows = [tuple(model.template.tokens(prompt)) for prompt in PROMPTS for _ in range(4)]
    for layer in model.points.layers:
        layer.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape[:2])))
    shared = len(model.template.beginning)
    read(model, rows, [of_rows(len(rows))["add"]], shared)
    longest = max(map(len, rows)) - shared
    assert seen == [(1, shared), (1, shared), (2, shared), (3, longest), (3, longest), (12, longest)]


def test_no_beginning_is_shared_where_a_sliding_window_would_count_padding(tiny: Tiny):
    model = tiny("mistral", sliding_window=40)
    assert shared_tokens(model, [40]) == len(model.template.beginning) > 0
    assert shared_tokens(model, [40, 41]) == 0


def test_equal_rows_are_found(tiny: Tiny):
    add = Add(1, torch.tensor([[1.0, 2], [3, 4], [1, 2], [1, 2]]))
    clamp = Clamp(1, torch.ones(4, 2), torch.tensor([5.0, 5, 5, 6]))
    everyone = Clamp(1, torch.ones(1, 2), torch.ones(1))
    assert distinct([add], 4) == ([0, 1], [0, 1, 0, 0])
    assert distinct([add, clamp], 4) == ([0, 1, 3], [0, 1, 0, 2])
    assert distinct([add, everyone], 4) == distinct([add], 4)
    assert distinct([], 3) == ([0], [0, 0, 0])
    points = tiny().points
    assert first_layer(points, [add, Clamp(2, unit(1), torch.ones(1))]) == 1
    assert first_layer(points, [add, Ablate(unit(1))]) == first_layer(points, []) == 0
