"""The patching method must find the planted head, see that a copy stands in for it, and find nothing in noise."""

import random
from dataclasses import replace
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
from rcm.patching import Pairs
from rcm.patching.conclusion import judged
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
ALWAYS = {"engine", "engine_error", "noise_floor", "gap", "pairs", "pairs_reversed", "pairs_without_gap", "outcome"}
WITH_GAP = {f"{what}_{way}" for what in ("heads", "layers", "last_token") for way in ("necessity", "sufficiency")}
WITH_GAP |= {
    "activations",
    "residual",
    "rank_stability",
    "top_10_stability",
    "heads",
    "layers",
    "critical_heads",
    "critical_heads_against",
    "concentration",
    "knock_out",
}
TOGETHER = {"critical_heads_share", "critical_heads_necessity", "critical_heads_sufficiency"}
FEW = {"heads_for_50", "heads_for_80"}  # where all heads together certainly do something
POSITIONS = {"positions_necessity", "positions_sufficiency"}  # where there is more than one


def weak_model(heads: int = 2) -> LoadedModel:
    """The planted model with two tokens after the instruction, and log-odds that a smaller push changes, too."""
    model = planted_model(LAYER, heads=heads)
    tokenizer = model.template.tokenizer
    tokenizer.chat_template = TEMPLATE
    with torch.no_grad():
        model.hf.get_output_embeddings().weight.mul_(0.3)
    return LoadedModel.of(model.hf, tokenizer, "chat", batch_size=64)


def with_copy(model: LoadedModel, strength: float = 1.0) -> LoadedModel:
    """A second head two layers on that does the same, or, where its strength is negative, the contrary."""
    original, copy = (model.hf.model.layers[layer].self_attn for layer in (LAYER - 1, LAYER + 1))
    copy.load_state_dict(original.state_dict())
    with torch.no_grad():
        copy.o_proj.weight.mul_(strength)
    return model


def spread_evenly(model: LoadedModel) -> LoadedModel:
    """All heads of the planted layer do the same part of what the planted one did."""
    attention, heads = model.hf.model.layers[LAYER - 1].self_attn, model.hf.config.num_attention_heads
    width = model.d_model // heads
    with torch.no_grad():
        for head in range(heads):
            attention.v_proj.weight[head * width] = attention.v_proj.weight[0]
        attention.o_proj.weight[:, ::width] = attention.o_proj.weight[:, :1] / heads
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
    return patched(with_copy(weak_model()), planted_prompts(sizes=(4, 12, 12)))


@pytest.fixture(scope="module")
def wide() -> dict:
    """With eight heads in every layer, so that a random one is seldom the planted one."""
    return patched(weak_model(heads=8), planted_prompts(sizes=(4, 12, 12)), random_sets=100)


def test_every_result_is_there(planted: dict, wide: dict) -> None:
    assert patching_names(planted) == ALWAYS | WITH_GAP | TOGETHER | FEW | POSITIONS
    assert patching_names(wide) == ALWAYS | WITH_GAP | TOGETHER | FEW | {"rank_correlation"}
    assert planted["direction/outcome"].value == "selected"


def test_controls_are_as_they_must_be(planted: dict) -> None:
    assert planted["patching/engine"].value == "rows"
    assert planted["patching/engine_error"].value < 1e-4
    assert 0 < planted["patching/noise_floor"].value < 1e-4
    for way in ("necessity", "sufficiency"):
        assert planted[f"patching/last_token_{way}"].value == pytest.approx(1, abs=0.1)
    counts = [planted[f"patching/{name}"].value for name in ("pairs", "pairs_reversed", "pairs_without_gap")]
    assert counts == [12, 0, 0]
    assert planted["patching/gap"].value > 5
    low, high = planted["patching/gap"].interval
    assert low < planted["patching/gap"].value < high


def test_planted_head_leads_both_rankings(planted: dict) -> None:
    heads = table(planted, "patching/heads")
    assert sorted((row["layer"], row["head"]) for row in heads) == [(i // 2, i % 2) for i in range(HEADS)]
    strengths = [abs(row["share"]) for row in heads]
    assert strengths == sorted(strengths, reverse=True)
    for row in heads:
        assert row["share"] == pytest.approx((row["necessity"] + row["sufficiency"]) / 2)
    able = [row for row in heads if row["layer"] < LAYER]
    for column in ("direct", "share", "necessity", "sufficiency"):
        first, second = sorted(able, key=lambda row: -row[column])[:2]
        assert (first["layer"], first["head"]) == (LAYER - 1, 0), column
        assert first[column] > 10 * abs(second[column]), column


def test_only_heads_before_the_place_can_write_what_is_read_there(planted: dict, wide: dict) -> None:
    for found in (planted, wide):
        for row in table(found, "patching/heads"):
            assert np.isnan(row["direct"]) == (row["layer"] >= LAYER)
            assert row["layer"] >= LAYER or row["direct_low"] <= row["direct"] <= row["direct_high"]
    assert wide["patching/rank_correlation"].n == 8 * LAYER
    (ours,) = [row for row in table(wide, "patching/heads") if row["critical"]]
    assert ours["direct"] > 1


def test_the_strongest_are_listed_with_what_they_lack(wide: dict) -> None:
    heads = table(wide, "patching/heads")
    assert [row["listed"] for row in heads] == [True] * 10 + [False] * 38
    assert (heads[0]["verdict"], heads[0]["critical"]) == ("critical", True)
    for row in heads[1:10]:
        assert not row["critical"]
        stronger = max(("necessity", "sufficiency"), key=lambda way: abs(row[way]))
        p = row[f"{stronger}_p"]
        assert row["verdict"] == (f"p = {p:.2g} over all cells" if p > 0.05 else "share not certainly above min_share")
    assert "verdict" in [column.name for column in wide["patching/heads"].shown]


def test_planted_head_alone_is_critical(planted: dict) -> None:
    assert planted["patching/outcome"].value == "localised"
    assert "head 2.0 (+10" in planted["patching/outcome"].because
    assert "on 12 validation pairs" in planted["patching/outcome"].because.lower()
    heads, layers = table(planted, "patching/heads"), table(planted, "patching/layers")
    assert [(row["layer"], row["head"]) for row in heads if row["critical"]] == [(LAYER - 1, 0)]
    assert [(row["layer"], row["component"]) for row in layers if row["critical"]] == [
        (LAYER - 1, "attention"),
        *((layer, "residual") for layer in range(LAYER, 6)),
    ]
    (ours,) = [row for row in heads if row["critical"]]
    assert not any(row["listed"] for row in layers if row["component"] == "residual"), "they have a curve"
    assert layers[0]["listed"]
    for way in ("necessity", "sufficiency"):
        assert ours[f"{way}_low"] <= ours[way] <= ours[f"{way}_high"]
        assert ours[way] == pytest.approx(1, abs=0.1)
        assert 0 < ours[f"{way}_p"] < 0.01
        assert planted[f"patching/heads_{way}"].marked == [(LAYER - 1, 0)]
        assert planted[f"patching/heads_{way}"].values[LAYER - 1, 0] == ours[way]
        assert planted[f"patching/layers_{way}"].marked == [(2, 0)]
        assert planted[f"patching/layers_{way}"].columns == ["attention", "MLP"]
        assert planted[f"patching/positions_{way}"].marked == [(3, 1), (4, 1), (5, 1)]


def test_held_out_the_critical_heads_do_all_and_random_sets_little(planted: dict, wide: dict) -> None:
    assert (planted["patching/critical_heads"].value, planted["patching/critical_heads"].n) == (1, HEADS)
    assert planted["patching/critical_heads_against"].value == 0
    for found in (planted, wide):
        for name in ("share", "necessity", "sufficiency"):
            scalar = found[f"patching/critical_heads_{name}"]
            assert scalar.n == 12
            assert scalar.interval[0] <= scalar.value <= scalar.interval[1]
            assert scalar.value == pytest.approx(1, abs=0.1)
            assert scalar.value > 4 * scalar.null.value
            assert scalar.null.p == 1 / (scalar.null.draws + 1)
    assert wide["patching/critical_heads_share"].null.draws >= 100


def test_one_head_does_it_all_where_one_was_planted(wide: dict) -> None:
    for part in (50, 80):
        needed = wide[f"patching/heads_for_{part}"]
        assert (needed.value, needed.n, needed.good) == (1, 48, "low")
        assert needed.null.p < 0.3, "by chance one order in eight begins with the planted head"
    ours, random = wide["patching/concentration"].lines
    sizes = wide["patching/concentration"].x
    assert (sizes[0], sizes[-1]) == (1, 48)
    assert list(ours.y) == pytest.approx([ours.y[-1]] * len(sizes), abs=0.05)
    assert max(random.y[:4]) < 0.1
    assert random.y[-1] == pytest.approx(ours.y[-1], abs=0.05)
    assert all(low <= y <= high for low, y, high in zip(random.low, random.y, random.high, strict=True))


def test_copies_are_needed_together(doubled: dict) -> None:
    """Either does half, so one is not enough for 80 %, and the order puts both first."""
    assert doubled["patching/heads_for_80"].value == 2
    assert doubled["patching/outcome"].value == "localised"


def test_a_layer_whose_heads_all_do_the_same_is_no_localised_head() -> None:
    """All are critical, and no set of heads of that layer does more than another."""
    found = patched(spread_evenly(weak_model(heads=8)), planted_prompts(sizes=(4, 12, 12)))
    assert found["patching/critical_heads"].value == 8
    assert found["patching/critical_heads_share"].value == pytest.approx(1, abs=0.1)
    assert found["patching/outcome"].value == "unspecific"
    assert "no more than chance" in found["patching/outcome"].because
    assert found["patching/heads_for_80"].value > 4
    assert found["patching/heads_for_80"].null.p > 0.05


def test_a_head_against_refusing_is_critical_and_no_part_of_the_circuit_for_it() -> None:
    found = patched(with_copy(weak_model(heads=8), -0.3), planted_prompts(sizes=(4, 12, 12)))
    heads = {(row["layer"], row["head"]): row for row in table(found, "patching/heads")}
    assert [place for place, row in heads.items() if row["critical"]] == [(LAYER - 1, 0), (LAYER + 1, 0)]
    assert heads[LAYER + 1, 0]["share"] < -0.05
    assert heads[LAYER + 1, 0]["verdict"] == "critical"
    assert (found["patching/critical_heads"].value, found["patching/critical_heads_against"].value) == (1, 1)
    assert found["patching/critical_heads_share"].value > 1.05, "without the one that works against it"
    assert found["patching/outcome"].value == "localised"
    assert "2 of them against refusing" in found["patching/outcome"].because  # the head, and its layer's attention


def test_without_enough_random_sets_it_stays_open() -> None:
    found = patched(weak_model(heads=8), planted_prompts(sizes=(4, 12, 12)), random_sets=10)
    assert found["patching/critical_heads"].value == 1
    assert found["patching/outcome"].value == "open"
    assert "fewer than 19 random sets" in found["patching/outcome"].because


def test_prompts_that_are_no_twins_are_matched_by_length_and_called_so() -> None:
    twins = planted_prompts(sizes=(4, 12, 16))

    def mixed(part: Part) -> Part:
        return Part(part.harmful, part.harmless[::-1])

    prompts = Split(twins.train, mixed(twins.validation), mixed(twins.test), template="chat", paired=False)
    found = patched(weak_model(heads=8), prompts)
    assert found["patching/outcome"].value == "localised"
    assert "unmatched: prompts of like length, no twins" in found["patching/outcome"].because
    assert "unmatched" in found["patching/gap"].hint
    for name, result in found.items():
        if name not in ("patching/outcome", "patching/gap"):
            assert "twin" not in result.label + getattr(result, "hint", ""), name


def test_the_stream_holds_the_decision_from_the_planted_layer_on(planted: dict) -> None:
    switch = pytest.approx([0, 0, 0, 1, 1, 1], abs=0.1)
    for line in planted["patching/residual"].lines:
        assert list(line.y) == switch
        grid = planted[f"patching/positions_{line.label}"]
        assert grid.columns == ["-2 ~", "-1 >"]
        assert grid.values[:, 1] == pytest.approx(line.y, abs=1e-4)  # all test pairs stand behind both
        assert np.abs(grid.values[:, 0]).max() < 0.1


def test_a_ranking_that_is_the_same_for_any_pairs_is_told_so(planted: dict) -> None:
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
    """Nor if the two prompts of a pair have nothing in common but their length."""
    settings: dict = {"refusal_tokens": (70,), "min_gap": 0.3, "position_pairs": 1}
    draws = [(noise(seed), seed) for seed in range(10)]
    twins = [patched(model, prompts, seed=seed, **settings) for (model, prompts), seed in draws]
    others = [patched(model, replace(prompts, paired=False), seed=seed, **settings) for (model, prompts), seed in draws]
    for found in (twins, others):
        assert sum(one["patching/outcome"].value != "none" for one in found) <= 1
        assert sum(one["patching/critical_heads"].value > 0 for one in found) <= 1
        assert patching_names(found[0]) - FEW == ALWAYS | WITH_GAP
        for one in found:
            heads = one["patching/heads_necessity"].values
            assert np.abs(heads).max() > 0.03, "there are effects, only none that goes with the label"
            assert one["patching/pairs_reversed"].value > 0
            assert "Not critical, though among the strongest" in one["patching/outcome"].because


def test_labels_without_meaning_localise_nothing_by_replies() -> None:
    settings: dict = {"refusal_tokens": (70,), "metric": "replies", "min_gap": 0.3}
    found = [patched(*noise(seed), seed=seed, **settings) for seed in range(10)]
    assert sum(one["patching/outcome"].value != "none" for one in found) <= 1
    for one in found:
        assert one["patching/pairs"].value > 5
        assert one["patching/pairs_with_short_replies"].value == 0
        assert np.abs(one["patching/heads_necessity"].values).max() > 0.01


def test_a_random_set_of_heads_rarely_exceeds_the_null_of_random_sets() -> None:
    """Though sets differ for good: a little more often than one in twenty, since the null's are of the other heads."""
    model, prompts = noise(0, num_attention_heads=8, head_dim=8)
    draw = np.random.default_rng(0)
    settings = brief().model_copy(update={"min_gap": 0.3, "random_sets": 60})
    found = known(model, torch.ones(model.d_model), 1, (70,))
    asked = Pairs.of(model, prompts.test, paired=True)
    engine = engine_of(model, *(cache_components(model, list(side)) for side in zip(*asked.tokens[:2], strict=True)), 0)
    pairs = settings._with_gap(engine, found, prompts.test, paired=True)
    assert 5 < len(pairs) < len(asked)
    exceeded, lasting = [], []
    for seed in range(40):
        heads = [Component("head", layer, int(h)) for layer in (0, 1) for h in draw.choice(8, 2, replace=False)]
        together = list(settings._together(engine, pairs, heads, found, seed))
        exceeded += [one.value > one.null.value for one in together]
        lasting.append(judged(together[0])[0])
    assert len(exceeded) == 120
    assert 0 < np.mean(exceeded) <= 0.15
    assert np.mean([one == "localised" for one in lasting]) <= 0.15


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


def test_pairs_with_a_short_reply_are_left_out_and_counted() -> None:
    """Every answer ends with its first token here, so none has the likelihood of three."""
    model = weak_model()
    model.hf.generation_config.eos_token_id = model.template.tokenizer("A")["input_ids"][0]
    found = patched(model, planted_prompts(sizes=(4, 4, 10)), metric="replies")
    assert found["patching/pairs_with_short_replies"].value == 10
    assert found["patching/outcome"].value == "no_gap"
    assert "reply_tokens, 3" in found["patching/outcome"].because
