"""Neurons as components: rows of them against the slow loop, TransformerLens, and passes written out here."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rcm.errors import InputError
from rcm.execution import engine, loop, rows
from rcm.execution.components import OWN, Component, Rows, Shape
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import ComponentCache, Values, cache_components
from rcm.models import LoadedModel
from rcm.patching import interchange
from rcm.stats.metrics import refusal_log_odds
from tests import conftest

Tiny = Callable[..., LoadedModel]
SHAPE, D_MLP = Shape(3, 4), 64
METRIC = LogOdds((70, 71))
WINDOWED = ("mistral", "phi3", "gemma2", "gemma3_text")
EVERY_FAMILY = [*((name, {}) for name in conftest.FAMILIES), *((name, {"sliding_window": 6}) for name in WINDOWED)]
DOWN = {
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "opt": "model.decoder.layers.{}.fc2",
    "phi": "model.layers.{}.mlp.fc2",
    "phi3": "model.layers.{}.mlp.down_proj",
    "gemma2": "model.layers.{}.mlp.down_proj",  # before the norm after the MLP
}


def tokens(seed: int, *lengths: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [[1, *draw.integers(3, 259, size=length - 1).tolist()] for length in lengths]


HARMFUL, HARMLESS = tokens(0, 12, 9, 15), tokens(1, 8, 17, 11)
PAIRS = list(zip(HARMFUL, HARMLESS, strict=True))
WHOLE = [[Component("neuron", layer, number) for number in range(D_MLP)] for layer in range(SHAPE.layers)]
NEURONS = [neuron for layer in WHOLE for neuron in layer]


def drawn(size: int, seed: int, among: Sequence[Component] = NEURONS) -> list[Component]:
    return [among[i] for i in np.random.default_rng(seed).choice(len(among), size, replace=False)]


def alone() -> list[list[Component]]:
    return [[one] for layer in WHOLE for one in drawn(4, 0, layer)]


def sets() -> list[list[Component]]:
    """Of neurons of several layers, without and with other kinds of components."""
    others = SHAPE.components()
    mixed = [[*drawn(size, size), *drawn(4, size, others)] for size in (1, 10, 60)]
    of_heads = [[*drawn(size, size), *drawn(3, size, SHAPE.components(["head"]))] for size in (2, 20)]
    return [*(drawn(size, size) for size in (2, 5, 20, 150)), *mixed, *of_heads]


def everything() -> Rows:
    """Neurons alone, sets of them, every layer by itself, and no neuron among them."""
    dense = Rows.of([[], [Component("mlp", 1)], [Component("head", 0, 2)]], SHAPE)
    return Rows.concat([Rows.of(WHOLE, SHAPE, OWN), Rows.of(alone(), SHAPE), dense, Rows.of(sets(), SHAPE)])


def in_order(patches: Rows) -> Rows:
    return patches[patches.first_layer.argsort(stable=True)]


def recorded(model: LoadedModel, tail: int = 1) -> tuple[ComponentCache, list[Values]]:
    base, source = (cache_components(model, prompts, tail, neurons=True) for prompts in (HARMFUL, HARMLESS))
    return base, [base.at(-tail), source.at(-tail)]


def off_by(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of a logit, as a share of the largest one."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(("tail", "keep"), [(1, 1), (4, 2)])
@pytest.mark.parametrize(("name", "size"), EVERY_FAMILY, ids=lambda value: value if isinstance(value, str) else "")
def test_rows_of_neurons_equal_one_pass_for_each(tiny: Tiny, name: str, size: dict[str, int], tail: int, keep: int):
    model = tiny(name, **size)
    base, donors = recorded(model, tail)
    patches = in_order(everything())
    slow = loop.patched_logits(model, base, donors, patches, tail, keep)
    fast = rows.patched_logits(model, base, donors, patches, tail, keep)
    assert off_by(fast, slow) < 1e-5

    # One prompt at a time, nothing padded, nothing cached.
    with torch.inference_mode():
        plain = torch.stack([model.hf(torch.tensor([row]), use_cache=False).logits[0, -keep:] for row in HARMFUL])
    changed = patches.donor != OWN
    assert off_by(fast[:, ~changed], plain[:, None].expand(-1, len(WHOLE), -1, -1)) < 1e-5
    effect = (slow - plain[:, None]).abs().amax((0, 2, 3)) / slow.abs().max()
    with_neurons = torch.zeros(len(patches), dtype=torch.bool)
    with_neurons[patches.neuron[:, 0]] = True
    effect = effect[changed & with_neurons]
    # A neuron of the last layer changes nothing at later tokens, and one of OPT may put out 0 on both prompts.
    assert (effect > 1e-5).float().mean() > 0.75
    assert effect.median() > (1e-3 if tail > 1 else 0.01), "patches without an effect would show nothing"


def test_all_neurons_of_a_layer_are_its_mlp(tiny: Tiny, family: str):
    model = tiny(family)
    assert model.points.neurons == (D_MLP,) * SHAPE.layers
    base, donors = recorded(model)
    mlps = Rows.of([[Component("mlp", layer)] for layer in range(SHAPE.layers)], SHAPE)
    wanted = loop.patched_logits(model, base, donors, mlps)
    for way in (rows, loop):
        assert off_by(way.patched_logits(model, base, donors, Rows.of(WHOLE, SHAPE)), wanted) < 1e-5
    unpatched = loop.patched_logits(model, base, donors, Rows.of([[]], SHAPE))
    assert (wanted - unpatched).abs().amax((0, 2, 3)).min() > 0.01


@torch.inference_mode()
def slow(
    model: LoadedModel, name: str, prompt: list[int], chosen: Sequence[Component] = (), donor: Any = None
) -> tuple[Tensor, list[Tensor]]:
    """The metric of one prompt, and what neurons put out at its last token, some of them replaced: hooks by the names
    that modules have in transformers."""
    seen: list[Tensor] = []

    def entering(layer: int) -> Callable[..., Any]:
        numbers = [one.number for one in chosen if one.layer == layer]

        def hook(module: nn.Module, args: tuple[Tensor]) -> Tensor:
            flat = args[0].reshape(-1, D_MLP).clone()
            seen.append(flat[-1].clone())
            for number in numbers:
                flat[-1, number] = donor[layer][number]
            return flat.view_as(args[0])

        return hook

    downs = [reduce(getattr, name.format(layer).split("."), model.hf) for layer in range(SHAPE.layers)]
    hooks = [down.register_forward_pre_hook(entering(layer)) for layer, down in enumerate(downs)]
    try:
        logits = model.hf(torch.tensor([prompt]), use_cache=False).logits[0, -1:]
    finally:
        for hook in hooks:
            hook.remove()
    return refusal_log_odds(logits, METRIC.refusal_tokens)[0], seen


@pytest.mark.parametrize("architecture", DOWN)
def test_interchange_of_neurons_is_what_it_says(tiny: Tiny, architecture: str):
    model, name = tiny(architecture), DOWN[architecture]
    chosen = [*alone()[::5], drawn(2, 1), drawn(30, 2)]
    necessity, sufficiency = torch.zeros(3, len(chosen)), torch.zeros(3, len(chosen))
    for i, (harmful, harmless) in enumerate(PAIRS):
        (m_harmful, of_harmful), (m_harmless, of_harmless) = slow(model, name, harmful), slow(model, name, harmless)
        for j, one in enumerate(chosen):
            necessity[i, j] = m_harmful - slow(model, name, harmful, one, of_harmless)[0]
            sufficiency[i, j] = slow(model, name, harmless, one, of_harmful)[0] - m_harmless
    study = interchange(Engine(model, "rows", "", None), PAIRS, Rows.of(chosen, SHAPE), METRIC)
    for ours, theirs in ((study.necessity, necessity), (study.sufficiency, sufficiency)):
        assert (ours - theirs).abs().max() < 1e-5 < 1e-4 < theirs.abs().amax(0).min()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_effects_are_those_of_transformer_lens(tiny: Tiny, architecture: str):
    model, (corrupted, clean) = tiny(architecture), tokens(2, 5, 5)
    name = "blocks.{}.mlp.hook_post"
    neurons = [one for (one,) in alone()]

    def patched(one: Component) -> Tensor:
        def hook(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            x[:, -1, one.number] = cache[name.format(one.layer)][:, -1, one.number]
            return x

        logits = model.bridge.run_with_hooks(torch.tensor([corrupted]), fwd_hooks=[(name.format(one.layer), hook)])
        return refusal_log_odds(logits[:, -1], METRIC.refusal_tokens)[0]

    with torch.no_grad():
        unpatched, cache = model.bridge.run_with_cache(torch.tensor([corrupted]))
        _, cache = model.bridge.run_with_cache(torch.tensor([clean]))
        wanted = torch.stack([patched(one) for one in neurons])
    study = interchange(Engine(model, "rows", "", None), [(corrupted, clean)], Rows.of(alone(), SHAPE), METRIC)
    assert (study.into_harmful[0] - wanted).abs().max() < 1e-5
    effects = wanted - refusal_log_odds(unpatched[:, -1], METRIC.refusal_tokens)[0]
    assert effects.abs().median() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt2"])
def test_neither_order_nor_pieces_matter(tiny: Tiny, architecture: str, monkeypatch: pytest.MonkeyPatch):
    model, patches, tail = tiny(architecture), everything(), 2
    patches = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))]
    base, donors = recorded(model, tail)
    fitting = Engine(model, "rows", "", None)
    whole = fitting.measure(base, donors, patches, METRIC, tail)
    monkeypatch.setattr(engine, "TOKENS_PER_PROMPT", 10)
    assert fitting.prompts_at_once(len(base) * tail) * 3 < len(patches)
    assert (whole - fitting.measure(base, donors, patches, METRIC, tail)).abs().max() < 1e-5
    slowly = Engine(model, "loop", "", None).measure(
        base[1:], [Values(*(p[:, 1:] for p in one)) for one in donors], patches, METRIC, tail
    )
    assert (whole[1:] - slowly).abs().max() < 1e-5


# Rows


def test_rows_keep_their_neurons():
    named = [
        [Component("neuron", 2, 5), Component("neuron", 1, 63)],
        [],
        [Component("neuron", 0, 7), Component("head", 2, 1)],
        [Component("mlp", 1)],
        [Component("neuron", 2, 9)],
    ]
    patches = Rows.of(named, SHAPE)
    assert patches.first_layer.tolist() == [1, 2, 0, 1, 2]
    assert patches.neuron.tolist() == [[0, 2, 5], [0, 1, 63], [2, 0, 7], [4, 2, 9]]
    some = patches[torch.tensor([4, 3, 0, 0, 1])]
    assert some.neuron.tolist() == [[0, 2, 9], [2, 2, 5], [2, 1, 63], [3, 2, 5], [3, 1, 63]]
    assert some.mlp.nonzero().tolist() == [[1, 1]]
    assert patches[torch.tensor([1, 3])].neuron.shape == (0, 3)
    joined = Rows.concat([patches, Rows.identity(SHAPE), some])
    assert joined.neuron.tolist() == [
        *patches.neuron.tolist(),
        *([row + 8, *rest] for row, *rest in some.neuron.tolist()),
    ]
    assert len(Rows.of([], SHAPE)) == 0 == len(Rows.of([], SHAPE).neuron)
    assert [str(one) for one in named[0]] == ["neuron 2.5", "neuron 1.63"]


def test_rows_of_neurons_need_no_mask_over_all_of_them():
    shape, width = Shape(30, 9), 1536
    places = np.random.default_rng(0).choice(shape.layers * width, 4000, replace=False)
    patches = Rows.of([[Component("neuron", *divmod(int(place), width))] for place in places], shape)
    assert (patches.neuron[:, 1] * width + patches.neuron[:, 2]).tolist() == places.tolist()
    assert sum(part.nbytes for part in vars(patches).values()) < 2e6  # a mask would take 184e6


def test_random_neurons_are_others_of_the_same_layers():
    widths = (64, 64, 6)
    like = [*(Component("neuron", 0, number) for number in (3, 9, 20)), *(Component("neuron", 2, n) for n in range(4))]
    drawn = Rows.random_neurons(200, like, widths, SHAPE, seed=0)
    assert len(drawn) == 200
    rows, layers, numbers = drawn.neuron.unbind(1)
    assert (rows.bincount() == 7).all()
    assert layers.bincount(minlength=3).tolist() == [600, 0, 800]
    assert not set(numbers[layers == 0].tolist()) & {3, 9, 20}
    assert set(numbers[layers == 0].tolist()) == set(range(64)) - {3, 9, 20}
    assert set(numbers[layers == 2].tolist()) == set(range(6)), "two others are too few for four"
    assert all(len(set(numbers[(rows == row) & (layers == 2)].tolist())) == 4 for row in range(200))
    assert torch.equal(drawn.neuron, Rows.random_neurons(200, like, widths, SHAPE, seed=0).neuron)
    assert not torch.equal(drawn.neuron, Rows.random_neurons(200, like, widths, SHAPE, seed=1).neuron)


# Recording


def test_neurons_are_recorded_where_they_are_asked_for(tiny: Tiny):
    model = tiny()
    hooked: list[nn.Module] = []
    down = model.points.down_projection[1]
    register = down.register_forward_pre_hook
    down.register_forward_pre_hook = lambda *args, **kwargs: hooked.append(down) or register(*args, **kwargs)
    assert cache_components(model, HARMFUL, tail=2).at(-2).neuron.shape == (3, 3, 0)
    assert not hooked
    kept = cache_components(model, HARMFUL, tail=2, neurons=True)
    assert len(hooked) == 1
    assert kept.tail["neuron"].shape == (3, 3, 2, D_MLP)
    for i, prompt in enumerate(HARMFUL):
        _, seen = slow(model, DOWN["llama"], prompt)
        assert (kept[i : i + 1].at(-1).neuron[:, 0] - torch.stack(seen)).abs().max() < 1e-5


def test_patching_neurons_leaves_model_and_recording_alone(tiny: Tiny):
    model = tiny("opt")
    base, donors = recorded(model)
    before = [part.clone() for part in (*base.tail.values(), *donors[1])]
    with torch.inference_mode():
        wanted = model.hf(torch.tensor([HARMFUL[0]])).logits
        for way in (rows, loop):
            way.patched_logits(model, base, donors, in_order(everything()))
        assert torch.equal(model.hf(torch.tensor([HARMFUL[0]])).logits, wanted)
    assert all(map(torch.equal, before, (*base.tail.values(), *donors[1])))
    assert not [part for part in model.hf.modules() if part._forward_pre_hooks]


# What cannot be patched


@pytest.mark.parametrize("way", [rows, loop])
def test_a_neuron_that_is_not_there(tiny: Tiny, way: Any, sentence: Callable[..., str]):
    model = tiny()
    base, donors = recorded(model)

    def patch(*chosen: Component, donors: Sequence[Values] = donors) -> Callable[[], Any]:
        return lambda: way.patched_logits(model, base, donors, Rows.of([chosen], SHAPE))

    for number in (64, -1):
        told = sentence(patch(Component("neuron", 0, 3), Component("neuron", 2, number)))
        assert f"neuron 2.{number} is none of the 64 neurons" in told
        assert "from 0 to 63" in told
    for layer in (3, -1):
        assert f"neuron {layer}.5 is in none of the model's 3 layers" in sentence(patch(Component("neuron", layer, 5)))
    without = [cache_components(model, prompts).at(-1) for prompts in (HARMFUL, HARMLESS)]
    assert "neurons=True" in sentence(patch(Component("neuron", 1, 5), donors=without))
    assert patch(Component("neuron", 1, 5))().isfinite().all()


def test_a_mixture_of_experts_has_none_and_is_patched_else(monkeypatch: pytest.MonkeyPatch):
    size = {"intermediate_size": 64, "num_key_value_heads": 2, "num_local_experts": 4}
    monkeypatch.setitem(conftest.FAMILIES, "mixtral", size)
    model = conftest.tiny_model("mixtral")
    assert model.points.neurons == (0, 0, 0)
    base, donors = recorded(model)
    assert base.tail["neuron"].shape == (3, 3, 1, 0)
    chosen = engine_of(model, base, cache_components(model, HARMLESS, neurons=True), seed=0)
    assert chosen.path == "rows"
    dense = in_order(Rows.each(["head", "mlp"], SHAPE))
    slow, fast = (way.patched_logits(model, base, donors, dense) for way in (loop, rows))
    assert off_by(fast, slow) < 1e-5
    assert (slow - slow[:, :1]).abs().max() > 0.01
    for way in (rows, loop):
        with pytest.raises(InputError, match=r"MLP of layer 1 has no down projection .* mixture of experts"):
            way.patched_logits(model, base, donors, Rows.of([[Component("neuron", 1, 0)]], SHAPE))


def test_wrong_neurons_are_noticed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    model = tiny()
    both = [
        [cache_components(model, side[:1], 2, neurons) for side in (HARMFUL, HARMLESS)] for neurons in (True, False)
    ]
    assert [engine_of(model, *two, seed=0).path for two in both] == ["rows", "rows"]
    replace = rows._Run._replace_neurons
    monkeypatch.setattr(
        rows._Run,
        "_replace_neurons",
        lambda self, layer, row, number, device: replace(self, layer, row, (number + 1) % D_MLP, device),
    )
    assert [engine_of(model, *two, seed=0).path for two in both] == ["loop", "rows"]
    assert "rows are wrong by" in engine_of(model, *both[0], seed=0).reason
