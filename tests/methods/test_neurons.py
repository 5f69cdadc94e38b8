"""The method must find the planted neurons where contrast of activations is led astray, and nothing in noise."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from rcm.judges.behaviour import RefusalBehaviour
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split
from rcm.record.results import Outcome
from tests import conftest
from tests.conftest import tiny_model
from tests.methods.test_patching import noise
from tests.planted import (
    CONSTANT_AXIS,
    REFUSAL_AXIS,
    UNUSED_AXIS,
    composed,
    known,
    method,
    planted_direction,
    planted_model,
    planted_prompts,
    reported,
    shuffled,
)

LAYERS, WIDTH = 6, 32
PLANTED = {(3, 5), (3, 17), (4, 9)}
DECOYS = {(3, 1), (3, 2), (3, 20)}  # which harmful prompts call, and which write nothing
BRIEF = {
    "pairs": 8,
    "test_pairs": 12,
    "candidates": 24,
    "random": 24,
    "share_of_neurons": 3 / (LAYERS * WIDTH),
    "twin_prompts": 4,
    "twin_tokens": 3,
    "random_sets": 99,
}
ALWAYS = {"engine", "engine_error", "pairs"}
CHOSEN = ALWAYS | {
    "rank_correlation",
    "rank_correlation_of_random",
    "preselected",
    "weakest_of_strongest",
    "strongest_of_random",
    "layers",
    "test_pairs",
    "selections",
}
JUDGED = CHOSEN | {"outcome", "kept", "neurons", "all_necessity", "all_sufficiency"}
WAYS = ("share", "necessity", "sufficiency")


def of_way(name: str) -> set[str]:
    return {f"{name}_{figure}" for figure in (WAYS if name == "exact" else ("share", "overlap"))}


def neuron_model(strength: float = 1.0, decoys: float = 4.0) -> LoadedModel:
    """The attention head of the planted model writes that it saw the trigger on an axis of its own; three neurons read
    it and write the refusal direction, three others read it and write nothing."""
    model = planted_model(2, batch_size=64)
    layers = model.hf.model.layers
    with torch.no_grad():
        for (
            layer
        ) in layers:  # what idle weights write on the axes is read once more, and must not be taken for a trigger
            layer.mlp.down_proj.weight[:4] *= 0.02
            layer.self_attn.o_proj.weight[:4] *= 0.02
        out = layers[1].self_attn.o_proj.weight
        out[REFUSAL_AXIS, 0], out[UNUSED_AXIS, 0] = 0.0, 1.5
        for (layer, number), reads, writes in (
            *((place, 1.0, 0.05 * strength) for place in PLANTED),
            *((place, decoys, 0.0) for place in DECOYS),
        ):
            mlp = layers[layer].mlp
            mlp.gate_proj.weight[number].zero_()[CONSTANT_AXIS] = 1.0
            mlp.up_proj.weight[number].zero_()[UNUSED_AXIS] = reads
            mlp.down_proj.weight[:, number].zero_()[REFUSAL_AXIS] = writes
        model.hf.get_output_embeddings().weight.mul_(0.3)
    return model


def neurons(
    model: LoadedModel, prompts: Split, seed: int = 0, gate: Outcome | None = None, **settings: Any
) -> dict[str, Any]:
    """The results of the method alone, the refusal tokens being known."""
    tokens = settings.pop("refusal_tokens", tuple(model.template.tokenizer("R")["input_ids"]))
    vector = torch.nn.functional.pad(planted_direction(), (0, model.d_model - 32))
    gates = [RefusalBehaviour(gate)] if gate else []
    chosen = brief().model_copy(update=settings)
    return reported(chosen, model, prompts, None, known(model, vector, 3, tokens), *gates, seed=seed)


@cache
def brief() -> Any:
    return method("neurons", **BRIEF)


def table(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [dict(zip(found[name].columns, row, strict=True)) for row in found[name].rows]


def names(found: dict[str, Any]) -> set[str]:
    return {name.removeprefix("neurons/") for name in found}


def chosen_by(found: dict[str, Any], name: str) -> set[tuple[int, int]]:
    """The first three by one way."""
    return {(row["layer"], row["neuron"]) for row in table(found, "neurons/neurons") if row[f"{name}_rank"] <= 3}


@pytest.fixture(scope="module")
def planted() -> dict[str, Any]:
    """With a base that has the decoys and none of the planted neurons."""
    model = replace(neuron_model(), base=lambda: neuron_model(0.0))
    with torch.no_grad():
        base = neuron_model(0.0)
        for layer, number in PLANTED:
            base.hf.model.layers[layer].mlp.up_proj.weight[number].zero_()
    return neurons(replace(model, base=lambda: base), planted_prompts(sizes=(10, 4, 12)))


def test_every_result_is_there(planted: dict[str, Any]) -> None:
    assert names(planted) == JUDGED.union(*map(of_way, ("exact", "attribution", "contrastive", "twin_contrast")))


def test_it_runs_after_the_direction() -> None:
    settings = {**BRIEF, "candidates": 10, "random": 10, "random_sets": 19, "null_draws": 5}
    found = reported(composed("direction", "neurons", **settings), neuron_model(), planted_prompts(sizes=(12, 12, 12)))
    assert found["neurons/outcome"].value == "localised"


def test_planted_neurons_are_found(planted: dict[str, Any]) -> None:
    assert planted["neurons/outcome"].value == "localised"
    assert planted["neurons/engine"].value == "rows"
    assert planted["neurons/engine_error"].value < 1e-4
    assert (planted["neurons/pairs"].value, planted["neurons/test_pairs"].value) == (8, 12)
    rows = table(planted, "neurons/neurons")
    assert {(row["layer"], row["neuron"]) for row in rows[:3]} == PLANTED
    for name in ("exact", "attribution", "twin_contrast"):
        assert chosen_by(planted, name) == PLANTED, name
        assert [row for row in rows if row[f"{name}_rank"] == 1]
    for row in rows[:3]:
        assert row["share_low"] <= row["share"] <= row["share_high"]
        assert row["share"] == pytest.approx((row["necessity"] + row["sufficiency"]) / 2)
        assert row["share"] == pytest.approx(row["training_share"], abs=0.1)
        assert row["share"] > 0.1
    strengths = [abs(row["share"]) for row in rows]
    assert strengths == sorted(strengths, reverse=True)
    assert max(strengths[3:]) < 0.05


def test_held_out_they_do_all_and_random_neurons_nothing(planted: dict[str, Any]) -> None:
    for name in ("exact_share", "exact_necessity", "exact_sufficiency", "attribution_share", "twin_contrast_share"):
        scalar = planted[f"neurons/{name}"]
        assert 0.8 < scalar.value < 1.3, "put into a shorter stream, they do more than they lose the longer one"
        assert (scalar.n, scalar.counts, scalar.unit, scalar.good) == (12, "pairs", "share", "high")
        assert scalar.interval[0] <= scalar.value <= scalar.interval[1]
        assert scalar.null.value < 0.05
        assert (scalar.null.p, scalar.null.draws) == (0.01, 99)
    for way in ("necessity", "sufficiency"):
        assert planted[f"neurons/all_{way}"].value == pytest.approx(planted[f"neurons/exact_{way}"].value, abs=0.02)


def test_contrast_of_activations_is_led_astray_and_told_so(planted: dict[str, Any]) -> None:
    assert chosen_by(planted, "contrastive") == DECOYS
    assert planted["neurons/contrastive_overlap"].value == 0
    assert planted["neurons/contrastive_overlap"].null.p == 1
    share = planted["neurons/contrastive_share"]
    assert abs(share.value) < 0.02
    assert share.null.p > 0.05 or share.value < 0.01
    for name in ("attribution", "twin_contrast"):
        overlap = planted[f"neurons/{name}_overlap"]
        assert (overlap.value, overlap.n) == (1, 3)
        assert overlap.null.p < 0.01
        assert overlap.null.value < 0.5
    assert "CNA +0%" in planted["neurons/outcome"].because.replace("-0%", "+0%")


def test_tables_and_maps_say_who_chose_what(planted: dict[str, Any]) -> None:
    by_layer = planted["neurons/layers"]
    assert by_layer.columns == ["exact", "attribution", "CNA", "twin contrast"]
    assert np.nansum(by_layer.values, axis=0).tolist() == [3, 3, 3, 3]
    assert by_layer.values[:, 1].tolist() == [0, 0, 0, 2, 1, 0]
    assert np.nan_to_num(by_layer.values[:, 2], nan=-1).tolist() == [-1, -1, 0, 3, 0, 0]
    assert np.nan_to_num(by_layer.values[:, 3], nan=-1).tolist() == [0, 0, 0, 2, 1, -1]
    selections = table(planted, "neurons/selections")
    assert [row["neurons"] for row in selections] == [3, 3, 3, 3]
    assert all(row["note"] == "" for row in selections)
    for row, name in zip(selections, ("exact", "attribution", "contrastive", "twin_contrast"), strict=True):
        assert row["share"] == pytest.approx((row["necessity"] + row["sufficiency"]) / 2)
        for way in WAYS if name == "exact" else ("share",):
            scalar = planted[f"neurons/{name}_{way}"]
            assert row[way] == scalar.value
            assert (row[f"{way}_low"], row[f"{way}_high"]) == scalar.interval
            assert (row[f"{way}_null"], row[f"{way}_p"]) == (scalar.null.value, scalar.null.p)
    assert np.isnan(selections[0]["overlap"])
    assert selections[1]["overlap"] == 1


def test_attribution_is_worth_something(planted: dict[str, Any]) -> None:
    ranked = planted["neurons/rank_correlation"]
    assert ranked.n == 48
    assert ranked.value > ranked.null.value > 0
    found = planted["neurons/preselected"]
    assert (found.value, found.n) == (1, 24)
    assert found.interval[0] < 0.9 < found.interval[1], "24 drawn neurons cannot rule out that one was missed"
    assert planted["neurons/weakest_of_strongest"].value > 100 * planted["neurons/strongest_of_random"].value


def test_three_neurons_do_it_all(planted: dict[str, Any]) -> None:
    curve = planted["neurons/kept"]
    ours, random = curve.lines
    assert curve.x[0] == 1
    assert len(ours.y) == len(curve.x) == len(random.y)
    assert ours.y[0] < 0.6
    assert all(y == pytest.approx(1, abs=0.2) for x, y in zip(curve.x, ours.y, strict=True) if x >= 3)
    assert max(y for x, y in zip(curve.x, random.y, strict=True) if x <= 12) < 0.05
    assert all(low <= y <= high for low, y, high in zip(random.low, random.y, random.high, strict=True))
    assert "of the training pairs" in curve.hint


def test_every_result_says_what_it_means(planted: dict[str, Any]) -> None:
    for name, result in planted.items():
        assert result.label, name
        assert getattr(result, "hint", "-") or getattr(result, "means", ""), name


def test_what_preselection_leaves_out_may_be_drawn_and_is_told() -> None:
    """By too few candidates: the planted neurons are all that matter, and only some are preselected."""
    found = neurons(neuron_model(), planted_prompts(sizes=(10, 4, 12)), candidates=1, random=60)
    told = found["neurons/preselected"]
    assert told.value < 1
    assert told.interval[0] <= told.value <= told.interval[1]
    assert 0 < found["neurons/weakest_of_strongest"].value <= found["neurons/strongest_of_random"].value


def test_without_a_base_no_twin_contrast_and_told_so() -> None:
    found = neurons(neuron_model(), planted_prompts(sizes=(10, 4, 12)))
    assert names(found) == JUDGED.union(*map(of_way, ("exact", "attribution", "contrastive")))
    last = table(found, "neurons/selections")[-1]
    assert last["neurons"] == 0
    assert "base is not at hand" in last["note"]
    assert np.isnan(last["share"])
    assert np.isnan(found["neurons/layers"].values[:, 3]).all()
    assert "twin contrast none (The model has no adapter" in found["neurons/outcome"].because
    assert all(np.isnan(row["twin_contrast_rank"]) for row in table(found, "neurons/neurons"))
    left_out = neurons(replace(neuron_model(), base=neuron_model), planted_prompts(sizes=(10, 4, 12)), twin_prompts=0)
    assert table(left_out, "neurons/selections")[-1]["note"] == "twin_prompts is 0."


def test_refusing_that_no_neuron_makes_is_not_localised() -> None:
    """Attention writes the refusal direction itself."""
    found = neurons(planted_model(3, batch_size=64), planted_prompts(sizes=(10, 4, 12)))
    assert found["neurons/outcome"].value in ("unspecific", "weak")
    assert found["neurons/exact_share"].value < 0.02


def test_labels_without_meaning_localise_nothing() -> None:
    """Neither in noise, though there are effects, nor where pairs of the planted model are turned over."""
    settings: dict[str, Any] = {"refusal_tokens": (70,), "min_gap": 0.3, "candidates": 30, "random": 10, "pairs": None}
    settings |= {"test_pairs": None, "share_of_neurons": 4 / 128, "random_sets": 39}
    found = []
    for seed in range(12):
        model, prompts = noise(seed, intermediate_size=64)
        found.append(neurons(model, replace(prompts, train=prompts.test, test=again(prompts)), seed=seed, **settings))
    for one in found:
        assert one["neurons/exact_share"].n >= 8
        rows = table(one, "neurons/neurons")
        assert max(abs(row["training_share"]) for row in rows) > 0.02, "there are effects"
        assert "more than 2 layers" in table(one, "neurons/selections")[2]["note"]
    assert sum(one["neurons/outcome"].value == "localised" for one in found) <= 2


def again(prompts: Split) -> Any:
    """As many pairs of random letters as the test part has, others than those."""
    _, other = noise(1000 + len(prompts.test.harmful[0].text))
    return other.test


def test_little_more_than_chance_is_weak() -> None:
    """A planted set that does all of it, and less than is asked for."""
    found = neurons(neuron_model(), planted_prompts(sizes=(10, 4, 12)), min_share=2.0)
    assert found["neurons/outcome"].value == "weak"
    assert "not certainly above 200%" in found["neurons/outcome"].because


def test_turned_over_pairs_have_shares_that_cancel() -> None:
    found = neurons(neuron_model(), shuffled(planted_prompts(sizes=(16, 4, 12))), pairs=16)
    assert found["neurons/outcome"].value == "unspecific"
    assert abs(found["neurons/exact_share"].value) < 0.1


def test_prompts_that_are_no_twins_are_matched_by_length() -> None:
    prompts = replace(planted_prompts(sizes=(10, 4, 12)), paired=False)
    found = neurons(neuron_model(), prompts)
    assert found["neurons/outcome"].value == "localised"
    assert all("twin," not in result.hint for result in found.values() if hasattr(result, "row"))


@pytest.mark.parametrize(
    ("gate", "tokens", "outcome"),
    [
        (None, (), "no_refusal_behaviour"),
        ("no_refusal_behaviour", (82,), "no_refusal_behaviour"),
        ("indiscriminate_refusal", (82,), "indiscriminate_refusal"),
    ],
)
def test_without_refusing_nothing_is_exchanged(gate: str | None, tokens: tuple[int, ...], outcome: str) -> None:
    gated = Outcome("behaviour/outcome", gate, "") if gate else None
    found = neurons(neuron_model(), planted_prompts(sizes=(4, 4, 4)), gate=gated, refusal_tokens=tokens)
    assert names(found) == {"outcome"}
    assert found["neurons/outcome"].value == outcome
    assert not found["neurons/outcome"].complete


def test_experts_have_no_neurons(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"intermediate_size": 64, "num_key_value_heads": 2, "num_local_experts": 4}
    monkeypatch.setitem(conftest.FAMILIES, "mixtral", size)
    found = neurons(tiny_model("mixtral"), planted_prompts(sizes=(4, 4, 4)), refusal_tokens=(70,))
    assert names(found) == {"outcome"}
    assert found["neurons/outcome"].value == "no_neurons"
    assert "mixture of experts" in found["neurons/outcome"].because


@pytest.mark.parametrize(
    ("settings", "results", "outcome", "why"),
    [
        ({"min_gap": 1e6}, ALWAYS | {"outcome"}, "no_gap", "In no training pair"),
        ({"random_sets": 5}, None, "open", "fewer than 19 random sets"),
        ({"test_pairs": 4}, None, "open", "4 test pairs with a gap are too few"),
    ],
)
def test_too_little_to_judge_by(settings: dict[str, Any], results: set[str] | None, outcome: str, why: str) -> None:
    found = neurons(neuron_model(), planted_prompts(sizes=(10, 4, 12)), **settings)
    assert found["neurons/outcome"].value == outcome
    assert why in found["neurons/outcome"].because
    assert results is None or names(found) == results


def test_a_few_pairs_of_many_categories_are_still_few() -> None:
    """Which have an interval, by category, and not enough behind it."""
    prompts = planted_prompts(sizes=(10, 4, 6))
    sides = [[Prompt(one.text, f"kind {i}") for i, one in enumerate(side)] for side in prompts.test]
    found = neurons(neuron_model(), replace(prompts, test=Part(*sides)))
    assert found["neurons/exact_share"].interval is not None
    assert found["neurons/outcome"].value == "open"


def test_without_a_gap_on_test_pairs_it_stays_open() -> None:
    prompts = planted_prompts(sizes=(10, 4, 12))
    harmless = replace(prompts, test=Part(prompts.test.harmless, prompts.test.harmless))
    found = neurons(neuron_model(), harmless)
    assert found["neurons/outcome"].value == "open"
    assert names(found) == CHOSEN | {"outcome", "attribution_overlap", "contrastive_overlap"}


def test_an_estimate_of_the_work_is_told_before_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        neurons(neuron_model(), planted_prompts(sizes=(10, 4, 12)))
    (told,) = [record.getMessage() for record in caplog.records if "Exchanging" in record.getMessage()]
    n, rows = (int(word) for word in told.replace(",", " ").split() if word.isdigit() and int(word) > 20)
    assert rows == 2 * 8 * n
    assert 48 <= n <= 54
