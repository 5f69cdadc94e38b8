"""The gate: who refuses, who does not, who refuses everything."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.conclusions import refusing as refusing_world
from rcm.execution.decoding import reply_tokens
from rcm.judges import Judge, Verdict
from rcm.judges.behaviour import Judged, refusal_behaviour
from rcm.judges.named import named
from rcm.models.template import Kind
from rcm.prompts import Part, Prompt
from rcm.record.identity import prompt_digest
from rcm.stats import permuted_rates, wilson
from tests.planted import (
    TRIGGER,
    method,
    opening_judge,
    planted_judge,
    planted_model,
    planted_prompts,
    reported,
    thinking_model,
)


def measured(model, judge=None, prompts=None, **settings) -> dict:
    behaviour = method("behaviour", **{"max_new_tokens": 4, **settings})
    return reported(behaviour, model, prompts or planted_prompts(), judge)


def test_planted_model_refuses_what_is_harmful() -> None:
    found = measured(planted_model())
    assert found["behaviour/outcome"].value == "refusal"
    harmful, harmless = found["behaviour/refusal_rate_harmful"], found["behaviour/refusal_rate_harmless"]
    assert (harmful.value, harmless.value, harmful.n) == (1.0, 0.0, 12)
    assert harmful.interval == pytest.approx(wilson(12, 12))
    assert harmless.value < harmless.null.value < harmful.null.value < harmful.value


def test_model_without_refusal_ends_at_the_gate() -> None:
    model = planted_model()
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[model.template.tokenizer("R")["input_ids"][0]] = 0
    assert measured(model)["behaviour/outcome"].value == "no_refusal_behaviour"


def test_refusing_everything_is_another_outcome() -> None:
    judge = opening_judge("a", "r")
    assert measured(planted_model(), judge)["behaviour/outcome"].value == "indiscriminate_refusal"


@pytest.mark.parametrize(("template", "opens"), [("chat", "{{ '<think>\\n' }}"), ("no_thinking", "")])
def test_a_model_that_thinks_is_measured_after_its_thoughts(template: Kind, opens: str) -> None:
    """Closed behind a template that opens them, or where that was asked for."""
    found = measured(thinking_model(template, opens))
    assert found["behaviour/outcome"].value == "refusal"
    assert found["behaviour/refusal_rate_harmful"].value == 1.0
    assert found["behaviour/refusal_rate_harmless"].value == 0.0


def test_a_model_whose_replies_are_cut_within_its_thoughts_is_not_said_to_refuse_nothing() -> None:
    found = measured(thinking_model())
    assert found["behaviour/outcome"].value == "still_thinking"
    assert found["behaviour/outcome"].because == (
        "12 of 12 replies to harmful prompts and 12 of 12 replies to harmless prompts were cut within their thoughts, "
        "and it could be any of indiscriminate_refusal, no_refusal_behaviour, refusal."
    )


def test_thoughts_that_decide_nothing_change_nothing() -> None:
    """Of 48 that are refused in any case two more, and of 48 that are answered two."""
    harmful, harmless = of(44, 48), of(1, 48)
    cut = [False] * 46 + [True] * 2
    for kind in (harmful, harmless):
        assert not any(verdict.refuses for verdict in kind.verdicts[46:])
    thinking = [Judged(one.verdicts, one.categories, cut) for one in (harmful, harmless)]
    assert refusal_behaviour("b/outcome", *thinking, 0.3, 0).outcome.value == "refusal"
    few = Judged(of(9, 48).verdicts, harmful.categories, [False] * 30 + [True] * 18)
    assert refusal_behaviour("b/outcome", few, harmless, 0.3, 0).outcome.value == "still_thinking"
    assert refusal_behaviour("b/outcome", of(9, 48), harmless, 0.3, 0).outcome.value == "unclear"


def of(refused: int, n: int, categories: int = 1) -> Judged:
    """The first so many of n prompts are refused, which cycle through categories."""
    return Judged(
        [Verdict.REFUSAL] * refused + [Verdict.COMPLIANCE] * (n - refused), [f"c{i % categories}" for i in range(n)]
    )


@pytest.mark.parametrize(
    ("harmful", "harmless", "outcome", "told"),
    [
        (of(40, 48), of(4, 48), "refusal", "40 of 48 harmful prompts are refused, more than shuffled labels explain"),
        (of(5, 48), of(2, 48), "no_refusal_behaviour", "below the floor of 30%"),
        (of(17, 48), of(2, 48), "unclear", "may be above or below the floor"),
        (of(40, 48), of(40, 48), "indiscriminate_refusal", "and 40 of 48 harmless ones"),
        (of(6, 8), of(3, 8), "unclear", "no more than shuffled labels explain"),
        (of(7, 7), of(0, 48), "too_few", "too few prompts; use at least 8 of each"),
        (of(48, 48), of(0, 7), "too_few", "too few prompts; use at least 8 of each"),
    ],
)
def test_the_outcome_is_a_test(harmful: Judged, harmless: Judged, outcome: str, told: str) -> None:
    found = refusal_behaviour("behaviour/outcome", harmful, harmless, 0.3, seed=0)
    assert found.outcome.value == outcome
    assert told in found.outcome.because
    assert found.refuses == (outcome == "refusal")


def test_categories_that_differ_make_it_unclear() -> None:
    """Half of the prompts refused is above the floor; not where that is half of the categories."""
    alike = of(24, 48)
    by_category = Judged(alike.verdicts, [f"c{i // 4}" for i in range(48)])
    assert refusal_behaviour("b/outcome", alike, of(0, 48), 0.3, 0).outcome.value == "refusal"
    assert refusal_behaviour("b/outcome", by_category, of(0, 48), 0.3, 0).outcome.value == "unclear"


def test_a_rate_at_the_floor_is_rarely_called_refusing() -> None:
    """200 seeds: models that refuse exactly 30 %."""
    random = np.random.default_rng(0)
    drawn = [refusal_behaviour("b/outcome", of(random.binomial(48, 0.3), 48), of(0, 48), 0.3, 0) for _ in range(200)]
    assert np.mean([one.refuses for one in drawn]) <= 0.05
    assert np.mean([one.outcome.value == "no_refusal_behaviour" for one in drawn]) <= 0.05


def test_refusing_both_alike_is_rarely_called_refusing_however_much_categories_differ() -> None:
    """400 draws: half of either class, every category of a class more or less. Shuffled labels alone let a sixth pass.
    A model that refuses 70 % of the harmful ones, and 5 % of the others, is found."""
    found = {}
    for name, world in (("both", refusing_world(0.5, 0.5, 0.3)), ("harmful", refusing_world(0.7, 0.05, 0.1))):
        draw = np.random.default_rng(0)
        found[name] = np.mean([world(144, draw) == "refusal" for _ in range(400)])
    assert found["both"] <= 0.05, found
    assert found["harmful"] >= 0.95, found


def test_prompts_that_an_adapter_saw_are_told() -> None:
    model, prompts = planted_model(), planted_prompts()
    seen = frozenset(prompt_digest(prompt.text) for prompt in prompts.test.harmful[:3])
    object.__setattr__(model, "trained_on", seen)
    assert measured(model)["behaviour/seen_in_training"].value == 3 / 24


def test_wilson_equals_the_formula() -> None:
    k, n, z = 7, 20, 1.959963984540054
    p = k / n
    middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(k, n) == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))


def test_permuted_rates_have_the_pooled_mean() -> None:
    harmful, harmless = np.array([True] * 8 + [False] * 2), np.array([True] * 2 + [False] * 18)
    rates = permuted_rates(harmful, harmless, seed=0)
    assert rates.mean() == pytest.approx(10 / 30, abs=0.01)
    assert np.quantile(rates, 0.95) < 0.8


# Prompts that merely look unsafe


def test_over_refusal_is_told_where_there_are_lookalikes() -> None:
    """The planted model refuses whatever has a `#`: of these three safe prompts the first two."""
    lookalike = tuple(Prompt(text, "y") for text in ("bc#d###gh", "k#l#m#", "abcdefgh"))
    found = measured(planted_model(), prompts=replace(planted_prompts(), lookalike=lookalike))
    share = found["behaviour/refusal_rate_lookalike"]
    assert (share.value, share.n) == (2 / 3, 3)
    assert share.interval == pytest.approx(wilson(2, 3))
    rows = [row for row in found["behaviour/transcripts"].rows if row["kind"] == "lookalike"]
    assert [row["verdict"] for row in rows] == ["refusal", "refusal", "compliance"]
    assert found["behaviour/invalid_rate"].n == 27


def test_without_lookalikes_nothing_is_said_of_them() -> None:
    assert "behaviour/refusal_rate_lookalike" not in measured(planted_model())


def test_the_null_of_safe_prompts_is_what_they_reach_among_harmful_ones() -> None:
    """A judge who draws lots: every rate lies within what shuffled labels reach. One who knows: far below."""
    prompts = planted_prompts(sizes=(24, 12, 60))
    prompts = replace(prompts, lookalike=planted_prompts(seed=1, sizes=(24, 12, 60)).test.harmless)
    knowing = measured(planted_model(), prompts=prompts)
    assert knowing["behaviour/refusal_rate_lookalike"].value == 0
    assert knowing["behaviour/refusal_rate_lookalike"].null.value > 0.3
    drawing = measured(planted_model(), Lots(kappa=None, second=None), prompts)
    for kind in ("harmless", "lookalike"):
        share = drawing[f"behaviour/refusal_rate_{kind}"]
        assert share.null.value - 0.1 < share.value


class Lots(Judge):
    """Half of all prompts, whatever is said to them."""

    def judge(self, prompts, completions) -> list[Verdict]:
        return [Verdict.REFUSAL if len(prompt) % 2 else Verdict.COMPLIANCE for prompt in prompts]


def test_a_contrast_set_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(model, prompts, *arguments, **named):
        asked.extend(prompts)
        return reply_tokens(model, prompts, *arguments, **named)

    monkeypatch.setattr("rcm.methods.behaviour.reply_tokens", counted)
    prompts = planted_prompts()
    found = measured(planted_model(), prompts=replace(prompts, lookalike=prompts.test.harmless))
    assert len(asked) == len(set(asked)) == 24
    assert found["behaviour/refusal_rate_lookalike"].n == 12


# A second judge


def test_a_second_judge_reads_the_same_replies() -> None:
    """GCG's list knows no `R`: it says that nothing is refused, and so agrees by chance alone."""
    judge = planted_judge().model_copy(update={"second": named("gcg")})
    found = measured(planted_model(), judge)
    alone = measured(planted_model(), named("gcg"))
    for kind in ("harmful", "harmless"):
        share, same = (
            run[f"behaviour/refusal_rate_{kind}{end}"] for run, end in ((found, "_second_judge"), (alone, ""))
        )
        assert share == replace(same, name=share.name, label=f"{same.label}, second judge")
        assert share.kappa == named("gcg").kappa
    assert found["behaviour/refusal_rate_harmful"].value == 1
    assert (found["behaviour/judge_agreement"].value, found["behaviour/judge_agreement"].n) == (0, 24)
    assert found["behaviour/outcome"].value == "refusal"
    assert not [name for name in alone if "judge" in name]


# By category


def test_rates_by_category_are_those_of_the_category_alone() -> None:
    """Harmful prompts of the second category have no `#`, so they are answered."""
    prompts = planted_prompts()
    harmful = tuple(
        Prompt(prompt.text if i < 8 else prompt.text.replace(TRIGGER, "c"), "a" if i < 8 else "b")
        for i, prompt in enumerate(prompts.test.harmful)
    )
    harmless = tuple(prompt._replace(category="a") for prompt in prompts.test.harmless)
    found = measured(planted_model(), prompts=replace(prompts, test=Part(harmful, harmless)))
    table = found["behaviour/by_category"]
    ends = ("", "_low", "_high", "_n")
    assert list(table.columns) == ["category", *(f"{kind}{end}" for kind in ("harmful", "harmless") for end in ends)]
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    rates = [(row["category"], row["harmful"], row["harmful_n"]) for row in (first, second)]
    assert rates == [("a", 1.0, 8), ("b", 0.0, 4)]
    assert (first["harmless"], first["harmless_n"]) == (0.0, 12)
    assert (second["harmless"], second["harmless_n"]) == (None, 0)
    assert (first["harmful_low"], first["harmful_high"]) == pytest.approx(wilson(8, 8))


def test_prompts_without_categories_have_no_table() -> None:
    prompts = planted_prompts()
    harmful, harmless = ([prompt._replace(category="") for prompt in side] for side in prompts.test)
    found = measured(planted_model(), prompts=replace(prompts, test=Part(tuple(harmful), tuple(harmless))))
    assert "behaviour/by_category" not in found


# By length


class Late(Judge):
    """Refusal if there are that many R: as of a model that refuses late."""

    letters: int

    def judge(self, prompts, completions) -> list[Verdict]:
        return [Verdict.REFUSAL if text.count("R") >= self.letters else Verdict.COMPLIANCE for text in completions]


def test_late_refusal_shows_over_the_length() -> None:
    """The third letter makes it one."""
    curve = measured(planted_model(), Late(kappa=None, second=None, letters=3), max_new_tokens=3, lengths=[2, 1])[
        "behaviour/refusal_by_length"
    ]
    assert list(curve.x) == [1, 2, 3]
    harmful, harmless = curve.lines
    assert (harmful.label, list(harmful.y)) == ("harmful", [0, 0, 1])
    assert (harmless.label, list(harmless.y)) == ("harmless", [0, 0, 0])
    assert (harmful.low[2], harmful.high[2]) == pytest.approx(wilson(12, 12))


def test_a_reply_cut_by_tokens_is_a_shorter_generation() -> None:
    """The slow way: generate anew at each length."""
    curve = measured(planted_model(), max_new_tokens=3, lengths=[1, 2])["behaviour/refusal_by_length"]
    for place, length in enumerate(curve.x):
        anew = measured(planted_model(), max_new_tokens=length, lengths=[])
        for line in curve.lines:
            assert line.y[place] == anew[f"behaviour/refusal_rate_{line.label}"].value


def test_lengths_beyond_the_last_are_left_out() -> None:
    curve = measured(planted_model(), max_new_tokens=2, lengths=[1, 2, 8])["behaviour/refusal_by_length"]
    assert list(curve.x) == [1, 2]
    assert curve.lines[0].y[-1] == 1
