from typing import Any

import numpy as np
import pytest
import torch

from rcm.circuits.ablation import Ablation, Kind, ablate, nodes_of
from rcm.circuits.replies import ablated_replies
from rcm.execution.decoding import replies
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components, shape_of
from rcm.models import LoadedModel
from rcm.patching import Pairs, engine_for
from tests.conftest import tiny_model
from tests.planted import planted_model, planted_prompts

METRIC = LogOdds((7, 9))


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def pairs_of(model: LoadedModel) -> Pairs:
    return Pairs.of(model, planted_prompts().test, True).first(5)


def by_hand(model: LoadedModel, prompt: list[int], mask: Any, heads: Any, mlps: Any) -> float:
    """One ordinary pass with the values put in by hooks of our own."""
    shape = shape_of(model)
    chosen = dict(zip(nodes_of(shape), mask, strict=True))
    handles = []
    for layer in range(shape.layers):
        those = [node.number for node, on in chosen.items() if on and node.kind == "head" and node.layer == layer]

        def put_heads(_: Any, args: Any, layer: int = layer, those: list[int] = those) -> Any:
            x = args[0].clone()
            width = x.shape[-1] // shape.heads
            for head in those:
                x[..., -1, head * width : (head + 1) * width] = heads[layer][head]
            return (x, *args[1:])

        handles.append(model.points.head_out[layer].register_forward_pre_hook(put_heads))
        if any(on and node.kind == "mlp" and node.layer == layer for node, on in chosen.items()):

            def put_mlp(_: Any, args: Any, output: Any, layer: int = layer) -> Any:
                changed = output.clone()
                changed[..., -1, :] = mlps[layer]
                return changed

            handles.append(model.points.mlp_out[layer].register_forward_hook(put_mlp))
    try:
        with torch.inference_mode():
            logits = model.hf(torch.tensor([prompt])).logits[:, -1:, :]
    finally:
        for handle in handles:
            handle.remove()
    return float(METRIC(logits[:, None]))


@pytest.mark.parametrize("kind", ["interchange", "mean", "zero"])
def test_ablating_is_what_hooks_do(model: LoadedModel, kind: Kind) -> None:
    pairs = pairs_of(model)
    engine = engine_for(model, pairs.tokens, 0)
    draw = np.random.default_rng(0)
    masks = draw.random((4, len(nodes_of(engine.shape)))) < 0.5
    found = ablate(engine, pairs.tokens, masks, METRIC, Ablation(kind, model, pairs.tokens), "test")

    ends = [cache_components(model, [prompt]).at(-1) for pair in pairs.tokens for prompt in pair]
    mean = [torch.stack([getattr(one, name) for one in ends]).mean(0) for name in ("head", "mlp")]
    for i, (harmful, harmless) in enumerate(pairs.tokens):
        twin = cache_components(model, [harmless]).at(-1)
        heads, mlps = {"interchange": (twin.head, twin.mlp), "mean": mean, "zero": [0 * one for one in mean]}[kind]
        for row, mask in enumerate(masks):
            slow = by_hand(model, harmful, mask, dict(enumerate(heads[:, 0])), dict(enumerate(mlps[:, 0])))
            assert found[row, i] == pytest.approx(slow, abs=1e-4)
    assert np.ptp(found) > 1e-3  # the masks do something


def test_with_every_node_interchanged_a_prompt_is_its_twin(model: LoadedModel) -> None:
    pairs = pairs_of(model)
    engine = engine_for(model, pairs.tokens, 0)
    none = np.zeros((1, len(nodes_of(engine.shape))), dtype=bool)
    both = np.concatenate([none, ~none])
    ablation = Ablation("interchange", model, pairs.tokens)
    as_it_is, as_twin = ablate(engine, pairs.tokens, both, METRIC, ablation, "test")
    twins = [(harmless, harmful) for harmful, harmless in pairs.tokens]
    of_twin, back = ablate(engine, twins, both, METRIC, ablation, "test")
    assert as_twin == pytest.approx(of_twin, abs=1e-4)
    assert back == pytest.approx(as_it_is, abs=1e-4)
    assert np.abs(as_it_is - as_twin).max() > 1e-3


def test_replies_begin_as_rows_say() -> None:
    model = planted_model()
    pairs = Pairs.of(model, planted_prompts().test, True).first(6)
    engine = engine_for(model, pairs.tokens, 0)
    ablation = Ablation("interchange", model, pairs.tokens)
    nodes = nodes_of(engine.shape)
    head = np.array([node.kind == "head" and node.layer == 2 for node in nodes])
    some = np.stack([head, np.zeros_like(head), ~head] * 2)
    said = ablated_replies(model, pairs, some, ablation, 3, "test")
    # Without the head of layer 2 a harmful prompt is no longer refused at once; with it alone it is.
    assert [one[0] for one in said] == ["A", "R", "R"] * 2
    # What comes after the first token is the whole model's, which sees the trigger.
    assert all(one[1:] == "RR" for one in said)
    refuse = model.template.tokenizer("R")["input_ids"][0]
    odds = ablate(engine, pairs.tokens, some[:3], LogOdds((refuse,)), ablation, "test")
    assert ((odds > 0).all(1) == [False, True, True]).all()


@pytest.mark.parametrize("architecture", ["gemma2", "olmo2", "gpt2", "gpt_neox"])
def test_with_every_node_interchanged_a_reply_begins_as_the_twins(architecture: str) -> None:
    model = tiny_model(architecture)
    pairs = Pairs.of(model, planted_prompts().test, True).first(4)
    everything = np.ones((4, len(nodes_of(shape_of(model)))), dtype=bool)
    said = [
        ablated_replies(model, pairs, mask, Ablation("interchange", model, pairs.tokens), 1, "test")
        for mask in (everything, ~everything)
    ]
    plain = [replies(model, [pair[side] for pair in pairs.texts], 1) for side in (1, 0)]
    assert said == plain


def test_hooks_are_gone() -> None:
    model = planted_model()
    pairs = Pairs.of(model, planted_prompts().test, True).first(2)
    everything = np.ones((2, 6 * 2 + 6), dtype=bool)
    ablated_replies(model, pairs, everything, Ablation("zero", model, pairs.tokens), 2, "test")
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.hf.modules())
