"""Scores of all neurons against finite differences, hooks by module names, and exact patching; estimates by drawing."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from rcm.circuits import neurons
from rcm.circuits.neurons import (
    AllNeurons,
    attribute_neurons,
    contrastive,
    found_by,
    highest,
    jaccard,
    of_same_layers,
    random_jaccard,
    twin_contrast,
    universal,
)
from rcm.execution.components import Component, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.models import LoadedModel
from rcm.patching import interchange
from rcm.stats.metrics import refusal_log_odds
from tests import conftest
from tests.conftest import Tiny, tiny_model
from tests.execution.test_neurons import D_MLP, DOWN, PAIRS, SHAPE

METRIC = LogOdds((70, 71))
EVERY = AllNeurons((D_MLP,) * SHAPE.layers)
Change = Callable[[int, Tensor], None]


@torch.inference_mode()
def run(model: LoadedModel, name: str, prompt: Sequence[int], change: Change | None = None) -> tuple[float, Tensor]:
    """The metric of one prompt alone, and what all neurons put out at its tokens; `change` edits that at the last."""
    seen: list[Tensor] = []

    def entering(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Tensor]) -> Tensor:
            flat = args[0].reshape(-1, D_MLP).clone()
            seen.append(flat.clone())
            if change is not None:
                change(layer, flat[-1])
            return flat.view_as(args[0])

        return hook

    downs = [reduce(getattr, name.format(layer).split("."), model.hf) for layer in range(SHAPE.layers)]
    hooks = [down.register_forward_pre_hook(entering(layer)) for layer, down in enumerate(downs)]
    try:
        logits = model.hf(torch.tensor([list(prompt)]), use_cache=False).logits[0, -1:]
    finally:
        for hook in hooks:
            hook.remove()
    return refusal_log_odds(logits, METRIC.refusal_tokens).item(), torch.stack(seen)


@pytest.mark.parametrize("architecture", DOWN)
@pytest.mark.parametrize("batch_size", [2, 8])
def test_attribution_is_difference_times_slope(tiny: Tiny, architecture: str, batch_size: int) -> None:
    """Of prompts of several lengths in one batch: the slope by finite differences, at the same site, alone."""
    model, name, step = tiny(architecture, batch_size=batch_size), DOWN[architecture], 1e-2
    found = attribute_neurons(model, PAIRS, METRIC)
    chosen = [(layer, number) for layer in range(SHAPE.layers) for number in (0, 13, 40, 63)]

    def moved(by: float, where: tuple[int, int], layer: int, last: Tensor) -> None:
        if layer == where[0]:
            last[where[1]] += by

    wanted, difference = np.zeros((2, len(PAIRS), len(chosen)))
    for i, pair in enumerate(PAIRS):
        plain = [run(model, name, prompt) for prompt in pair]
        assert found.gap[i].item() == pytest.approx(plain[0][0] - plain[1][0], abs=1e-5)
        for j, where in enumerate(chosen):
            ends = [[run(model, name, prompt, partial(moved, by, where))[0] for by in (step, -step)] for prompt in pair]
            slope = np.mean([(up - down) / (2 * step) for up, down in ends])
            a, b = (of_prompt[where[0], -1, where[1]].item() for _, of_prompt in plain)
            difference[i, j], wanted[i, j] = a - b, (a - b) * slope
    places = EVERY.places([Component("neuron", *where) for where in chosen])
    assert places.tolist() == [layer * D_MLP + number for layer, number in chosen]
    assert found.difference[:, places].numpy() == pytest.approx(difference, abs=1e-5)
    largest = np.abs(wanted).max()
    assert largest > 1e-3
    assert found.scores[:, places].numpy() == pytest.approx(wanted, abs=0.01 * largest)


def test_attribution_ranks_as_exact_effects_do(tiny: Tiny) -> None:
    """All neurons, by rows and, some of them, by the slow loop. At another site's gradient it would not."""
    model = tiny("llama")
    found = attribute_neurons(model, PAIRS, METRIC)
    rows = Rows.of([[one] for one in EVERY.components(np.arange(len(EVERY)))], SHAPE)
    exact = interchange(Engine(model, "rows", "", None), PAIRS, rows, METRIC)
    both = (exact.necessity + exact.sufficiency) / 2
    assert (exact.gap - found.gap).abs().max() < 1e-5
    assert spearmanr(found.scores.mean(0), both.mean(0)).statistic > 0.95
    shares = exact.shares.mean(0)
    assert spearmanr(found.shares.mean(0), shares.mean(0)).statistic > 0.95
    some = highest(np.abs(shares.mean(0).numpy()), 12)
    slow = interchange(Engine(model, "loop", "", None), PAIRS, rows[torch.from_numpy(some.copy())], METRIC)
    assert (slow.shares - exact.shares[..., some.tolist()]).abs().max() < 1e-4
    assert slow.shares.abs().mean() > 1e-2
    kept = found.where(torch.tensor([True, False, True]))
    assert torch.equal(kept.scores, found.scores[[0, 2]])


def test_attribution_leaves_no_hooks_and_no_gradients(tiny: Tiny) -> None:
    model = tiny("llama")
    found = attribute_neurons(model, PAIRS, METRIC)
    assert not found.scores.requires_grad
    assert not [part for part in model.hf.modules() if part._forward_pre_hooks or part._forward_hooks]
    assert not [one for one in model.hf.parameters() if one.requires_grad or one.grad is not None]


def test_layers_without_neurons_are_left_away() -> None:
    every = AllNeurons((2, 0, 3))
    assert len(every) == 5
    assert [str(one) for one in every.components(np.arange(5))] == [
        *("neuron 0.0", "neuron 0.1", "neuron 2.0", "neuron 2.1", "neuron 2.2")
    ]
    assert every.places(every.components(np.arange(5))).tolist() == [0, 1, 2, 3, 4]
    assert every.of_layers(np.array([1, 3, 4])).tolist() == [1, 0, 2]
    values = torch.arange(9.0).view(3, 1, 3)
    assert every.in_line(values).tolist() == [[0, 1, 6, 7, 8]]


def test_a_mixture_of_experts_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"intermediate_size": 64, "num_key_value_heads": 2, "num_local_experts": 4}
    monkeypatch.setitem(conftest.FAMILIES, "mixtral", size)
    assert len(AllNeurons(tiny_model("mixtral").points.neurons)) == 0


# Contrasts


def test_what_every_prompt_calls_is_universal(tiny: Tiny) -> None:
    model, draw = tiny("llama"), np.random.default_rng(3)
    prompts = [[1, *draw.integers(3, 259, size=length).tolist()] for length in (9, 12, 7, 11, 8)]
    out = torch.stack([run(model, DOWN["llama"], prompt)[1][:, -1] for prompt in prompts]).abs()
    first = int(0.1 * D_MLP)
    counts = torch.zeros(SHAPE.layers, D_MLP)
    for of_prompt in out:
        for layer, of_layer in enumerate(of_prompt):
            counts[layer, of_layer.argsort(descending=True)[:first]] += 1
    found = universal(model, prompts)
    assert found.tolist() == (counts >= 4).flatten().tolist()
    assert 0 < found.sum() < SHAPE.layers * first


def test_neurons_are_contrasted_from_the_third_layer_on() -> None:
    every = AllNeurons((2, 2, 3))
    difference = torch.tensor([[9.0, 9, 9, 9, -3, 8, 1], [9, 9, 9, 9, -1, 8, -1]], dtype=torch.float64)
    scores = contrastive(every, difference, np.arange(7) == 5)
    assert np.isnan(scores).tolist() == [True, True, True, True, False, True, False]
    assert scores[[4, 6]].tolist() == [2, 0]
    assert highest(scores, 3).tolist() == [4, 6]


def test_twins_are_contrasted_on_the_tuned_ones_replies(tiny: Tiny) -> None:
    tuned, base = tiny("llama"), tiny("llama", seed=1)
    prompts = ["a river", "which of the rivers is long?"]
    replies = reply_tokens(tuned, prompts, 5)
    assert {len(reply) for reply in replies} != {0}
    squares = []
    for prompt, reply in zip(prompts, replies, strict=True):
        row = [*tuned.template.tokens(prompt), *reply]
        ours, theirs = (run(one, DOWN["llama"], row)[1][:, -len(reply) :] for one in (tuned, base))
        squares.append((ours - theirs).double().square())
    wanted = torch.cat(squares, dim=1).mean(1).sqrt()
    found = twin_contrast(tuned, base, prompts, 5)
    assert np.isnan(found[2 * D_MLP :]).all(), "the last layer"
    assert found[: 2 * D_MLP] == pytest.approx(wanted[:2].flatten().numpy(), abs=1e-5)
    assert found[: 2 * D_MLP].min() > 0
    assert np.nanmax(twin_contrast(tuned, tuned, prompts, 5)) == 0


def test_twins_of_two_shapes_are_told(tiny: Tiny, sentence: Callable[..., str]) -> None:
    told = sentence(lambda: twin_contrast(tiny("llama"), tiny("llama", intermediate_size=32), ["a"], 2))
    assert "(64, 64, 64) and (32, 32, 32)" in told


# Choosing and counting


def test_the_highest_are_those_with_a_score() -> None:
    scores = np.array([np.nan, 2, 3, np.nan, -1, 3])
    assert highest(scores, 2).tolist() == [2, 5]
    assert highest(scores, 9).tolist() == [2, 5, 1, 4]


@pytest.mark.parametrize("n", [7, 30, 100])
def test_others_of_the_same_layers(n: int) -> None:
    every, draw = AllNeurons((40, 60, 5, 30)), np.random.default_rng(0)
    like = np.concatenate([draw.choice(40, 20, replace=False), [41, 50, 60, 70, 80], np.arange(100, 105)])
    drawn = of_same_layers(every, like, n, seed=1)
    assert len(set(drawn.tolist())) == len(drawn)
    assert not set(drawn.tolist()) & set(like.tolist())
    counts = every.of_layers(drawn)
    assert counts[3] == 0
    assert counts[2] == 0, "its neurons are all among the others"
    if n == 30:
        assert counts.tolist() == [20, 5, 0, 0]
    if n == 100:
        assert counts[0] == 20, "there are no more"
    assert not np.array_equal(drawn, of_same_layers(every, like, n, seed=2))


def test_what_a_preselection_misses_is_estimated_without_bias() -> None:
    """And its interval holds the truth: 40 of 1,000 neurons are the strongest, of which 28 are preselected."""
    every, draw = AllNeurons((400, 600)), np.random.default_rng(0)
    strong = draw.choice(1000, 40, replace=False)
    weak = np.setdiff1d(np.arange(1000), strong)
    candidates = np.concatenate([strong[:28], draw.choice(weak, 172, replace=False)])
    found = []
    for seed in range(200):
        drawn = of_same_layers(every, candidates, 200, seed)
        measured = np.concatenate([candidates, drawn])
        found.append(found_by(every, candidates, drawn, measured[np.isin(measured, strong)]))
        assert found[-1].low <= found[-1].share <= found[-1].high
        assert (found[-1].candidates, found[-1].drawn) == (28, np.isin(drawn, strong).sum())
    missed = np.mean([28 / one.share - 28 for one in found])
    assert missed == pytest.approx(12, abs=1)
    assert np.mean([one.low <= 0.7 <= one.high for one in found]) >= 0.93


def test_where_all_are_measured_nothing_is_missed() -> None:
    every = AllNeurons((4,))
    whole, strongest = np.arange(4), np.array([1, 2])
    assert found_by(every, whole, np.array([], dtype=int), strongest) == (1, 1, 1, 2, 0)
    half = found_by(every, np.array([0, 1]), np.array([2, 3]), strongest)
    assert (half.share, half.candidates, half.drawn) == (0.5, 1, 1)


def test_overlap_and_its_null() -> None:
    """The null is what explicit random sets of the same layers do."""
    every, draw = AllNeurons((20, 30)), np.random.default_rng(0)
    one, other = np.array([0, 1, 2, 3, 25, 26]), np.array([2, 3, 4, 26, 40])
    assert jaccard(one, other) == 3 / 8
    assert jaccard(one, one) == 1
    assert np.isnan(jaccard(one[:0], one[:0]))
    explicit = [
        jaccard(np.concatenate([draw.choice(20, 4, replace=False), 20 + draw.choice(30, 2, replace=False)]), other)
        for _ in range(4000)
    ]
    drawn = random_jaccard(every, one, other, 4000, seed=1)
    for share in (0.1, 0.2, 0.3):
        assert np.mean(drawn >= share) == pytest.approx(np.mean(np.array(explicit) >= share), abs=0.03)
    assert drawn.mean() == pytest.approx(np.mean(explicit), abs=0.005)


def test_a_layer_is_cut_to_its_first_fifty() -> None:
    assert neurons.UNIVERSAL_TOP == 50
    assert int(neurons.UNIVERSAL_SHARE * 500) == 50
