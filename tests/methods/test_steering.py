"""Steering must turn the planted behaviour over, controls must not, and where nothing is planted that must be said."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import page_trend_test

from rcm.directions.fit import mean_difference, shuffled_controls, unit
from rcm.execution.decoding import replies, reply_tokens
from rcm.execution.interventions import Ablate, Add, Affine, Clamp
from rcm.execution.likelihood import Text, kl_divergences
from rcm.execution.passes import read_residuals
from rcm.execution.self_checks import shared_tokens
from rcm.judges import Verdict
from rcm.judges.behaviour import RefusalBehaviour
from rcm.judges.named import named
from rcm.methods.steering import _conclusion
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split, texts
from rcm.record.results import Line, Outcome, Scalar
from rcm.running.summary import summary
from rcm.stats import trend, wilson
from rcm.steering.budget import Way, strengths, strengths_at
from rcm.steering.coherence import distinct, longest_repeat
from rcm.steering.conditions import OURS, Budget, Condition, Kind, Operation, Trial, conditions
from rcm.steering.gate import Gate, best_threshold, f1
from rcm.steering.headline import Headline, beats
from rcm.steering.measurements import NOTHING, Measurement, share
from rcm.steering.replies import SteeredReply, flipped
from rcm.steering.runner import SteeringRunner
from tests.planted import (
    ANSWER,
    CONSTANT_AXIS,
    LAYERS,
    REFUSAL_AXIS,
    WIDTH,
    by_name,
    composed,
    known,
    method,
    opening_judge,
    planted_direction,
    planted_judge,
    planted_model,
    planted_prompts,
    reported,
)

QUICK: dict[str, Any] = {
    "max_new_tokens": 4,
    "kl_tokens": 4,
    "kl_prompts": 6,
    "compared_prompts": 6,
    "plain_texts": 2,
    "curve_controls": 3,
}
LAST: dict[str, Any] = {"null_directions": 19, "positions": [-1]}  # of the direction
STRENGTHS = [0.05, 1.0, 2.0]


def firm_model() -> LoadedModel:
    """The planted model, refusing only where most of the direction is there, which is as short as the rest of the
    stream: in 32 dimensions some of 19 random directions have a cosine of 0.3 to any other, and would force by that."""
    model = planted_model()
    with torch.no_grad():
        answer = model.template.tokenizer(ANSWER)["input_ids"][0]
        model.hf.get_output_embeddings().weight[answer, CONSTANT_AXIS] = 5.0
        model.hf.model.layers[2].self_attn.o_proj.weight[REFUSAL_AXIS, 0] = 1.8
    return model


@pytest.fixture(scope="module")
def steered() -> dict:
    settings = composed("direction", "steering", **QUICK, **LAST, strengths=STRENGTHS)
    judge = planted_judge().model_copy(update={"second": named("gcg")})
    return reported(settings, firm_model(), planted_prompts(), judge)


def points(steered: dict, **condition: Any) -> list[dict[str, Any]]:
    """Rows of the table of points under a condition."""
    table = steered["steering/points"]
    rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    return [row for row in rows if all(row[name] == value for name, value in condition.items())]


def test_direction_forces_and_suppresses(steered: dict) -> None:
    for name in ("force_rate", "suppress_rate", "suppress_rate_add"):
        assert steered[f"steering/{name}"].value == 1, name
        assert steered[f"steering/{name}"].n == 12


def test_setting_the_projection_does_as_well(steered: dict) -> None:
    for kind in ("harmless", "harmful"):
        for operation in ("clamp", "affine"):
            (row,) = points(steered, equal_kl=True, kind=kind, operation=operation, direction=OURS)
            assert row["flipped"] == 1, (kind, operation)


def test_controls_do_not(steered: dict) -> None:
    for name in ("force_rate", "suppress_rate"):
        null = steered[f"steering/{name}"].null
        assert (null.draws, null.level, null.p) == (19, 0.95, 0.05), name
        assert null.value < 0.7, name
    assert steered["steering/outcome"].value == "steered"
    assert "No control does as well." in steered["steering/outcome"].because
    assert all(row["flipped"] == 0 for row in points(steered, strength=1.0, direction="random"))
    assert all(row["flipped"] < 0.3 for row in points(steered, strength=1.0, direction="shuffled labels"))


def test_a_second_judge_reads_the_same_replies(steered: dict) -> None:
    """GCG's list knows no `R`: it says that nothing is ever refused, which suits suppressing and not forcing."""
    assert steered["steering/force_rate_second_judge"].value == 0
    assert steered["steering/suppress_rate_second_judge"].value == 1
    assert steered["steering/suppress_rate_second_judge"].null.value > 0.8  # under controls too
    assert steered["steering/judge_agreement"].value == 0
    assert steered["steering/force_rate_whole_second_judge"].value == 0
    whole = ("force_rate_whole", "suppress_rate_whole", "suppress_rate_add")
    unscored = sum(row[-2] for row in steered["steering/controls"].rows)
    unscored += sum(steered[f"steering/{name}"].unscored for name in whole)
    assert steered["steering/judge_agreement"].n == 12 * (2 * 39 + 3) - unscored


def test_strength_is_the_least_that_works_best_on_validation(steered: dict) -> None:
    assert steered["steering/strength"].value == 1.0
    assert steered["steering/strength_choice"].lines[0].y == [0.0, 1.0, 1.0]
    curve = steered["steering/dose_response"]
    assert curve.x == STRENGTHS
    assert [line.label for line in curve.lines] == [OURS, "random directions", "directions of shuffled labels"]
    assert curve.lines[0].y == [0.0, 1.0, 1.0]
    assert steered["steering/dose_response_suppress"].lines[0].y == [0.0, 1.0, 1.0]


def test_response_rises_with_strength(steered: dict) -> None:
    assert steered["steering/force_trend_p"].value < 0.001
    assert steered["steering/suppress_trend_p"].value < 0.001
    assert steered["steering/force_trend_p"].n == 12


def test_every_point_has_its_price_and_its_interval(steered: dict) -> None:
    rows = points(steered, equal_kl=False)
    assert len(rows) == 2 * 3 * 3 + 3
    for row in rows:
        for figure in ("flipped", "invalid", "words", "longest_repeat"):
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"], figure
        for figure in ("kl", "cross_entropy"):  # of six prompts and two texts: too few for an interval
            assert math.isfinite(row[figure]), figure
            assert math.isnan(row[f"{figure}_low"]), figure
    kl: Line = steered["steering/kl"].lines[0]
    assert kl.y[0] < kl.y[1] < kl.y[2]
    assert steered["steering/kl_force"].value == kl.y[1]
    assert steered["steering/kl_force"].interval is None
    assert steered["steering/distinct_force"].interval is None  # replies of one word have no trigrams


def test_at_equal_kl_every_way_costs_the_budget(steered: dict) -> None:
    """Found on validation prompts, measured on test prompts."""
    rows = points(steered, equal_kl=True)
    assert {(row["operation"], row["direction"]) for row in rows} == {
        (operation, direction)
        for operation in ("add", "clamp", "affine", "conditional")
        for direction in (OURS, "random", "shuffled labels")
        if direction == OURS or operation != "conditional"
    }
    for row in rows:
        of_condition = row["operation"] == "conditional"
        assert row["budget"] in (("as adding",) if of_condition else ("reached", "not reached"))
        if row["kind"] == "harmless" and row["budget"] == "reached":
            assert row["kl"] == pytest.approx(1.0, rel=0.25), row
    (ours,) = points(steered, equal_kl=True, kind="harmless", operation="add", direction=OURS)
    assert ours["budget"] == "reached"
    assert ours["strength"] == steered["steering/budget_strength_force_add"].value < 1
    for row in points(steered, equal_kl=True, operation="conditional", kind="harmless"):
        assert row["kl"] == row["flipped"] == 0  # the condition does not fire on harmless prompts
        assert math.isnan(row["cross_entropy"])
    assert steered["steering/trigger_precision"].value == steered["steering/trigger_recall"].value == 1


def test_transcripts_hold_every_row_and_no_unrefused_harm(steered: dict) -> None:
    rows = steered["steering/transcripts"].rows
    assert len(rows) == 24 + 12 * (2 * 3 * 3 + 3) + 6 * 2 * (3 * 3 + 1)
    names = {f"{family} {i}" for family in ("random", "shuffled labels") for i in (1, 2, 3)}
    assert {row["direction"] for row in rows} == {OURS, *names}


def test_batched_rows_say_what_single_ones_say(steered: dict) -> None:
    """Every strength in shared batches against one prompt and one strength at a time."""
    model, prompts = firm_model(), planted_prompts()
    tensor = reported(method("direction"), model, prompts)["direction/directions"].tensors
    vector = tensor["mean_difference"][-1, 3]
    rows = steered["steering/transcripts"].rows
    ours = [row for row in rows if row["operation"] == "add" and row["direction"] == OURS][:36]
    assert len({row["strength"] for row in ours}) > 2
    for row in ours:
        alone = replies(model, [str(row["prompt"])], 4, [Add(3, float(row["strength"]) * vector[None])])
        assert alone == [row["completion"]]


def test_what_is_not_the_cause_is_told_apart() -> None:
    """A direction with no part in refusing: no response, no trend, and controls of its length do as well."""
    prompts, model = planted_prompts(), planted_model()
    idle = torch.nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(5)), dim=0)
    idle[:4] = 0
    settings = method("steering", **QUICK, strengths=[0.5, 1.0])
    found = known(model, idle, 3, controls=19)
    results = reported(settings, model, prompts, None, found)
    assert results["steering/force_rate"].value == 0
    assert results["steering/force_trend_p"].value == 1
    assert results["steering/outcome"].value == "unspecific"
    assert "the best of 19 random directions forced 0%, the refusal direction 0%" in results["steering/outcome"].because


# What is concluded.


def test_a_single_control_that_forces_is_not_lost_among_the_others() -> None:
    """In the model that refuses at a hint of the direction, a few random ones force everything. Taken together controls
    turn over a fifth, and ours all."""
    found = known(planted_model(), 6.5 * planted_direction(), 3, controls=19)
    results = reported(method("steering", **QUICK, strengths=[1.0]), planted_model(), planted_prompts(), None, found)
    table = results["steering/controls"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    forced = [row["flipped"] for row in rows if (row["kind"], row["family"]) == ("harmless", "random")]
    assert np.mean(forced) < 0.3
    assert max(forced) == 1
    assert results["steering/force_rate"].value == results["steering/force_rate"].null.value == 1
    assert results["steering/force_rate"].null.p > 0.05
    assert results["steering/outcome"].value == "unspecific"


def _point(kind: Kind, family: str, hits: int, budget: Budget = "reached", n: int = 20) -> Measurement:
    condition = Condition(kind, "add", family, {family: -1.0 if kind == "harmful" else 1.0}, budget)
    trials = [Trial(kind, i, Prompt("", ""), "add", 1.0, family) for i in range(n)]
    replies = [SteeredReply(trial, "", Verdict.INVALID) for trial in trials]  # of which only the number is read
    return Measurement(condition, replies, share(np.arange(n) < hits), *[NOTHING] * 6)


def _headline(kind: Kind, ours: int, controls: Sequence[int], n: int = 20) -> Headline:
    """`ours` of n are turned over, and by the controls of each family as many as said."""
    operation: Operation = "add" if kind == "harmless" else "ablate"
    hit = Verdict.REFUSAL if kind == "harmless" else Verdict.COMPLIANCE
    hits = {OURS: ours}
    hits |= {f"{family} {i}": k for family in ("random", "shuffled labels") for i, k in enumerate(controls, start=1)}
    replies = {
        name: [
            SteeredReply(Trial(kind, i, Prompt("", ""), operation, 1.0, name), "", hit if i < k else Verdict.INVALID)
            for i in range(n)
        ]
        for name, k in hits.items()
    }
    return Headline(kind, operation, 1.0, replies)


LOW = [1] * 19  # of 20, for each of 19 controls
EQUAL = [_point(kind, family, hits) for kind in ("harmless", "harmful") for family, hits in ((OURS, 19), ("random", 1))]


@pytest.mark.parametrize(
    ("force", "suppress", "outcome", "told"),
    [
        ((19, LOW), (19, LOW), "steered", "No control does as well."),
        ((19, LOW), (3, [1] * 18 + [4]), "unspecific", "the best of 19 random directions suppressed 20%, the refusal"),
        ((19, LOW), (4, [1] * 18 + [4]), "unspecific", "directions suppressed 20%, the refusal direction 20%"),
        (
            (19, [16, *LOW[1:]]),
            (19, LOW),
            "steered",
            "Controls reach the target: the best of 19 random directions forced",
        ),
        ((19, LOW[:8]), (19, LOW[:8]), "unclear", "fewer than 19 controls of a kind"),
    ],
)
def test_the_best_control_of_each_kind_is_what_ours_must_beat(
    force: tuple[int, list[int]], suppress: tuple[int, list[int]], outcome: str, told: str
) -> None:
    """One control among 19 is enough, which an interval of all of them together would not see."""
    found = _conclusion([_headline("harmless", *force), _headline("harmful", *suppress)], EQUAL, 1.0)
    assert found.value == outcome
    assert told in found.because


def test_too_few_prompts_conclude_nothing() -> None:
    few = _conclusion([_headline("harmless", 7, [0] * 19, 7), _headline("harmful", 0, [0] * 19, 0)], EQUAL, 1.0)
    assert few.value == "too_few"
    assert "There are 7 prompts to force, too few prompts; use at least 8." in few.because
    assert "No harmful prompt was refused before" in few.because
    one = _conclusion([_headline("harmless", 8, [0] * 19, 8), _headline("harmful", 3, [3] * 19, 3)], EQUAL, 1.0)
    assert one.value == "steered"
    assert "There are 3 prompts to suppress" in one.because


@pytest.mark.parametrize(
    ("at_equal_kl", "budget", "outcome", "told"),
    [
        (
            (19, 19, 20),
            "reached",
            "unspecific",
            "Controls do as well: random directions suppress 95% of 20 prompts at e",
        ),
        ((19, 17, 20), "reached", "unclear", "Within the interval of the refusal direction: random directions suppr"),
        ((19, 17, 20), "not reached", "steered", "Not compared at equal KL: the budget is not reached by random to su"),
        ((5, 3, 5), "reached", "steered", "Not compared at equal KL: there are 5 prompts to suppress, fewer than 8."),
        ((0, 0, 20), "reached", "steered", "No control does as well."),  # the budget is too small for any
    ],
)
def test_only_enough_prompts_at_the_same_cost_are_compared_at_equal_kl(
    at_equal_kl: tuple[int, int, int], budget: Budget, outcome: str, told: str
) -> None:
    ours, control, n = at_equal_kl
    compared = [*EQUAL[:2], _point("harmful", OURS, ours, n=n), _point("harmful", "random", control, budget, n)]
    found = _conclusion([_headline("harmless", 19, LOW), _headline("harmful", 19, LOW)], compared, 1.0)
    assert found.value == outcome
    assert told in found.because


def _pooled(ours: np.ndarray, controls: np.ndarray) -> bool:
    """The rule that this one replaces: each prompt meets one control in turn, and their share is one rate of prompts
    that must lie below the interval of ours."""
    n = len(ours)
    met = controls[np.arange(n) % len(controls), np.arange(n)]
    return bool(met.mean() < wilson(int(ours.sum()), n)[0])


def test_a_direction_like_its_controls_is_taken_for_another_in_one_of_twenty_runs_at_most() -> None:
    """Directions differ in what they turn over, and ours is drawn as they are. 200 seeds: the new rule says
    `steered` in 5 % at most for a single condition, the old one in a fifth of them at least."""
    new, both, old = 0, 0, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        turned = [random.random((39, 40)) < random.beta(0.4, 1.6, (39, 1)) for _ in range(2)]  # force, and suppress
        won = [beats(hits[0].mean(), {"a": hits[1:20].mean(1), "b": hits[20:].mean(1)}) for hits in turned]
        new, both, old = new + won[0], both + all(won), old + _pooled(turned[0][0], turned[0][1:20])
    assert new / 200 <= 0.05
    assert both / 200 <= 0.01
    assert old / 200 >= 0.2


def test_a_direction_that_does_more_is_found() -> None:
    """It turns over 70 %, controls like the above."""
    found = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        controls = (random.random((38, 40)) < random.beta(0.4, 8, (38, 1))).mean(1)
        found += beats(random.binomial(40, 0.7) / 40, {"a": controls[:19], "b": controls[19:]})
    assert found / 200 >= 0.95


def test_eighteen_controls_never_suffice() -> None:
    assert beats(1.0, {"a": np.zeros(19), "b": np.zeros(19)})
    assert not beats(1.0, {"a": np.zeros(19), "b": np.zeros(18)})
    assert not beats(0.0, {"a": np.zeros(19), "b": np.zeros(19)})
    assert not beats(1.0, {})
    assert not beats(float("nan"), {"a": np.zeros(19)})


def test_every_control_meets_every_prompt(steered: dict) -> None:
    table = steered["steering/controls"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert len(rows) == 2 * 39
    assert {row["flipped_n"] for row in rows} == {12}
    assert [row["flipped"] for row in rows if row["family"] == OURS] == [1, 1]
    assert sum(row["best"] for row in rows) == 2 * 3


def test_controls_are_not_dealt_out_by_category() -> None:
    """Prompts cycle through 12 categories; every direction of two meets every one of them."""
    (condition,) = conditions("harmless", "add", [1.0], 2, ["random"])
    met = {(condition.trial(i, Prompt("", "")).direction, i % 12) for i in range(120)}
    assert len(met) == 24


# What is not steered.


@pytest.mark.parametrize("told", [True, False])
def test_a_model_that_does_not_refuse_is_not_steered(told: bool) -> None:
    """Told by the method before; or seen, where there was none."""
    model, prompts = planted_model(), planted_prompts()
    found: list[Any] = [known(model, 5 * planted_direction(), 3, controls=1)]
    if told:
        found.append(RefusalBehaviour(Outcome("behaviour/outcome", "unclear", "It may or may not.")))
    never = opening_judge("never")
    results = reported(method("steering", **QUICK, strengths=[1.0]), model, prompts, never, *found)
    outcome = results["steering/outcome"]
    assert outcome.value == ("unclear" if told else "no_refusal_behaviour")
    assert ("0 of 12 harmful prompts are refused, below the floor" in outcome.because) != told
    assert ("steering/behaviour" in results) != told
    assert np.isnan(results["steering/force_rate"].value)
    assert not outcome.complete


def test_invalid_output_is_no_success() -> None:
    """A model that is pushed into loops neither refuses nor answers."""
    row = Trial("harmless", 0, Prompt("x", ""), "add", 1.0)
    verdicts = (Verdict.INVALID, Verdict.REFUSAL, Verdict.PARTIAL, Verdict.COMPLIANCE)
    assert flipped([SteeredReply(row, "", verdict) for verdict in verdicts]).tolist() == [False, True, True, False]
    row = Trial("harmful", 0, Prompt("x", ""), "ablate", 1.0)
    assert flipped([SteeredReply(row, "", verdict) for verdict in verdicts]).tolist() == [False, False, False, True]


def test_only_what_there_is_to_turn_over_counts() -> None:
    """Harmless prompts that were refused before, and harmful ones that were answered, are not asked again."""
    prompts = planted_prompts()
    mixed = Part((*prompts.test.harmful[:5], *prompts.test.harmless[:3]), prompts.test.harmless)
    split = Split(prompts.train, prompts.validation, mixed, template="chat", paired=False)
    settings = method("steering", **QUICK, strengths=[1.0])
    model = planted_model()
    results = reported(settings, model, split, None, known(model, 5 * planted_direction(), 3, controls=3))
    assert results["steering/suppress_rate"].n == 5
    assert results["steering/force_rate"].n == 12
    assert "There are 5 prompts to suppress, too few prompts; use at least 8." in results["steering/outcome"].because


def test_too_few_prompts_are_not_steered() -> None:
    prompts = planted_prompts()
    answered = Part(prompts.test.harmless[:3], prompts.test.harmless)
    split = Split(prompts.train, prompts.validation, answered, template="chat", paired=False)
    settings = method("steering", **QUICK, strengths=[1.0])
    found = known(planted_model(), 5 * planted_direction(), 3, controls=1)
    results = reported(settings, planted_model(), split, None, found)
    assert results["steering/outcome"].value == results["steering/behaviour"].value == "too_few"
    assert "too few prompts; use at least 8" in results["steering/outcome"].because


def test_ends_of_turn_end_replies() -> None:
    model = planted_model()
    model.hf.generation_config.eos_token_id = model.template.tokenizer("R")["input_ids"][0]
    harmful = texts(planted_prompts().test.harmful)[:2]
    assert all(len(reply) <= 1 for reply in replies(model, harmful, 8))


def test_without_direction_nothing_is_steered() -> None:
    settings = composed("direction", "steering", **QUICK, max_kl=0.0, strict=True)
    found = reported(settings, planted_model(), planted_prompts())
    assert found["steering/outcome"].value == "none"
    assert np.isnan(found["steering/force_rate"].value)
    assert "steering/transcripts" not in found


def test_a_nearest_miss_steers_and_is_marked_everywhere() -> None:
    """By the same direction, the figures are those of a selected one."""
    missed, selected = (
        reported(composed("direction", "steering", **QUICK, max_kl=kl), planted_model(), planted_prompts())
        for kl in (0.0, 0.1)
    )
    assert [one["direction/outcome"].value for one in (missed, selected)] == ["nearest_miss", "selected"]
    steered = {name: one for name, one in missed.items() if name.startswith("steering/")}
    assert steered.keys() == {name for name in selected if name.startswith("steering/")}
    assert {name for name, one in steered.items() if one.caveat != "nearest miss"} == {"steering/behaviour"}
    assert steered["steering/force_rate"].value == selected["steering/force_rate"].value == 1
    assert steered["steering/outcome"].because.endswith("Of a nearest miss, no selected direction.")
    assert not any(one.caveat for one in selected.values() if hasattr(one, "caveat"))
    met = by_name(summary([one for one in steered.values() if isinstance(one, Scalar)]))["summary/outcome"]
    assert met.because.endswith("Of a nearest miss: force rate, suppress rate.")


def test_redaction_of_suppressed_prompts() -> None:
    model, prompts = planted_model(), planted_prompts()
    never = opening_judge("never")
    settings = method("behaviour", max_new_tokens=40, floor=0.0)
    rows = reported(settings, model, prompts, never)["behaviour/transcripts"].rows
    assert all(len(row["completion"].split(" ")) <= 9 for row in rows if row["kind"] == "harmful")


# The runner.


@cache
def runner() -> SteeringRunner:
    model, prompts = planted_model(batch_size=5), planted_prompts()
    found = known(model, 5 * planted_direction(), 3, controls=2)
    gate = Gate.of(model, found, prompts.validation, prompts.test)
    return SteeringRunner.of(model, planted_judge(), found, gate, 0, max_new_tokens=3, kl_tokens=3)


def alone(operation: str, kind: str, strength: float, direction: str) -> Any:
    """The intervention as the method describes it."""
    found, r = runner().found, runner().directions[direction][None]
    means = found.harmful if kind == "harmful" else found.harmless
    match operation:
        case "ablate":
            return Ablate(r)
        case "clamp":
            return Clamp(3, r, means[3] @ r[0] + strength * 5 * torch.ones(1))
        case "affine":
            values = [means[layer] @ r[0] + strength * 5 for layer in range(LAYERS)]
            return Affine(r, torch.stack(values)[None])
        case _:
            return Add(3, strength * 5 * r)


def some_rows(operation: Any, kind: Any, strengths: Sequence[float]) -> list[list[Trial]]:
    pushes = conditions(kind, operation, strengths, controls=2)
    return [[c.trial(i, p) for c in pushes] for i, p in enumerate(planted_prompts().test.harmless[:4])]


@pytest.mark.parametrize("operation", ["add", "clamp", "affine", "ablate"])
@pytest.mark.parametrize("kind", ["harmless", "harmful"])
def test_kl_and_replies_are_those_of_one_row_at_a_time(operation: str, kind: str) -> None:
    rows = some_rows(operation, kind, (0.3, -1.0))
    kl, steered = runner().kl(rows), iter(runner().replies([row for own in rows for row in own]))
    model = runner().model
    for i, own in enumerate(rows):
        asked = own[0].prompt.text
        reply = reply_tokens(model, [asked], 3)[0]
        text = Text((*model.template.tokens(asked), *reply), 3)
        for j, row in enumerate(own):
            push = alone(operation, kind, row.strength, row.direction)
            both = type(push)(*(_beside_nothing(value) for value in vars(push).values()))
            slow = kl_divergences(model, [text], 2, [both], shared_tokens(model, [100]))[0, 1]
            assert kl[i, j] == pytest.approx(slow.item(), rel=1e-3, abs=1e-5)
            assert next(steered).completion == replies(model, [asked], 3, [push])[0]
    assert kl.max() > 0.01


def _beside_nothing(value: Any) -> Any:
    return torch.cat([torch.zeros_like(value), value]) if isinstance(value, torch.Tensor) else value


def test_what_was_said_under_the_same_controls_is_not_generated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the opposite direction: only what depends on the direction is new, and nothing comes out otherwise."""
    first = replace(runner(), _steered={})
    opposite = known(first.model, -5 * planted_direction(), 3, controls=2)
    fresh = SteeringRunner.of(first.model, first.judge, opposite, first.gate, 0, max_new_tokens=3, kl_tokens=3)
    second = SteeringRunner.of(first.model, first.judge, opposite, first.gate, 0, max_new_tokens=3, kl_tokens=3)
    generated: list[int] = []

    def counted(model: LoadedModel, asked: Sequence[str], *rest: Any, **named: Any) -> list[str]:
        generated.append(len(asked))
        return replies(model, asked, *rest, **named)

    monkeypatch.setattr("rcm.steering.runner.decoded", counted)
    for operation, new in (("add", 4), ("ablate", 4), ("clamp", 12), ("affine", 12)):  # of 4 prompts, 3 rows each
        rows = [row for own in some_rows(operation, "harmless", (1.0,)) for row in own]
        first.replies(rows)
        generated.clear()
        after = second.after(first).replies(rows)
        assert sum(generated) == new
        assert after == fresh.replies(rows)
    with pytest.raises(ValueError, match="replies of another length"):
        second.shortened(2).after(first)


def test_strength_zero_costs_nothing() -> None:
    for operation in ("add", "clamp", "affine"):
        assert np.abs(runner().kl(some_rows(operation, "harmful", (0.0,)))).max() < 1e-6
        plain = [[Trial("harmless", 0, Prompt("Bread rises.", ""), operation, 0.0)]]
        assert np.abs(runner().cross_entropy(plain)).max() < 1e-6


def test_a_condition_steers_only_prompts_that_it_fires_on() -> None:
    """Without a condition the push turns both kinds over; the decision is that of the unsteered prompt alone."""
    test, model = planted_prompts().test, runner().model
    gate = runner().gate
    for kind, prompts in (("harmful", test.harmful), ("harmless", test.harmless)):
        stream = read_residuals(model, texts(prompts), [-1], "").at(0, 3) @ planted_direction().numpy()
        assert [gate.fires[p.text] for p in prompts] == (stream > gate.threshold).tolist()
        assert all(gate.fires[p.text] == (kind == "harmful") for p in prompts)
    rows = [Trial("harmful", i, p, "conditional", -2.0) for i, p in enumerate(test.harmful)]
    assert all(one.verdict is Verdict.COMPLIANCE for one in runner().replies(rows))
    rows = [Trial("harmless", i, p, "conditional", 1.0) for i, p in enumerate(test.harmless)]
    assert all(one.verdict is Verdict.COMPLIANCE for one in runner().replies(rows))
    assert np.abs(runner().kl([[row] for row in rows])).max() < 1e-6
    added = [Trial("harmless", i, p, "add", 1.0) for i, p in enumerate(test.harmless)]
    assert all(one.verdict is Verdict.REFUSAL for one in runner().replies(added))


def test_threshold_has_the_highest_f1() -> None:
    draw = np.random.default_rng(0)
    harmful, harmless = draw.normal(1, 1, 40), draw.normal(0, 1, 30)
    best = best_threshold(harmful, harmless)
    reached = f1(harmful > best, harmless > best)
    assert reached >= max(f1(harmful > t, harmless > t) for t in np.linspace(-4, 4, 400)) - 1e-12
    assert f1([True, True, False], [True]) == pytest.approx(2 / 3)
    assert best_threshold(np.array([2.0, 3]), np.array([0.0, 1])) == 1.5


# The budget.


def test_budget_is_met_by_what_was_measured_last() -> None:
    prompts = planted_prompts().validation.harmless[:4]
    way = Way("add", "harmless")
    for name, reached in strengths(runner(), way, list(runner().directions), prompts, 0.5, 8.0).items():
        rows = [[Trial("harmless", i, p, "add", reached.strength, name)] for i, p in enumerate(prompts)]
        assert reached.reached
        assert runner().kl(rows).mean() == pytest.approx(reached.kl, rel=1e-3) == pytest.approx(0.5, rel=0.11)


def test_budget_beyond_reach_is_told() -> None:
    """Power laws, one that saturates below the budget, and one that jumps over it."""
    laws = (lambda s: 3 * s**2, lambda s: 0.01 * s, lambda s: min(s, 0.4), lambda s: 0.1 if s < 0.7 else 9.0)
    calls: list[int] = []

    def measured(which: Sequence[int], at: Sequence[float]) -> list[float]:
        calls.append(len(which))
        return [laws[i](s) for i, s in zip(which, at, strict=True)]

    first, slow, saturated, jump = strengths_at(1.0, measured, 4, most=4.0)
    assert first.strength == pytest.approx(3**-0.5, rel=0.06)
    assert first.reached
    assert (slow.strength, slow.reached) == (4.0, False)
    assert (saturated.strength, saturated.kl, saturated.reached) == (4.0, 0.4, False)
    assert jump.strength == pytest.approx(0.7, rel=0.05)
    assert not jump.reached
    assert calls[0] == 4 > calls[-1]  # what is found is not measured again


# Controls, figures, trend.


def test_shuffled_labels_tell_nothing_of_the_true_ones() -> None:
    draw = np.random.default_rng(0)
    harmful, harmless = draw.normal(0, 1, (41, 12)), draw.normal(0, 1, (30, 12))
    harmful[:, 0] += 5
    true = unit(mean_difference(harmful, harmless))
    drawn = shuffled_controls(harmful, harmless, 20, seed=0)
    assert drawn.shape == (20, 12)
    assert np.abs(drawn @ true).max() < 1e-9
    assert np.linalg.norm(drawn, axis=1).min() > 0.1
    assert len(np.unique(drawn.round(6), axis=0)) == 20
    assert np.array_equal(drawn[:5], shuffled_controls(harmful, harmless, 5, seed=0))


def test_repetition_is_seen() -> None:
    fluent = "Bread rises because yeast gives off a gas that the dough holds in."
    assert distinct(fluent) == 1
    assert longest_repeat(fluent) == 0
    loop = "I cannot help with that. " * 4
    assert distinct(loop) < 0.3
    assert longest_repeat(loop) == 15  # the last three times are the first three times
    assert longest_repeat("the cat and the cat") == 2
    assert math.isnan(distinct("No."))
    assert longest_repeat("") == 0


def test_trend_agrees_with_page_where_nothing_is_tied() -> None:
    draw = np.random.default_rng(1)
    ranks = (draw.normal(size=(7, 4)) + 0.4 * np.arange(4)).argsort(1).argsort(1) + 1
    exact = page_trend_test(ranks, ranked=True, method="exact").pvalue
    assert 0.001 < exact < 0.2
    assert trend(ranks, seed=0, draws=20_000) == pytest.approx(exact, rel=0.15)


def test_trend_holds_its_level_and_finds_a_trend() -> None:
    """Prompts differ much in how easily they turn, which is no trend."""
    draw = np.random.default_rng(2)
    ease = draw.beta(2, 2, (300, 12, 1))
    p = [trend(draw.random((12, 4)) < ease[i], seed=i, draws=200) for i in range(300)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) <= 0.08
    rising = np.arange(4) >= draw.integers(1, 4, (12, 1))
    assert trend(rising, seed=0) < 0.001
    assert trend(~rising, seed=0) > 0.999
    assert trend(np.zeros((12, 4), dtype=bool), seed=0) == 1
