"""Where heads read, on models in which that was planted, and against hooks of our own."""

from typing import Any

import numpy as np
import pytest
import torch

from rcm.circuits.reading import SOURCES, Reading, _seen, _sources, reading
from rcm.errors import InputError
from rcm.execution.components import Component, Rows
from rcm.execution.metric import LogOdds
from rcm.models import LoadedModel
from rcm.patching import Pairs, engine_for, interchange
from tests.conftest import FAMILIES, Tiny
from tests.planted import REFUSAL_AXIS, REFUSE, TRIGGER_AXIS, planted_model, planted_prompts

METRIC = LogOdds((70, 71))
TEXTS = [("kill the cat now", "feed the cat now"), ("how do I rob a bank?", "how do I open a bank account?")]


def pairs_of(model: LoadedModel) -> list[tuple[list[int], list[int]]]:
    tokens = model.template.tokens
    return [(list(tokens(harmful)), list(tokens(harmless))) for harmful, harmless in TEXTS]


@pytest.mark.parametrize(
    ("family", "more"),
    [*((name, {}) for name in FAMILIES), ("gemma2", {"sliding_window": 6}), ("mistral", {"sliding_window": 20})],
)
def test_parts_make_up_the_whole(tiny: Tiny, family: str, more: dict[str, Any]) -> None:
    model = tiny(family, **more)
    pairs = pairs_of(model)
    engine = engine_for(model, pairs, 0)
    heads = [Component("head", layer, head) for layer in range(3) for head in (0, 3)]
    found = reading(engine, pairs, heads, METRIC)
    assert found.attention.sum(-1) == pytest.approx(1, abs=1e-4)
    assert found.alike == [0]
    rows = Rows.of([[head] for head in heads], engine.shape)
    assert found.whole == pytest.approx(interchange(engine, pairs, rows, METRIC).necessity.numpy(), abs=1e-4)
    assert np.abs(found.whole).max() > 1e-3
    # The head as a whole is its attention and its values together, so no part of it does what it does not.
    seen, sources = [_seen(model, prompt) for prompt in pairs[1]], _sources(model, *pairs[1])
    assert torch.stack(sources).sum(0).eq(1).all()
    z = sum(seen[0].parts[:, :, mask].sum(2) for mask in sources)
    assert torch.allclose(torch.as_tensor(z), seen[0].recorded.at(-1).head[:, 0], atol=1e-4)


def test_a_source_is_what_hooks_put_in(tiny: Tiny) -> None:
    model = tiny("qwen2")
    pairs = pairs_of(model)
    found = reading(engine_for(model, pairs, 0), pairs, [Component("head", 1, 2)], METRIC)
    for i, (harmful, harmless) in enumerate(pairs):
        own, twin = _seen(model, harmful), _seen(model, harmless)
        for source, (mine, theirs) in enumerate(
            zip(_sources(model, harmful, harmless), _sources(model, harmless, harmful), strict=True)
        ):
            new = twin.parts[1, 2, theirs].sum(0) - own.parts[1, 2, mine].sum(0)
            width = new.shape[-1]

            def put(_: Any, args: Any, new: torch.Tensor = new, width: int = width) -> Any:
                x = args[0].clone()
                x[0, -1, 2 * width : 3 * width] += new
                return (x, *args[1:])

            with torch.inference_mode():
                before = METRIC(model.hf(torch.tensor([harmful])).logits[:, None, -1:])
                hook = model.points.head_out[1].register_forward_pre_hook(put)
                after = METRIC(model.hf(torch.tensor([harmful])).logits[:, None, -1:])
                hook.remove()
            assert found.by_source[i, 0, source] == pytest.approx(float(before - after), abs=1e-4)


def planted(model: LoadedModel) -> Reading:
    pairs = Pairs.of(model, planted_prompts().test, True).first(6).tokens
    metric = LogOdds((model.template.tokenizer(REFUSE)["input_ids"][0],))
    return reading(engine_for(model, pairs, 0), pairs, [Component("head", 2, 0), Component("head", 2, 1)], metric)


def test_the_planted_head_reads_the_trigger_by_its_values() -> None:
    found = planted(planted_model())
    share = found.by_source.mean(0)[0] / found.whole.mean(0)[0]
    assert dict(zip(SOURCES, share, strict=True))["differing words"] == pytest.approx(1, abs=0.1)
    assert np.abs(share[[0, 1, 3]]).max() < 0.1
    assert found.by_values.mean(0)[0] == pytest.approx(found.whole.mean(0)[0], rel=0.05)
    assert abs(found.by_attention.mean(0)[0]) < 0.05 * found.whole.mean(0)[0]
    assert np.abs(found.whole[:, 1]).max() < 0.05 * found.whole[:, 0].min()  # the idle head beside it


def test_a_head_that_looks_elsewhere_reads_by_its_attention() -> None:
    """It writes refusal for any token but the end, and looks away from the end only where there is a trigger."""
    model = planted_model()
    head = model.points.layers[2].self_attn
    newline = model.template.end_of_instruction[0]
    with torch.no_grad():
        model.hf.get_input_embeddings().weight[newline, 3] = 1.0  # the unused axis marks the template's end
        head.v_proj.weight.zero_()
        head.v_proj.weight[0, 2] = 1.0  # the constant, which all tokens have ...
        head.v_proj.weight[0, 3] = -1.0  # ... but what the end has takes it away
        head.q_proj.weight[0, 2] = 8.0
        head.k_proj.weight[0, TRIGGER_AXIS] = 8.0
        head.k_proj.weight[0, 3] = 4.0
        head.o_proj.weight[REFUSAL_AXIS, 0] = 6.0
    found = planted(model)
    whole = found.whole.mean(0)[0]
    assert found.by_attention.mean(0)[0] > 0.8 * whole > 0
    assert abs(found.by_values.mean(0)[0]) < 0.2 * whole
    differing = SOURCES.index("differing words")
    assert found.attention[0, :, 0, differing].mean() > found.attention[1, :, 0, differing].mean()


def test_what_is_not_attention_times_values_is_said(tiny: Tiny) -> None:
    """A model that gates what its heads found, on the way to the projection."""
    model = tiny("llama")
    pairs = pairs_of(model)
    engine = engine_for(model, pairs, 0)
    model.points.head_out[1].register_forward_pre_hook(lambda _, args: (2 * args[0],))
    with pytest.raises(InputError, match="not their attention times their values"):
        reading(engine, pairs, [Component("head", 0, 0)], METRIC)
