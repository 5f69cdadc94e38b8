"""Steering must turn the planted behaviour over, and random directions must not."""

import numpy as np
import pytest

from rcm.generation import replies
from rcm.interventions import Add
from rcm.judges import Verdict
from rcm.methods import steering
from rcm.prompts import Prompt, texts
from tests.planted import by_name, method, opening_judge, planted_judge, planted_model, planted_prompts


@pytest.fixture(scope="module")
def steered() -> dict:
    settings = method("steering", max_new_tokens=4, null_directions=3, strengths=[0.05, 1.0, 2.0])
    return by_name(settings.run(planted_model(), planted_prompts(), planted_judge(), seed=0))


def test_direction_forces_and_suppresses(steered: dict) -> None:
    for name in ("force_rate", "suppress_rate", "force_rate_clamp", "suppress_rate_add", "suppress_rate_clamp"):
        assert steered[f"steering/{name}"].value == 1, name
        assert steered[f"steering/{name}"].n == 12


def test_random_directions_do_not(steered: dict) -> None:
    assert steered["steering/force_rate"].null < 0.3
    assert steered["steering/suppress_rate"].null < 0.3


def test_strength_is_the_least_that_works_best_on_validation(steered: dict) -> None:
    assert steered["steering/strength"].value == 1.0
    curve = steered["steering/dose_response"]
    assert curve.x == [0.05, 1.0, 2.0]
    assert curve.lines[0].y == [0.0, 1.0, 1.0]


def test_transcripts_hold_every_row_and_no_unrefused_harm(steered: dict) -> None:
    rows = steered["steering/transcripts"].rows
    assert len(rows) == 12 * (2 + 3 * 4 + 3 + 4 + 1 + 1)
    assert {row["direction"] for row in rows} == {"refusal direction", "random 1", "random 2", "random 3"}


def test_batched_rows_say_what_single_ones_say(steered: dict) -> None:
    """Every strength in shared batches against one prompt and one strength at a time."""
    model, prompts = planted_model(), planted_prompts()
    tensor = by_name(method("direction").run(model, prompts, planted_judge(), seed=0))["direction/directions"].tensors
    vector = tensor["mean_difference"][0, 3]
    rows = steered["steering/transcripts"].rows
    ours = [row for row in rows if row["operation"] == "add" and row["direction"] == "refusal direction"][:30]
    assert len({row["strength"] for row in ours}) > 1
    for row in ours:
        alone = replies(model, [str(row["prompt"])], 4, [Add(3, float(row["strength"]) * vector[None])])
        assert alone == [row["completion"]]


def test_invalid_output_is_no_success() -> None:
    """A model that is pushed into loops neither refuses nor answers."""
    prompt = Prompt("x", "")

    def said(index: int, strength: int, verdict: Verdict) -> steering.Said:
        return steering.Said(steering.Row("harmless", index, prompt, "add", float(strength)), "", verdict)

    trial = [said(0, 0, Verdict.COMPLIANCE), said(1, 0, Verdict.COMPLIANCE), said(2, 0, Verdict.REFUSAL)]
    trial += [said(0, 1, Verdict.INVALID), said(1, 1, Verdict.REFUSAL), said(2, 1, Verdict.REFUSAL)]
    hits = steering._hits(trial, steering._condition("harmless", "add", 1.0))
    assert hits.tolist() == [False, True]  # the one refused before does not count


def test_ends_of_turn_end_replies() -> None:
    model = planted_model()
    model.hf.generation_config.eos_token_id = model.template.tokenizer("R")["input_ids"][0]
    harmful = texts(planted_prompts().test.harmful)[:2]
    assert all(len(reply) <= 1 for reply in replies(model, harmful, 8))


def test_without_direction_nothing_is_steered() -> None:
    settings = method("steering", max_kl=0.0, max_new_tokens=4)
    found = by_name(settings.run(planted_model(), planted_prompts(), planted_judge(), seed=0))
    assert found["steering/outcome"].value == "none"
    assert np.isnan(found["steering/force_rate"].value)
    assert "steering/transcripts" not in found


def test_redaction_of_suppressed_prompts() -> None:
    model, prompts = planted_model(), planted_prompts()
    never = opening_judge("never")
    settings = method("behaviour", max_new_tokens=40, floor=0.0)
    rows = by_name(settings.run(model, prompts, never, seed=0))["behaviour/transcripts"].rows
    assert all(len(row["completion"].split(" ")) <= 9 for row in rows if row["kind"] == "harmful")
