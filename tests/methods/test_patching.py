"""The patching method must find the planted head, see that a copy stands in for it, and find nothing in noise."""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from rcm.execution.components import Component
from rcm.execution.engine import engine_of
from rcm.execution.recording import cache_components
from rcm.judges.behaviour import RefusalBehaviour
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split
from rcm.record.results import Outcome
from tests.conftest import tiny_model
from tests.planted import composed, known, method, planted_direction, planted_model, planted_prompts, reported

LAYER, HEADS = 3, 12  # the planted head is in the layer before, the first of two
PLANTED = "2.0"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}~>"
BRIEF = {
    "pairs": None,
    "activation_pairs": 1,
    "knock_out_pairs": 8,
    "position_pairs": 12,
    "random_sets": 40,
    "leading_heads": 2,
    "reply_tokens": 3,
}
ALWAYS = {"engine", "engine_error", "noise_floor", "last_token_necessity", "last_token_sufficiency"}
ALWAYS |= {"gap", "pairs", "pairs_without_gap", "outcome"}
WITH_GAP = {f"{grid}_{way}" for grid in ("heads", "layers") for way in ("necessity", "sufficiency")}
WITH_GAP |= {f"rank_correlation_{pair}" for pair in ("direct_ablation", "direct_interchange", "ablation_interchange")}
WITH_GAP |= {
    "activations",
    "residual",
    "rank_stability",
    "top_10_stability",
    "heads",
    "layers",
    "critical_heads",
    "knock_out",
}
TOGETHER = {"critical_heads_necessity", "critical_heads_sufficiency"}
POSITIONS = {"positions_necessity", "positions_sufficiency"}  # where there is more than one


def weak_model() -> LoadedModel:
    """The planted model with two tokens after the instruction, and log-odds that a smaller push changes, too."""
    model = planted_model(LAYER)
    tokenizer = model.template.tokenizer
    tokenizer.chat_template = TEMPLATE
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.mul_(0.3)
    return LoadedModel.of(model.hf, tokenizer, "chat", batch_size=64)


def with_copy(model: LoadedModel) -> LoadedModel:
    """A second head two layers on that does the same."""
    original, copy = (model.hf.model.layers[layer].self_attn for layer in (LAYER - 1, LAYER + 1))
    copy.load_state_dict(original.state_dict())
    return model


def patched(model: LoadedModel, prompts: Split, seed: int = 0, gate: Outcome | None = None, **settings: Any) -> dict:
    """The results of patching alone, the direction being known."""
    tokens = settings.pop("refusal_tokens", tuple(model.template.tokenizer("R")["input_ids"]))
    vector = torch.nn.functional.pad(planted_direction(), (0, model.d_model - 32))
    found, gates = known(model, 5 * vector, LAYER, tokens), [RefusalBehaviour(gate)] if gate else []
    return reported(brief().model_copy(update=settings), model, prompts, None, found, *gates, seed=seed)


@cache
def brief() -> Any:
    return method("patching", **BRIEF)


def table(found: dict, name: str) -> list[dict]:
    return [dict(zip(found[name].columns, row, strict=True)) for row in found[name].rows]


def patching_names(found: dict) -> set[str]:
    return {name.removeprefix("patching/") for name in found if name.startswith("patching/")}


@pytest.fixture(scope="module")
def planted() -> dict:
    return reported(composed("direction", "patching", **BRIEF), weak_model(), planted_prompts(sizes=(12, 12, 12)))


@pytest.fixture(scope="module")
def doubled() -> dict:
    return patched(with_copy(weak_model()), planted_prompts(sizes=(4, 4, 12)), position_pairs=1)


def test_every_result_is_there(planted: dict) -> None:
    assert patching_names(planted) == ALWAYS | WITH_GAP | TOGETHER | POSITIONS
    assert planted["direction/outcome"].value == "selected"


def test_controls_are_as_they_must_be(planted: dict) -> None:
    assert planted["patching/engine"].value == "rows"
    assert planted["patching/engine_error"].value < 1e-4
    assert 0 < planted["patching/noise_floor"].value < 1e-4
    for way in ("necessity", "sufficiency"):
        assert planted[f"patching/last_token_{way}"].value == pytest.approx(1, abs=0.1)
    assert (planted["patching/pairs"].value, planted["patching/pairs_without_gap"].value) == (12, 0)
    assert planted["patching/gap"].value > 5


def test_planted_head_leads_every_ranking(planted: dict) -> None:
    heads = table(planted, "patching/heads")
    assert sorted((row["layer"], row["head"]) for row in heads) == [(i // 2, i % 2) for i in range(HEADS)]
    strengths = [abs(row["necessity"]) + abs(row["sufficiency"]) for row in heads]
    assert strengths == sorted(strengths, reverse=True)
    for column in ("direct", "ablation", "necessity", "sufficiency"):
        first, second = sorted(heads, key=lambda row: -row[column])[:2]
        assert (first["layer"], first["head"]) == (LAYER - 1, 0), column
        assert first[column] > 10 * abs(second[column]), column


def test_planted_head_alone_is_critical(planted: dict) -> None:
    assert planted["patching/outcome"].value == "localised"
    assert "head 2.0 (+10" in planted["patching/outcome"].because
    heads, layers = table(planted, "patching/heads"), table(planted, "patching/layers")
    assert [(row["layer"], row["head"]) for row in heads if row["critical"]] == [(LAYER - 1, 0)]
    assert [(row["layer"], row["component"]) for row in layers if row["critical"]] == [
        (LAYER - 1, "attention"),
        *((layer, "residual") for layer in range(LAYER, 6)),
    ]
    (ours,) = [row for row in heads if row["critical"]]
    for way in ("necessity", "sufficiency"):
        assert ours[f"{way}_low"] <= ours[way] <= ours[f"{way}_high"]
        assert ours[way] == pytest.approx(1, abs=0.1)
        assert 0 < ours[f"{way}_p"] < 0.01
        assert planted[f"patching/heads_{way}"].marked == [(LAYER - 1, 0)]
        assert planted[f"patching/heads_{way}"].values[LAYER - 1, 0] == ours[way]
        assert planted[f"patching/layers_{way}"].marked == [(2, 0)]
        assert planted[f"patching/layers_{way}"].columns == ["attention", "MLP"]
        assert planted[f"patching/positions_{way}"].marked == [(3, 1), (4, 1), (5, 1)]


def test_held_out_the_critical_heads_do_all_and_random_sets_little(planted: dict) -> None:
    assert (planted["patching/critical_heads"].value, planted["patching/critical_heads"].n) == (1, HEADS)
    for way in ("necessity", "sufficiency"):
        scalar = planted[f"patching/critical_heads_{way}"]
        assert scalar.n == 12
        assert scalar.interval[0] <= scalar.value <= scalar.interval[1]
        assert scalar.value == pytest.approx(1, abs=0.1)
        assert scalar.value > 4 * scalar.null.value


def test_the_stream_holds_the_decision_from_the_planted_layer_on(planted: dict) -> None:
    switch = pytest.approx([0, 0, 0, 1, 1, 1], abs=0.1)
    for line in planted["patching/residual"].lines:
        assert list(line.y) == switch
        grid = planted[f"patching/positions_{line.label}"]
        assert grid.columns == ["-2 ~", "-1 >"]
        assert grid.values[:, 1] == pytest.approx(line.y, abs=1e-4)  # all test pairs stand behind both
        assert np.abs(grid.values[:, 0]).max() < 0.1


def test_rankings_that_agree_are_told_so(planted: dict) -> None:
    for pair in ("direct_ablation", "direct_interchange", "ablation_interchange"):
        assert -1 <= planted[f"patching/rank_correlation_{pair}"].value <= 1
    assert planted["patching/rank_stability"].value > 0.9
    low, high = planted["patching/top_10_stability"].interval
    assert 0.8 < low <= planted["patching/top_10_stability"].value <= high <= 1


def test_two_copies_are_each_dispensable_and_together_not(planted: dict, doubled: dict) -> None:
    grid = doubled["patching/knock_out"]
    place = {name: i for i, name in enumerate(grid.rows)}
    first, second = place["2.0"], place["4.0"]
    alone, shared = np.diag(grid.values), grid.values[first, second]
    assert max(alone[first], alone[second]) < 0.4
    assert shared > 0.6
    assert alone[first] + alone[second] + shared == pytest.approx(1, abs=0.1)
    assert grid.values == pytest.approx(grid.values.T)
    others = np.delete(np.delete(grid.values, [first, second], 0), [first, second], 1)
    assert not others.size or np.abs(others).max() < 0.1
    assert doubled["patching/critical_heads"].value == 2

    single = planted["patching/knock_out"]
    assert single.values[single.rows.index(PLANTED), single.rows.index(PLANTED)] == pytest.approx(1, abs=0.1)
    assert np.abs(single.values[~np.eye(len(single.rows), dtype=bool)]).max() < 0.1


def test_the_likelihood_of_replies_finds_the_planted_head_too() -> None:
    found = patched(weak_model(), planted_prompts(sizes=(4, 4, 10)), metric="replies", position_pairs=1)
    heads = table(found, "patching/heads")
    assert [(row["layer"], row["head"]) for row in heads if row["critical"]] == [(LAYER - 1, 0)]
    assert found["patching/gap"].value > 5
    for way in ("necessity", "sufficiency"):
        assert found[f"patching/last_token_{way}"].value > 0.1
        assert max(heads, key=lambda row: row[way])["layer"] == LAYER - 1


def noise(seed: int, **size: int) -> tuple[LoadedModel, Split]:
    """Random weights, and random letters in both classes."""
    draw = random.Random(seed)

    def part(n: int) -> Part:
        letters = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(8, 14))) for _ in range(2 * n)]
        prompts = [Prompt(f"b{text}b", "x") for text in letters]
        return Part(prompts[:n], prompts[n:])

    size = {"num_hidden_layers": 2, "num_attention_heads": 2, **size}
    model = tiny_model("llama", seed=seed, batch_size=64, template=TEMPLATE, **size)
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.mul_(4)
    return model, Split(part(4), part(4), part(20), template="chat", paired=True)


def test_labels_without_meaning_localise_nothing() -> None:
    found = [
        patched(*noise(seed), seed=seed, refusal_tokens=(70,), min_gap=0.3, position_pairs=1, positions=(-1,))
        for seed in range(10)
    ]
    assert sum(one["patching/outcome"].value != "none" for one in found) <= 1
    assert sum(one["patching/critical_heads"].value > 0 for one in found) <= 1
    assert patching_names(found[0]) == ALWAYS | WITH_GAP
    for one in found:
        heads = one["patching/heads_necessity"].values
        assert np.abs(heads).max() > 0.05, "there are effects, only none that goes with the label"


def test_labels_without_meaning_localise_nothing_by_replies() -> None:
    settings: dict = {"refusal_tokens": (70,), "metric": "replies", "min_gap": 0.3, "positions": (-1,)}
    found = [patched(*noise(seed), seed=seed, **settings) for seed in range(10)]
    assert sum(one["patching/outcome"].value != "none" for one in found) <= 1
    for one in found:
        assert one["patching/pairs"].value > 5
        assert np.abs(one["patching/heads_necessity"].values).max() > 0.03


def test_a_random_set_of_heads_rarely_exceeds_the_null_of_random_sets() -> None:
    """Though the null's sets are measured on a part of the pairs each, and differ from one another for good."""
    model, prompts = noise(0, num_attention_heads=8, head_dim=8)
    draw = np.random.default_rng(0)
    pairs = [(a.text, b.text) for a, b in zip(*prompts.test, strict=True)]
    settings = brief().model_copy(update={"min_gap": 0.3, "random_sets": 60})
    found = known(model, torch.ones(model.d_model), 1, (70,))
    engine = engine_of(
        model, *(cache_components(model, tokens(model, side)) for side in zip(*pairs[:2], strict=True)), seed=0
    )
    exceeded = []
    for seed in range(40):
        heads = [Component("head", layer, int(h)) for layer in (0, 1) for h in draw.choice(8, 2, replace=False)]
        exceeded += [one.value > one.null.value for one in settings._together(engine, pairs, heads, found, seed)]
    assert len(exceeded) == 80
    assert 0 < np.mean(exceeded) <= 0.1


def tokens(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    return [model.template.tokens(text) for text in texts]


@pytest.mark.parametrize(
    ("gate", "tokens", "outcome"),
    [
        (None, (), "no_refusal_behaviour"),
        ("refusal", (), "no_refusal_behaviour"),
        ("no_refusal_behaviour", (82,), "no_refusal_behaviour"),
        ("indiscriminate_refusal", (82,), "indiscriminate_refusal"),
    ],
)
def test_without_refusing_nothing_is_patched(gate: str | None, tokens: tuple[int, ...], outcome: str) -> None:
    gated = Outcome("behaviour/outcome", gate, "") if gate else None
    found = patched(weak_model(), planted_prompts(sizes=(4, 4, 4)), gate=gated, refusal_tokens=tokens)
    assert list(found) == ["patching/outcome"]
    assert found["patching/outcome"].value == outcome


def test_pairs_without_a_gap_have_no_shares() -> None:
    found = patched(weak_model(), planted_prompts(sizes=(4, 4, 6)), min_gap=100.0, pairs=5)
    assert patching_names(found) == ALWAYS
    assert found["patching/outcome"].value == "no_gap"
    assert (found["patching/pairs"].value, found["patching/pairs_without_gap"].value) == (0, 5)
