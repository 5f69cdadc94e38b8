"""Exact patching against slow references: the loop, TransformerLens, and passes written out here."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rcm.execution import engine, loop, recording, rows
from rcm.execution.components import COMPONENT_KINDS, Component, Rows, Shape
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import Likelihood, LogOdds
from rcm.execution.passes import last_logits
from rcm.execution.recording import ComponentCache, Values, cache_components
from rcm.execution.self_checks import TOLERANCE
from rcm.models import LoadedModel
from rcm.patching import (
    Effects,
    Interchange,
    contributions,
    interchange,
    interchange_of_replies,
    own_replies,
    stability,
    written_shares,
)
from rcm.stats import bootstrap, label_swap_max_t
from rcm.stats.metrics import refusal_log_odds
from tests import conftest

Tiny = Callable[..., LoadedModel]
SHAPE = Shape(3, 4)
METRIC = LogOdds((70, 71))
WINDOWED = ("mistral", "phi3", "gemma2", "gemma3_text")
EVERY_FAMILY = [*((name, {}) for name in conftest.FAMILIES), *((name, {"sliding_window": 6}) for name in WINDOWED)]


def tokens(seed: int, *lengths: int) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [[1, *draw.integers(3, 259, size=length - 1).tolist()] for length in lengths]


HARMFUL, HARMLESS = tokens(0, 12, 9, 15), tokens(1, 8, 17, 11)
PAIRS = list(zip(HARMFUL, HARMLESS, strict=True))


def everything(shape: Shape = SHAPE) -> Rows:
    """Every component alone, a layer by itself, all of them, sets of every kind of component, and none."""
    draw = np.random.default_rng(0)
    whole = shape.components()
    sets = [[whole[i] for i in draw.choice(len(whole), size, replace=False)] for size in (2, 5, 10)]
    parts = [Rows.each(COMPONENT_KINDS, shape), Rows.identity(shape), Rows.full(shape), Rows.of([*sets, []], shape)]
    like = [Component("head", layer, head) for layer, head in ((0, 1), (1, 0), (1, 3), (2, 2))]
    return Rows.concat([*parts, Rows.random_heads(3, like, shape, seed=0)])


def in_order(patches: Rows) -> Rows:
    return patches[patches.first_layer.argsort(stable=True)]


def recorded(model: LoadedModel, tail: int = 1) -> tuple[ComponentCache, list[Values]]:
    """Three prompts of unequal length, and what they and their twins computed at the token to be patched."""
    base, source = cache_components(model, HARMFUL, tail), cache_components(model, HARMLESS, tail)
    return base, [base.at(-tail), source.at(-tail)]


def rows_engine(model: LoadedModel) -> Engine:
    return Engine(model, "rows", "", 0.0)


# Rows and the loop


@pytest.mark.parametrize(("tail", "keep"), [(1, 1), (4, 2)])
@pytest.mark.parametrize(("name", "size"), EVERY_FAMILY, ids=lambda value: value if isinstance(value, str) else "")
def test_rows_equal_one_pass_for_each(tiny: Tiny, name: str, size: dict[str, int], tail: int, keep: int):
    model = tiny(name, **size)
    base, donors = recorded(model, tail)
    patches = in_order(everything())
    slow = loop.patched_logits(model, base, donors, patches, tail, keep)
    fast = rows.patched_logits(model, base, donors, patches, tail, keep)
    assert slow.shape == fast.shape == (3, len(patches), keep, 259)
    assert (slow - fast).abs().max() < 1e-5

    unpatched = base_logits(model, keep)
    own = patches.donor == 0
    assert (fast[:, own] - unpatched[:, None]).abs().max() < 1e-5
    effect = (slow[:, ~own] - unpatched[:, None]).abs().amax((0, 2, 3))
    assert effect.median() > (1e-3 if tail > 1 else 0.03), "patches without an effect would show nothing"


@torch.inference_mode()
def base_logits(model: LoadedModel, keep: int = 1) -> Tensor:
    """One prompt at a time, nothing padded, nothing cached."""
    return torch.stack([model.hf(torch.tensor([row]), use_cache=False).logits[0, -keep:] for row in HARMFUL])


def test_everything_replaced_is_the_other_prompt(tiny: Tiny, family: str):
    """Where two prompts differ in the last token alone, and all else that it could look at is the same."""
    model = tiny(family)
    prompts = tokens(0, 12, 9)
    others = [[*prompt[:-1], prompt[-1] % 200 + 40] for prompt in prompts]
    base, source, patches = cache_components(model, prompts), cache_components(model, others), Rows.full(SHAPE)
    wanted = loop.patched_logits(model, source, [source.at(-1)] * 2, Rows.of([[]], SHAPE))
    assert (wanted - loop.patched_logits(model, base, [base.at(-1)] * 2, Rows.of([[]], SHAPE))).abs().max() > 0.1
    for way in (rows, loop):
        got = way.patched_logits(model, base, [base.at(-1), source.at(-1)], patches)
        assert (got - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "opt", "gpt2", "gpt_neox"])
def test_neither_order_nor_pieces_nor_company_matter(tiny: Tiny, architecture: str, monkeypatch: pytest.MonkeyPatch):
    model, patches, tail = tiny(architecture), everything(), 2
    patches = patches[torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))]
    base, donors = recorded(model, tail)
    whole = rows_engine(model).measure(base, donors, patches, METRIC, tail)
    monkeypatch.setattr(engine, "TOKENS_PER_PROMPT", 20)  # so the last pieces hold rows that enter at late layers only
    assert rows_engine(model).prompts_at_once(len(base) * tail) * 3 < len(patches)
    pieces = rows_engine(model).measure(base, donors, patches, METRIC, tail)
    assert (whole - pieces).abs().max() < 1e-5
    for i, prompt in enumerate(HARMFUL):
        own = [Values(*(part[:, [i]] for part in donor)) for donor in donors]
        alone = rows_engine(model).measure(cache_components(model, [prompt], tail), own, patches, METRIC, tail)
        assert (whole[i] - alone[0]).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "size"), EVERY_FAMILY, ids=lambda value: value if isinstance(value, str) else "")
def test_what_prompts_begin_with_is_read_once(
    tiny: Tiny, name: str, size: dict[str, int], monkeypatch: pytest.MonkeyPatch
):
    model, patches = tiny(name, **size), in_order(everything())
    harmful, harmless = ([[1, 90, 40, 7, *prompt[1:]] for prompt in side] for side in (HARMFUL, HARMLESS))
    whole, source = (cache_components(model, side, neurons=True) for side in (harmful, harmless))
    monkeypatch.setattr(recording, "WORTH_SHARING", 0)
    shared, shared_source = (cache_components(model, side, neurons=True) for side in (harmful, harmless))
    read_once = shared.batch.attention_mask[:, :4].bool().all().item()
    assert read_once is ("sliding_window" not in size), "a window that prompts outgrow would count the padding"
    assert not whole.batch.attention_mask[:, :4].bool().all()
    for ours, alone in zip(shared.at(-1), whole.at(-1), strict=True):
        assert (ours - alone).abs().max() < 1e-5
    wanted = rows.patched_logits(model, whole, [whole.at(-1), source.at(-1)], patches)
    for way in (rows, loop):
        got = way.patched_logits(model, shared, [shared.at(-1), shared_source.at(-1)], patches)
        assert (got - wanted).abs().max() < 1e-5
    some = shared[1:]
    got = rows.patched_logits(model, some, [Values(*(part[:, 1:] for part in shared.at(-1)))] * 2, patches)
    assert (got - loop.patched_logits(model, some, [some.at(-1)] * 2, patches)).abs().max() < 1e-5


def test_rows_know_what_they_change_first():
    sets = [[Component("mlp", 2), Component("head", 1, 3)], [Component("residual", 0)], [], [Component("attention", 2)]]
    patches = Rows.of(sets, SHAPE)
    assert patches.first_layer.tolist() == [1, 0, 2, 2]
    assert patches.head.nonzero().tolist() == [[0, 1, 3]]
    assert Rows.concat([patches, Rows.identity(SHAPE)]).donor.tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert " ".join(map(str, SHAPE.components(["head", "mlp"])[::5])) == "head 0.0 head 1.1 head 2.2"


def test_random_heads_are_others_of_the_same_layers_where_they_can_be():
    ours = [Component("head", 0, 0), *(Component("head", 2, head) for head in range(3))]
    random = Rows.random_heads(50, ours, SHAPE, seed=0).head
    assert random.sum(-1).tolist() == [[1, 0, 3]] * 50
    assert not random[:, 0, 0].any()
    assert random[:, 0, 1:].any(0).all()
    assert random[:, 2].any(0).all(), "one head is left of four, and three are wanted"
    assert torch.equal(random, Rows.random_heads(50, ours, SHAPE, seed=0).head)
    assert not torch.equal(random, Rows.random_heads(50, ours, SHAPE, seed=1).head)


ADDING = {
    "bloom": {},  # its attention and its MLP add the residual stream themselves
    "mpt": {"max_seq_len": 256, "expansion_ratio": 2},
    "granite": {"residual_multiplier": 0.3, "num_key_value_heads": 2},
}


@pytest.mark.parametrize("architecture", [*conftest.FAMILIES, *ADDING])
def test_what_attention_and_mlp_put_out_is_what_the_stream_gains(architecture: str, monkeypatch: pytest.MonkeyPatch):
    if architecture in ADDING:
        monkeypatch.setitem(conftest.FAMILIES, architecture, ADDING[architecture])
        monkeypatch.delitem(conftest.SIZE, "max_position_embeddings")
    model = conftest.tiny_model(architecture)
    values = cache_components(model, HARMFUL).at(-1)
    gained = values.residual[1:] - values.residual[:-1]
    written = getattr(model.hf.config, "residual_multiplier", 1.0) * (values.attention + values.mlp)[:-1]
    assert (gained - written).abs().max() < 1e-5
    assert min(part.abs().median() for part in (values.attention, values.mlp)) > 1e-3


# TransformerLens


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_effects_are_those_of_transformer_lens(tiny: Tiny, architecture: str):
    from transformer_lens import patching as theirs

    model, (corrupted, clean) = tiny(architecture), tokens(2, 5, 5)
    sweeps = {
        "head": theirs.get_act_patch_attn_head_out_by_pos,
        "attention": theirs.get_act_patch_attn_out,
        "mlp": theirs.get_act_patch_mlp_out,
        "residual": theirs.get_act_patch_resid_pre,
    }
    _, cache = with_cache(model, clean)
    for kind, sweep in sweeps.items():
        with torch.no_grad():
            wanted = sweep(model.bridge, torch.tensor([corrupted]), cache, log_odds)[:, -1].flatten()
        got = interchange(rows_engine(model), [(corrupted, clean)], Rows.each([kind], SHAPE), METRIC).into_harmful[0]
        assert (got - wanted).abs().max() < 1e-5, kind
        assert (wanted - wanted.mean()).abs().max() > 1e-3


def test_the_stream_after_attention_is_replaced_by_residual_and_attention_together(tiny: Tiny):
    """And not at TransformerLens' `hook_resid_mid`, where a hook that returns a new tensor edits the MLP's input alone:
    the residual was taken before. Its own sweep is right only without gradients, when it writes into the tensor."""
    from transformer_lens import patching as theirs

    model, (corrupted, clean) = tiny("llama"), tokens(2, 5, 5)
    _, cache = with_cache(model, clean)
    together = Rows.of([[Component("residual", layer), Component("attention", layer)] for layer in range(3)], SHAPE)
    ours = interchange(rows_engine(model), [(corrupted, clean)], together, METRIC).into_harmful[0]
    with torch.no_grad():
        written_into = theirs.get_act_patch_resid_mid(model.bridge, torch.tensor([corrupted]), cache, log_odds)[:, -1]
    assert (ours - written_into).abs().max() < 1e-4

    def returned(layer: int) -> Tensor:
        name = f"blocks.{layer}.hook_resid_mid"

        def hook(x: Tensor, hook: Any) -> Tensor:
            return torch.cat([x[:, :-1], cache[name][:, -1:]], dim=1)

        with torch.no_grad():
            return log_odds(model.bridge.run_with_hooks(torch.tensor([corrupted]), fwd_hooks=[(name, hook)]))

    assert (ours - torch.stack([returned(layer) for layer in range(3)])).abs().max() > 0.05


def with_cache(model: LoadedModel, prompt: list[int]) -> Any:
    with torch.no_grad():
        return model.bridge.run_with_cache(torch.tensor([prompt]))


def log_odds(logits: Tensor) -> Tensor:
    return refusal_log_odds(logits[:, -1].detach(), METRIC.refusal_tokens)[0]


# Nothing is left behind


def traces(model: LoadedModel) -> tuple[Any, ...]:
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.hf.modules()]
    return model.hf.config._attn_implementation, hooks, dict(ALL_ATTENTION_FUNCTIONS)


def copied(recording: ComponentCache) -> list[Tensor]:
    parts = [*recording.tail.values(), *(part for layer in recording.cache for part in layer), *recording.batch]
    return [part.clone() for part in parts]


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_patching_leaves_model_and_recording_alone(tiny: Tiny, architecture: str):
    model = tiny(architecture)
    before, wanted = traces(model), base_logits(model)
    base, donors = recorded(model)
    kept = copied(base)
    for way in (rows, loop):
        for patches in (in_order(everything()), Rows.of([[Component("residual", 0)]], SHAPE)):
            way.patched_logits(model, base, donors, patches)
    engine_of(model, cache_components(model, HARMFUL[:1], 2), cache_components(model, HARMLESS[:1], 2), seed=0)
    assert all(map(torch.equal, kept, copied(base)))
    assert traces(model) == before
    assert torch.equal(base_logits(model), wanted)


def test_nothing_is_left_after_an_exception(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Exception):  # noqa: N818 (what was raised, not what went wrong)
        pass

    @dataclass(frozen=True)
    class Raising:
        keep: int = 1

        def of(self, index: Sequence[int]) -> "Raising":
            return self

        def __call__(self, logits: Tensor) -> Tensor:
            raise Interrupted

    def interrupted(*_: Any, **__: Any) -> Any:
        raise Interrupted

    model = tiny()
    before, wanted = traces(model), base_logits(model)
    base, donors = recorded(model)
    narrow = [donors[0], Values(*(part[..., :-1] for part in donors[1]))]
    with pytest.raises(Interrupted):
        rows_engine(model).measure(base, donors, everything(), Raising())
    for way in (rows, loop):
        with pytest.raises(RuntimeError):
            way.patched_logits(model, base, narrow, in_order(everything()))
        assert traces(model) == before
    monkeypatch.setattr(rows._Run, "attend", interrupted)
    monkeypatch.setattr("rcm.execution.recording._Keeper._keep", lambda *_: interrupted)
    for action in (
        lambda: rows.patched_logits(model, base, donors, in_order(everything())),
        lambda: cache_components(model, HARMFUL),
    ):
        with pytest.raises(Interrupted):
            action()
        assert traces(model) == before
    assert torch.equal(base_logits(model), wanted)


# Which way is taken

MIXTURE = {"first_k_dense_replace": 1, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
CANNOT_SHARE: dict[str, tuple[dict[str, Any], str]] = {
    "bloom": ({}, "0 of 3 layers take their attention from transformers' interface"),
    "falcon": ({"alibi": True, "multi_query": False}, "0 of 3 layers"),
    "mpt": ({"max_seq_len": 256, "expansion_ratio": 2}, "0 of 3 layers"),
    "gpt_oss": ({"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4}, "adds s_aux to the scores"),
    "deepseek_v3": (
        {**MIXTURE, **LATENT, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
        "cache does not hold the keys",
    ),
}


def checked(model: LoadedModel, tail: int = 2) -> Engine:
    return engine_of(
        model, cache_components(model, HARMFUL[:1], tail), cache_components(model, HARMLESS[:1], tail), seed=0
    )


@pytest.mark.parametrize("architecture", CANNOT_SHARE)
def test_what_cannot_share_a_prompt_takes_the_loop_and_says_why(
    architecture: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    size, why = CANNOT_SHARE[architecture]
    monkeypatch.setitem(conftest.FAMILIES, architecture, size)
    monkeypatch.delitem(conftest.SIZE, "max_position_embeddings")
    model = conftest.tiny_model(architecture)
    before = traces(model)
    chosen = checked(model)
    assert (chosen.path, chosen.error) == ("loop", None)
    assert why in chosen.reason
    assert [(record.levelname, why in record.message) for record in caplog.records] == [("WARNING", True)]
    assert traces(model) == before
    study = interchange(chosen, PAIRS, Rows.identity(SHAPE), METRIC)
    assert study.necessity.abs().max() < 1e-5 < study.gap.abs().min()


def test_every_family_takes_the_rows(tiny: Tiny, family: str, caplog: pytest.LogCaptureFixture):
    model = tiny(family)  # loading logs, too
    with caplog.at_level(logging.INFO):
        chosen = checked(model)
    assert (chosen.path, chosen.shape) == ("rows", SHAPE)
    assert chosen.error < 1e-5
    assert [(record.levelname, "exact to" in record.message) for record in caplog.records] == [("INFO", True)]


@pytest.mark.parametrize(("factor", "tail"), [(1.1, 1), (1.1, 2), (float("nan"), 1), (float("nan"), 2)])
def test_wrong_attention_is_noticed(
    tiny: Tiny, factor: float, tail: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    attend = rows._Run.attend

    def broken(self: rows._Run, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        out, nothing = attend(self, *args, **kwargs)
        return (out * factor if self.tail == tail else out), nothing

    monkeypatch.setattr(rows._Run, "attend", broken)
    chosen = checked(tiny())
    assert chosen.path == "loop"
    assert "rows are wrong by" in chosen.reason
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_rounding_of_half_precision_is_no_error(tiny: Tiny):
    model = tiny()
    model.hf.bfloat16()
    chosen = checked(model)
    assert chosen.path == "rows"
    assert 0 < chosen.error < TOLERANCE[torch.bfloat16] * float(base_logits(model).abs().max())


# Interchange, against passes with hooks written out for Llama


@torch.inference_mode()
def slow(model: LoadedModel, row: list[int], at: int, component: Component | None = None, donor: Any = None) -> Any:
    """Logits of one token row and what every component put out, one of them replaced at the token `at`."""
    seen: dict[Component, Tensor] = {}

    def edited(name: Component, x: Tensor) -> Tensor:
        seen[name] = x[0, at].clone()
        if name == component:
            x = x.clone()
            x[0, at] = donor[name]
        return x

    def entering(layer: int) -> Callable[..., Any]:
        return lambda module, args: (edited(Component("residual", layer), args[0]), *args[1:])

    def entering_projection(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Tensor]) -> Tensor:
            heads = args[0].chunk(SHAPE.heads, dim=-1)
            return torch.cat([edited(Component("head", layer, h), z) for h, z in enumerate(heads)], dim=-1)

        return hook

    def leaving(kind: Any, layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return edited(Component(kind, layer), output[0]), *output[1:]
            return edited(Component(kind, layer), output)

        return hook

    with ExitStack() as hooks:
        for layer, block in enumerate(model.hf.model.layers):
            for hook in (
                block.register_forward_pre_hook(entering(layer)),
                block.self_attn.o_proj.register_forward_pre_hook(entering_projection(layer)),
                block.self_attn.register_forward_hook(leaving("attention", layer)),
                block.mlp.register_forward_hook(leaving("mlp", layer)),
            ):
                hooks.callback(hook.remove)
        return model.hf(torch.tensor([row]), use_cache=False).logits[0].double(), seen


def slow_interchange(model: LoadedModel, metric: Callable[..., Tensor], replies: Any = None) -> tuple[Any, ...]:
    """Unpatched metrics, necessity and sufficiency of every component, for each pair."""
    components = SHAPE.components()
    necessity, sufficiency, unpatched = torch.zeros(3, 21), torch.zeros(3, 21), torch.zeros(3, 2)
    for i, pair in enumerate(PAIRS):
        reply = [] if replies is None else replies[i].tolist()
        ends = [len(prompt) - 1 for prompt in pair]
        plain = [slow(model, prompt + reply, end) for prompt, end in zip(pair, ends, strict=True)]
        m = [metric(logits, i) for logits, _ in plain]
        unpatched[i] = torch.stack(m)
        for j, component in enumerate(components):
            patched = [
                metric(slow(model, pair[side] + reply, ends[side], component, plain[1 - side][1])[0], i)
                for side in (0, 1)
            ]
            necessity[i, j], sufficiency[i, j] = m[0] - patched[0], patched[1] - m[1]
    return unpatched, necessity, sufficiency


def test_interchange_is_what_it_says(tiny: Tiny):
    model = tiny()
    unpatched, necessity, sufficiency = slow_interchange(model, lambda logits, _: textbook(logits[-1:])[0])
    for batch_size in (1, 16):
        fitting = rows_engine(replace(model, batch_size=batch_size))
        study = interchange(fitting, PAIRS, Rows.each(COMPONENT_KINDS, SHAPE), METRIC)
        assert (torch.stack([study.harmful, study.harmless], 1) - unpatched).abs().max() < 1e-5
        assert (study.gap - (unpatched[:, 0] - unpatched[:, 1])).abs().max() < 1e-5
        assert (study.necessity - necessity).abs().max() < 1e-5 < 0.01 < necessity.abs().median()
        assert (study.sufficiency - sufficiency).abs().max() < 1e-5 < 0.01 < sufficiency.abs().median()


def test_interchange_of_replies_is_what_it_says(tiny: Tiny):
    model = tiny()
    refusals, answers = torch.tensor(tokens(3, 4, 4, 4))[:, 1:], torch.tensor(tokens(4, 4, 4, 4))[:, 1:]

    def said(replies: Tensor) -> Callable[[Tensor, int], Tensor]:
        return lambda logits, i: logits[-4:-1].log_softmax(-1)[range(3), replies[i]].sum()

    wanted = [
        a - b
        for a, b in zip(
            slow_interchange(model, said(refusals), refusals),
            slow_interchange(model, said(answers), answers),
            strict=True,
        )
    ]
    patches = Rows.each(COMPONENT_KINDS, SHAPE)
    study = interchange_of_replies(rows_engine(model), PAIRS, patches, refusals, answers)
    got = torch.stack([study.harmful, study.harmless], 1), study.necessity, study.sufficiency
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours - theirs).abs().max() < 1e-4 < 1e-3 < theirs.abs().median()

    # The token before the last, which lies one further from the end of the prompt and its reply.
    last, longer = study, [([*a, 5], [*b, 5]) for a, b in PAIRS]
    moved = interchange_of_replies(rows_engine(model), longer, patches, refusals, answers, position=-2)
    slowly = interchange_of_replies(Engine(model, "loop", "", None), longer, patches, refusals, answers, position=-2)
    assert (moved.necessity - slowly.necessity).abs().max() < 1e-4
    assert (moved.necessity - last.necessity).abs().max() > 0.01


def test_own_replies_do_not_know_the_labels(tiny: Tiny):
    model = tiny(batch_size=2)
    with torch.no_grad():  # as it is, it says one and the same to everything
        for weight in model.hf.parameters():
            weight.mul_(4 if weight.ndim > 1 else 1)
    pairs = [("Reef", "Many more letters"), ("one", "two"), ("Stop it!", "a b c")]
    kept, refusals, answers = own_replies(model, pairs, METRIC.refusal_tokens, 4)
    swapped = own_replies(model, [(b, a) for a, b in pairs], METRIC.refusal_tokens, 4)
    assert kept == swapped[0] == [0, 1, 2]
    assert torch.equal(refusals, swapped[1])
    assert torch.equal(answers, swapped[2])
    for pair, refusal, answer in zip(pairs, refusals, answers, strict=True):
        rather = sorted(pair, key=lambda text: textbook(last_logits(model, [text]))[0].item())
        assert [reply_tokens(model, [text], 4)[0] for text in rather] == [answer.tolist(), refusal.tolist()]
    assert refusals.shape == answers.shape == (3, 4)
    assert not torch.equal(refusals, answers)


def test_a_pair_with_a_short_reply_is_left_out_and_shortens_no_other(tiny: Tiny):
    model = tiny()
    with torch.no_grad():
        for weight in model.hf.parameters():
            weight.mul_(4 if weight.ndim > 1 else 1)
    texts = [f"{a} {b}" for a in ("Reef", "one", "Stop it!") for b in ("two", "a b c", "letters", "more")]
    whole = {text: reply_tokens(model, [text], 6)[0] for text in texts}
    last = whole["Reef two"][2]
    short = {text for text in texts if last in whole[text][:5]}
    assert 0 < len(short) < len(texts) - 2, "the model says different things"
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    model.hf.generation_config.eos_token_id = [last]
    kept, refusals, answers = own_replies(model, pairs, METRIC.refusal_tokens, 6)
    assert kept == [i for i, pair in enumerate(pairs) if not short & set(pair)]
    for i, refusal, answer in zip(kept, refusals.tolist(), answers.tolist(), strict=True):
        assert sorted([refusal, answer]) == sorted(whole[text] for text in pairs[i])
    none, *replies = own_replies(model, [pairs[0]], METRIC.refusal_tokens, 6)
    assert none == []
    assert [tuple(one.shape) for one in replies] == [(0, 6)] * 2


def test_pairs_and_rows_of_an_interchange_are_chosen():
    a, b = torch.arange(3.0), torch.arange(12.0).view(3, 4)
    study = Interchange(a + 5, a, b, 2 * b)
    assert study.where(torch.tensor([True, False, True])).gap.tolist() == [5, 5]
    assert study.rows([3, 0]).into_harmless.tolist() == [[6, 0], [14, 8], [22, 16]]
    assert (study - study).necessity.abs().max() == 0
    joined = Interchange.beside([study.rows([3]), study])
    assert torch.equal(joined.rows([1, 2, 3, 4]).necessity, study.necessity)
    assert torch.equal(joined.sufficiency[:, 0], study.sufficiency[:, 3])


# Metrics


def textbook(logits: Tensor) -> Tensor:
    p = logits.double().softmax(-1)[:, list(METRIC.refusal_tokens)].sum(-1)
    return torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)


@pytest.mark.parametrize("scale", [1.0, 10.0, 60.0])
def test_log_odds_are_the_textbook_formula(scale: float):
    logits = scale * torch.randn(40, 259, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    assert (refusal_log_odds(logits, METRIC.refusal_tokens) - textbook(logits)).abs().max() < 1e-5
    assert torch.equal(logits, before)
    as_rows = METRIC(logits.view(5, 8, 1, 259))
    assert (as_rows - textbook(logits).view(5, 8)).abs().max() < 1e-5
    assert METRIC.of([1, 2]) is METRIC


def test_likelihood_is_that_of_each_prompts_own_reply():
    logits = 3 * torch.randn(3, 5, 4, 20, generator=torch.Generator().manual_seed(0))
    metric = Likelihood(torch.tensor([[0, 3, 3, 19], [7, 6, 5, 4], [1, 1, 1, 1]]))
    assert metric.keep == 4
    wanted = torch.zeros(3, 5, dtype=torch.float64)
    for prompt, row, place in np.ndindex(3, 5, 4):
        wanted[prompt, row] += logits[prompt, row, place].double().log_softmax(-1)[metric.reply[prompt, place]]
    assert (metric(logits) - wanted).abs().max() < 1e-5
    assert (metric.of([2, 0])(logits[[2, 0]]) - wanted[[2, 0]]).abs().max() < 1e-5


# Contributions


@torch.inference_mode()
def test_contributions_are_what_each_head_writes(tiny: Tiny, family: str):
    """A norm after attention scales as it did on the whole, biases belong to no head."""
    model = tiny(family)
    values = cache_components(model, HARMFUL).at(-1)
    direction = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(0)), dim=0)
    found = contributions(model, values, direction)
    assert found.shape == (3, 3, 4)
    for layer, (projection, written) in enumerate(zip(model.points.head_out, values.attention, strict=True)):
        bias = torch.zeros(32) if getattr(projection, "bias", None) is None else projection.bias
        scale = norm_scale(model.points.attention_out[layer], projection(values.head[layer].flatten(1)))
        assert (found[layer].sum(-1) - (written - bias) @ direction).abs().max() < 1e-5
        for head in range(4):
            alone = torch.zeros_like(values.head[layer])
            alone[:, head] = values.head[layer][:, head]
            wrote = (projection(alone.flatten(1)) - bias) * scale
            assert (found[layer, :, head] - wrote @ direction).abs().max() < 1e-5
    assert found.abs().median() > 1e-3


@pytest.mark.parametrize(("layer", "position"), [(2, -1), (1, -3), (0, -1)])
def test_what_heads_write_is_measured_where_it_is_read(tiny: Tiny, layer: int, position: int):
    """At that token, of heads before that layer; the others have no value."""
    model, vector = tiny(batch_size=2), torch.randn(32, generator=torch.Generator().manual_seed(0))
    found = written_shares(model, PAIRS, vector, layer, position)
    assert found.shape == (3, 3, 4)
    assert found[:, layer:].isnan().all()
    for i, pair in enumerate(PAIRS):
        harmful, harmless = (
            contributions(model, cache_components(model, [prompt[: len(prompt) + 1 + position]]).at(-1), vector)[:, 0]
            for prompt in pair
        )
        assert found[i, :layer] == pytest.approx(((harmful - harmless) / vector.square().sum())[:layer], abs=1e-5)
    assert not layer or found[:, :layer].abs().median() > 1e-3


def norm_scale(writes: nn.Module, x: Tensor) -> Tensor | float:
    """What an RMS norm multiplies each number of `x` by: the same as of any other vector of that length."""
    if "Norm" not in type(writes).__name__:
        return 1.0
    size = x.pow(2).mean(-1, keepdim=True).sqrt()
    return writes(size.expand_as(x)) / size


# Statistics of effects


def null_data(draw: np.random.Generator, pairs: int, cells: int, damage: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels mean nothing: what a patch takes from either prompt has one distribution, skewed and alike over cells."""
    lost = damage + draw.exponential(size=(2, pairs, cells)) - 1 + draw.exponential(size=(2, pairs, 1)) - 1
    return lost[0], -lost[1]


@pytest.mark.parametrize("damage", [0.0, 2.0])
def test_labels_without_meaning_are_rarely_significant_anywhere(damage: float):
    """Not even where every patch does harm, whichever prompt it is done to."""
    draw = np.random.default_rng(1)
    smallest = []
    for seed in range(200):
        p = label_swap_max_t(*null_data(draw, 20, 8, damage), seed, draws=200)
        smallest.append(np.concatenate(p).min())
    assert 0.01 <= np.mean(np.array(smallest) <= 0.05) <= 0.09
    assert min(smallest) > 0


def test_a_planted_effect_is_found_among_many_cells():
    necessity, sufficiency = null_data(np.random.default_rng(0), 60, 50, damage=0.0)
    necessity[:, 7] += 2
    sufficiency[:, 7] += 2
    sufficiency[:, 9] -= 2  # against refusing
    p = label_swap_max_t(necessity, sufficiency, seed=0, draws=500)
    assert p[0][7] == p[1][7] == p[1][9] == 1 / 501
    assert min(np.delete(p[0], 7).min(), np.delete(p[1], [7, 9]).min()) > 0.05
    dead = label_swap_max_t(np.zeros((5, 2)), np.zeros((5, 2)), seed=0, draws=10)
    assert np.concatenate(dead).tolist() == [1.0] * 4


def known(gaps: Sequence[float], share: Sequence[float]) -> Interchange:
    """Pairs with these gaps, of which the components have these shares, both ways and nearly so in every pair."""
    gap = torch.tensor(gaps, dtype=torch.float64)
    noise = torch.randn(2, len(gaps), len(share), generator=torch.Generator().manual_seed(0)).double() / 100
    moved = gap[:, None] * (torch.tensor(share, dtype=torch.float64) + noise)
    return Interchange(gap, torch.zeros_like(gap), gap[:, None] - moved[0], moved[1])


def test_effects_are_shares_of_the_gap_of_pairs_that_have_one():
    components = SHAPE.components(["mlp"])
    study = known([*[4.0, 5.0, 0.5, 6.0, 3.0] * 4, 4.0, 5.0, 0.5, 6.0, -3.0], [1.0, 0.01, -0.5])
    effects = Effects.of(study, components, min_gap=1.0, seed=0)
    assert effects.with_gap.tolist() == [True, True, False, True, True] * 5
    assert effects.shares.shape == (20, 3)
    for estimate in (effects.necessity, effects.sufficiency):
        assert estimate.share == pytest.approx([0.9, 0.01, -0.45], abs=0.01)  # in one pair of 20 the other sign
        assert (estimate.low <= estimate.share).all()
        assert (estimate.share <= estimate.high).all()
        assert estimate.critical(0.02).tolist() == [True, False, True]
    assert effects.critical(0.02).tolist() == [True, False, True]
    assert effects.critical(0.6).tolist() == [True, False, False]
    assert effects.of_kind("mlp") == [0, 1, 2]
    assert effects.of_kind("head") == []


def test_without_a_gap_there_are_no_shares():
    effects = Effects.of(known([0.5] * 10, [1.0, 0.0, 0.0]), SHAPE.components(["mlp"]), min_gap=1.0, seed=0)
    assert not effects.with_gap.any()
    assert np.isnan(effects.necessity.share).all()
    assert effects.necessity.p.tolist() == [1, 1, 1]
    assert not effects.critical(0.02).any()


def test_stability_tells_a_ranking_from_noise():
    draw = np.random.default_rng(0)
    clear, noise = draw.normal(0, 0.1, size=(2, 40, 30))
    rho, jaccard = stability(clear + np.linspace(0, 3, 30), top=5, seed=0)
    assert rho.mean() > 0.98
    assert jaccard.mean() > 0.9
    rho, jaccard = stability(noise, top=5, seed=0)
    assert rho.mean() < 0.7
    assert jaccard.mean() < 0.6
    assert len(rho) == len(jaccard) == 200


def test_the_interval_of_a_mean_is_the_textbooks():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    low, high = bootstrap(np.mean, values, seed=0)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert bootstrap(np.mean, np.array([2.0]), seed=0) is None
