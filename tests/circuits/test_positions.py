"""Patching at every token: against plain hooks, the roles of tokens, and a choice of layers that knows no labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rcm.circuits.positions import acting_layers, engine_at_tokens, exchange_at_tokens, reach, roles_of
from rcm.errors import InputError
from rcm.execution.components import COMPONENT_KINDS, OWN, Component, Rows
from rcm.execution.metric import LogOdds
from rcm.models import LoadedModel
from rcm.patching import Pair
from rcm.stats.metrics import refusal_log_odds
from tests.conftest import tiny_model

TOKENS = (70, 71)
# The first differs in two places with a shared token between them, the second from its second token on, all along.
PAIRS: list[Pair] = [
    ([1, 5, 9, 30, 40, 50, 60, 20, 21], [1, 5, 9, 31, 40, 51, 60, 20, 21]),
    ([1, 100, 101, 102, 20, 21], [1, 110, 111, 112, 20, 21]),
    ([1, 4, 8, 90, 20, 21], [1, 4, 8, 91, 20, 21]),
]
ENDING = 2
HEADS = 4


def hooked_odds(
    model: LoadedModel, prompt: Sequence[int], other: Sequence[int], one: Component | None, token: int
) -> float:
    """The log-odds of a prompt with one component taken from another prompt at one token: two passes, plain hooks."""
    hf = model.hf
    seen = list[Tensor]()

    def put(x: Tensor) -> Tensor:
        assert one is not None
        width = x.shape[-1] // HEADS
        part = slice(one.number * width, (one.number + 1) * width) if one.kind == "head" else slice(None)
        if not seen:
            seen.append(x[:, token, part].clone())
            return x
        changed = x.clone()
        changed[:, token, part] = seen[0]
        return changed

    def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
        return (put(args[0]), *args[1:])

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (put(output[0]), *output[1:]) if isinstance(output, tuple) else put(output)

    handle = None
    if one is not None:
        layer = hf.model.layers[one.layer]
        handle = {
            "residual": lambda: layer.register_forward_pre_hook(before),
            "head": lambda: layer.self_attn.o_proj.register_forward_pre_hook(before),
            "attention": lambda: layer.self_attn.register_forward_hook(after),
            "mlp": lambda: layer.mlp.register_forward_hook(after),
        }[one.kind]()
    with torch.no_grad():
        if one is not None:
            hf(torch.tensor([list(other)]))
        logits = hf(torch.tensor([list(prompt)])).logits[:, -1].float()
    if handle is not None:
        handle.remove()
    return float(refusal_log_odds(logits, TOKENS)[0])


@pytest.mark.parametrize("batch_size", [1, 64])
def test_every_cell_is_what_plain_hooks_make_of_it(batch_size: int) -> None:
    model = tiny_model("llama", batch_size=batch_size)
    engine = engine_at_tokens(model, PAIRS, 0)
    assert engine.path == "rows"
    found = exchange_at_tokens(engine, PAIRS, Rows.each(COMPONENT_KINDS, engine.shape), LogOdds(TOKENS), "test")
    components = engine.shape.components(COMPONENT_KINDS)
    cells = [
        (0, 5, Component("residual", 1)),  # its first differing token
        (0, 5, Component("attention", 0)),
        (0, 3, Component("head", 0, 3)),
        (1, 3, Component("mlp", 0)),
        (1, 0, Component("residual", 2)),
        (2, 0, Component("head", 2, 0)),
    ]
    sizes = []
    for pair, token, one in cells:
        harmful, harmless = PAIRS[pair]
        row = components.index(one)
        whole = [hooked_odds(model, prompt, prompt, None, 0) for prompt in PAIRS[pair]]
        lost = whole[0] - hooked_odds(model, harmful, harmless, one, -1 - token)
        gained = hooked_odds(model, harmless, harmful, one, -1 - token) - whole[1]
        assert [found.harmful[pair].item(), found.harmless[pair].item()] == pytest.approx(whole, abs=1e-4)
        assert found.necessity[pair, token, row].item() == pytest.approx(lost, abs=1e-5), one
        assert found.sufficiency[pair, token, row].item() == pytest.approx(gained, abs=1e-5), one
        sizes += [abs(lost), abs(gained)]
    assert min(sizes) > 1e-3, "cells that do nothing would agree by themselves"


def test_before_the_first_differing_token_nothing_is_patched() -> None:
    assert [reach(pair) for pair in PAIRS] == [6, 5, 3]
    assert reach(([1, 2], [1, 2])) == 0
    with pytest.raises(InputError, match="2 and 3 tokens"):
        reach(([1, 2], [1, 2, 3]))
    model = tiny_model("llama", batch_size=64)
    engine = engine_at_tokens(model, PAIRS, 0)
    found = exchange_at_tokens(engine, PAIRS, Rows.each(["mlp"], engine.shape), LogOdds(TOKENS), "test")
    measured = ~torch.isnan(found.necessity[..., 0])
    assert measured.sum(1).tolist() == [6, 5, 3]
    assert all(measured[i, :n].all() for i, n in enumerate((6, 5, 3)))


def test_what_replaces_itself_changes_nothing_at_any_token() -> None:
    model = tiny_model("llama", batch_size=64)
    engine = engine_at_tokens(model, PAIRS, 0)
    rows = Rows.of([engine.shape.components()], engine.shape, OWN)
    found = exchange_at_tokens(engine, PAIRS, rows, LogOdds(TOKENS), "test")
    assert found.necessity.nan_to_num().abs().max() < 1e-4
    assert found.sufficiency.nan_to_num().abs().max() < 1e-4


def test_roles_are_of_words_that_differ_words_that_do_not_and_each_closing_token() -> None:
    roles = roles_of(PAIRS, ENDING)
    of = [[roles[i, token].nonzero()[0].tolist() for token in range(6)] for i in range(3)]
    closing = [[3], [2]]  # the last token first
    assert of[0] == [*closing, [1], [0], [1], [0]]
    assert of[1] == [*closing, [0], [0], [0], []]
    assert of[2] == [*closing, [0], [], [], []]


def test_a_role_is_the_sum_of_its_tokens() -> None:
    model = tiny_model("llama", batch_size=64)
    engine = engine_at_tokens(model, PAIRS, 0)
    found = exchange_at_tokens(engine, PAIRS, Rows.each(["residual"], engine.shape), LogOdds(TOKENS), "test")
    layers, summed = engine.shape.layers, found.by_role(roles_of(PAIRS, ENDING))
    assert summed.necessity.shape == (3, 4 * layers)
    differing, shared, last = (summed.necessity[0, role * layers : (role + 1) * layers] for role in (0, 1, 3))
    assert differing.numpy() == pytest.approx((found.necessity[0, 3] + found.necessity[0, 5]).numpy())
    assert shared.numpy() == pytest.approx((found.necessity[0, 2] + found.necessity[0, 4]).numpy())
    assert last.numpy() == pytest.approx(found.necessity[0, 0].numpy())
    assert summed.necessity[1, layers : 2 * layers].abs().max() < 1e-9, "no shared word there"
    assert summed.sufficiency[1, :layers].numpy() == pytest.approx(found.sufficiency[1, 2:5].sum(0).numpy())


def test_layers_are_chosen_by_size_and_alike_under_any_labels() -> None:
    draw = np.random.default_rng(0)
    shares = 0.01 * draw.normal(size=(2, 12, 3, 8))
    shares[:, :, 1, 5] += np.where(np.arange(12) % 2, 0.4, -0.4)  # which adds up to nothing over pairs
    shares[0, :, 2, 2] += 0.3
    shares[1, :, 0, 6] += 0.2
    chosen = acting_layers(shares, 3)
    assert chosen.tolist() == [2, 5, 6]
    for swaps in draw.random((20, 12)) < 0.5:
        swapped = np.where(swaps[None, :, None, None], -shares[::-1], shares)
        assert acting_layers(swapped, 3).tolist() == chosen.tolist()


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "gpt_neox"])
def test_rows_are_exact_at_long_tails_in_other_architectures(architecture: str) -> None:
    model = tiny_model(architecture)
    engine = engine_at_tokens(model, PAIRS, 0)
    assert engine.path == "rows"
    fast, slow = (
        exchange_at_tokens(one, PAIRS, Rows.each(["attention", "head"], engine.shape), LogOdds(TOKENS), "test")
        for one in (engine, type(engine)(model, "loop", "asked for", None))
    )
    assert fast.necessity.numpy() == pytest.approx(slow.necessity.numpy(), abs=1e-4, nan_ok=True)
    assert fast.sufficiency.numpy() == pytest.approx(slow.sufficiency.numpy(), abs=1e-4, nan_ok=True)
