"""Where in a prompt refusing is decided: the trigger's tokens, until a planted head has read them at the last one."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from rcm.directions.refusal_direction import RefusalDirection
from rcm.judges.behaviour import RefusalBehaviour
from rcm.methods.positions import _ranges
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split
from rcm.record.results import Outcome
from tests.planted import (
    REFUSAL_AXIS,
    REFUSE,
    TRIGGER_AXIS,
    UNUSED_AXIS,
    composed,
    known,
    method,
    planted_model,
    planted_prompts,
    reported,
    shuffled,
)

LAYER = 3  # the planted head is in the layer before
PROMPTS = planted_prompts(sizes=(4, 4, 12))
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}~>"
WAYS = ("necessity", "sufficiency")
ALWAYS = {"pairs_unequal", "engine", "engine_error", "pairs_without_gap", "pairs", "outcome"}
MEASURED = {"tokens_differing", "tokens_shared", "noise_floor", "gap", "cells", "example"}
MEASURED |= {f"{kind}_{way}" for kind in ("residual", "attention", "mlp") for way in WAYS}


def weak_model(layer: int = LAYER) -> LoadedModel:
    """The planted model with two tokens after the instruction, whose head writes so little that the tokens that it
    reads add up in the log-odds."""
    model = planted_model(layer)
    tokenizer = model.template.tokenizer
    tokenizer.chat_template = TEMPLATE
    with torch.no_grad():
        model.hf.model.layers[layer - 1].self_attn.o_proj.weight.mul_(0.1)
    return LoadedModel.of(model.hf, tokenizer, "chat", batch_size=1024)


def gathering_model() -> LoadedModel:
    """A head of layer 1 brings the trigger to every later token, on an axis of its own; one of layer 3 reads it from
    all of them."""
    model = weak_model(4)
    first, second = (model.hf.model.layers[layer].self_attn for layer in (1, 3))
    first.load_state_dict(second.state_dict())
    with torch.no_grad():
        first.o_proj.weight.zero_()[UNUSED_AXIS, 0] = 0.3
        second.v_proj.weight.zero_()[0, UNUSED_AXIS] = 1.0
        second.o_proj.weight.zero_()[REFUSAL_AXIS, 0] = 1.0
    assert first.v_proj.weight[0, TRIGGER_AXIS] == 1
    return model


def located(model: LoadedModel, prompts: Split, *findings: Any, tokens: bool = True, **settings: Any) -> dict[str, Any]:
    token = model.template.tokenizer(REFUSE)["input_ids"][0]
    found = known(model, torch.eye(model.d_model)[REFUSAL_AXIS], LAYER, (token,) if tokens else ())
    chosen = brief().model_copy(update=settings)
    results = reported(chosen, model, prompts, None, found, *findings)
    assert all(name.startswith("positions/") for name in results)
    return {name.removeprefix("positions/"): result for name, result in results.items()}


@cache
def brief() -> Any:
    return method("positions", head_layers=2)


@pytest.fixture(scope="module")
def planted() -> dict[str, Any]:
    return located(weak_model(), PROMPTS)


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(found["cells"].columns, row, strict=True)) for row in found["cells"].rows]


def test_every_result_is_there(planted: dict[str, Any]) -> None:
    assert set(planted) == ALWAYS | MEASURED
    counts = [planted[name].value for name in ("pairs", "pairs_unequal", "pairs_without_gap")]
    assert counts == [12, 0, 0]
    assert planted["engine"].value == "rows"
    assert 0 < planted["noise_floor"].value < 1e-4
    assert planted["gap"].value > 1
    letters = [len(prompt.text) - 2 for prompt in PROMPTS.test.harmful]
    assert planted["tokens_differing"].value == pytest.approx(np.mean([-(-n // 3) for n in letters]))
    assert planted["tokens_shared"].value == pytest.approx(np.mean([n - -(-n // 3) + 1 for n in letters]))


def test_the_stream_holds_the_trigger_in_its_own_tokens_and_then_the_decision_in_the_last(
    planted: dict[str, Any],
) -> None:
    for way in WAYS:
        grid = planted[f"residual_{way}"]
        assert grid.columns == ["differing words", "shared words", "-2 ~", "-1 >"]
        assert grid.values[:, 0] == pytest.approx([1, 1, 1, 0, 0, 0], abs=0.1)
        assert grid.values[:, 3] == pytest.approx([0, 0, 0, 1, 1, 1], abs=0.1)
        assert np.abs(grid.values[:, 1:3]).max() < 0.05
        assert set(grid.marked) == {(0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3)}


def test_only_the_reading_layer_at_the_last_token_is_critical_of_outputs(planted: dict[str, Any]) -> None:
    for way in WAYS:
        grid = planted[f"attention_{way}"]
        assert grid.marked == [(LAYER - 1, 3)]
        assert grid.values[LAYER - 1, 3] == pytest.approx(1, abs=0.15)
        assert np.abs(np.delete(grid.values.ravel(), (LAYER - 1) * 4 + 3)).max() < 0.05
        assert planted[f"mlp_{way}"].marked == []
    cells = rows(planted)
    critical = [row for row in cells if row["critical"] and row["component"] != "residual"]
    assert sorted((row["component"], row["layer"], row["tokens"]) for row in critical) == [
        ("attention", LAYER - 1, "-1 >"),
        ("head", LAYER - 1, "-1 >"),
    ]
    (head,) = [row["head"] for row in critical if row["component"] == "head"]
    assert head == 0
    assert planted["outcome"].value == "last"
    assert "critical for refusing: 2 at the last token, none before it" in planted["outcome"].because
    assert "differing words: 0 to 2; -1 >: 3 to 5" in planted["outcome"].because


def test_the_table_has_every_cell_the_strongest_first(planted: dict[str, Any]) -> None:
    cells = rows(planted)
    assert len(cells) == 4 * (3 * 6 + 2 * 2), "four roles; three kinds in six layers, two heads in two layers"
    outputs = [row for row in cells if row["component"] != "residual"]
    assert cells[: len(outputs)] == outputs
    strengths = [abs(row["share"]) for row in outputs]
    assert strengths == sorted(strengths, reverse=True)
    assert [row["listed"] for row in cells] == [True] * 20 + [False] * (len(cells) - 20)
    for row in cells:
        assert row["share"] == pytest.approx((row["necessity"] + row["sufficiency"]) / 2)
        assert (row["verdict"] == "critical") == row["critical"]
        assert row["necessity_low"] <= row["necessity"] <= row["necessity_high"]


def test_one_pair_is_shown_in_full(planted: dict[str, Any]) -> None:
    grid = planted["example"]
    harmful, harmless = (side[0].text for side in PROMPTS.test)
    assert grid.columns[-2:] == ["~", ">"]
    words = [a if a == b else f"{a}/{b}" for a, b in zip(harmful[1:], harmless[1:], strict=True)]
    assert grid.columns == [*words, "~", ">"]
    differs = np.array([*(a != b for a, b in zip(harmful[1:], harmless[1:], strict=True)), False, False])
    assert grid.values[:3][:, differs].min() > 0.1
    assert np.abs(grid.values[:3][:, ~differs]).max() < 0.05
    assert grid.values[3:, -1] == pytest.approx([1] * 3, abs=0.15)
    assert np.abs(grid.values[3:, :-1]).max() < 0.05


def test_outputs_that_decide_before_the_last_token_are_told() -> None:
    found = located(gathering_model(), PROMPTS)
    assert found["outcome"].value == "earlier"
    critical = {
        (row["component"], row["layer"], row["tokens"])
        for row in rows(found)
        if row["critical"] and row["component"] != "residual"
    }
    assert {("attention", 1, "differing words"), ("attention", 1, "shared words"), ("attention", 3, "-1 >")} <= critical
    assert {layer for _, layer, _ in critical} == {1, 3}
    assert all(tokens == "-1 >" for _, layer, tokens in critical if layer == 3)


def test_labels_without_meaning_locate_nothing() -> None:
    found = located(weak_model(), shuffled(PROMPTS))
    assert found["outcome"].value == "none"
    assert not any(row["critical"] for row in rows(found))
    assert all(found[f"{kind}_{way}"].marked == [] for kind in ("residual", "attention", "mlp") for way in WAYS)
    assert np.abs(found["example"].values).max() > 0.5, "patching does something, only nothing that goes with the label"


def longer(split: Split, every: int) -> Split:
    """Some harmful prompts with one more letter, so that they are longer than their twins."""
    harmful = [
        Prompt(f"{prompt.text}b", prompt.category) if i % every == 0 else prompt
        for i, prompt in enumerate(split.test.harmful)
    ]
    return replace(split, test=Part(harmful, split.test.harmless))


def test_pairs_of_unequal_length_are_left_out_and_counted() -> None:
    found = located(weak_model(), longer(PROMPTS, 3))
    assert [found[name].value for name in ("pairs", "pairs_unequal")] == [8, 4]
    assert found["outcome"].value == "last"


def test_no_more_pairs_than_asked_for() -> None:
    found = located(weak_model(), PROMPTS, pairs=9)
    assert (found["pairs"].value, found["gap"].n) == (9, 9)


def test_without_aligned_pairs_it_says_so() -> None:
    found = located(weak_model(), longer(PROMPTS, 1))
    assert set(found) == {"pairs_unequal", "outcome"}
    assert (found["outcome"].value, found["outcome"].complete) == ("not_aligned", False)
    assert "No test pair has two prompts of equal length" in found["outcome"].because
    unmatched = located(weak_model(), replace(PROMPTS, paired=False))
    assert unmatched["outcome"].value == "not_aligned"
    assert "no twins" in unmatched["outcome"].because


def test_without_a_gap_it_says_so() -> None:
    found = located(weak_model(), PROMPTS, min_gap=100.0)
    assert set(found) == ALWAYS
    assert found["outcome"].value == "no_gap"
    assert (found["pairs"].value, found["pairs_without_gap"].value) == (0, 12)


@pytest.mark.parametrize(("gate", "outcome"), [(None, "no_refusal_behaviour"), ("unclear", "unclear")])
def test_without_refusing_nothing_is_patched(gate: str | None, outcome: str) -> None:
    gates = [RefusalBehaviour(Outcome("behaviour/outcome", gate, ""))] if gate else []
    found = located(weak_model(), PROMPTS, *gates, tokens=gate is not None)
    assert list(found) == ["outcome"]
    assert (found["outcome"].value, found["outcome"].complete) == (outcome, False)


def test_behind_a_direction_that_was_searched_for() -> None:
    found = reported(composed("direction", "positions"), weak_model(), planted_prompts(sizes=(12, 12, 12)))
    assert found["positions/outcome"].value == "last"


def test_layers_are_named_in_runs() -> None:
    assert _ranges([0, 1, 2, 4, 6, 7]) == "0 to 2, 4, 6 to 7"
    assert _ranges([5]) == "5"


def test_that_type_is_named_which_is_needed() -> None:
    assert brief().needs == (RefusalDirection,)
    assert not brief().judged
