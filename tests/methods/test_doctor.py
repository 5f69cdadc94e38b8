"""What the doctor reports of a model, and where it runs."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rcm.methods import Method
from rcm.models.lending import tokenizer_of
from rcm.running.order import in_order
from rcm.running.reuse import is_checked
from tests.conftest import CHAT, tiny_model
from tests.methods.test_patching import weak_model
from tests.models.test_lending import kept
from tests.planted import composed, method, planted_model, planted_prompts, reported

BRIEF = {"prompts": 2, "max_new_tokens": 2}


def examined(model: Any, **settings: Any) -> dict[str, Any]:
    return reported(method("doctor", **BRIEF, **settings), model, planted_prompts())


def test_a_healthy_model_has_a_table_a_floor_and_a_word() -> None:
    found = examined(weak_model())
    assert set(found) == {"doctor/checks", "doctor/noise_floor", "doctor/told_from", "doctor/outcome"}
    assert found["doctor/outcome"].value == "healthy"
    table = found["doctor/checks"]
    assert len(table.rows) == 14
    verdicts = {row[0]: row[1] for row in table.rows}
    assert verdicts.pop("end_of_turn") == "noted"  # it says one letter for ever
    assert set(verdicts.values()) == {"passed"}
    floor, share = found["doctor/noise_floor"].value, found["doctor/told_from"].value
    limit = next(row[4] for row in table.rows if row[0] == "noise")
    assert share == pytest.approx(0.02 * floor / limit)
    assert floor < 1e-4


def test_what_is_wrong_is_said_with_the_cure(tmp_path: Path) -> None:
    other = kept(tmp_path / "other", CHAT + " ")
    found = examined(tiny_model(), against=(str(kept(tmp_path / "same", CHAT)), str(other)))
    outcome = found["doctor/outcome"]
    assert outcome.value == "unhealthy"
    assert outcome.because.startswith("Failed: end_of_instruction. ")
    assert f"dataset.template=of:{other}" in outcome.because
    assert [row[1] for row in found["doctor/checks"].rows][:2] == ["failed", "noted"]


def test_what_cannot_be_made_is_not_called_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("No adapter.")

    monkeypatch.setattr(import_module("rcm.checks.bridge"), "plain_logits", broken)
    found = examined(tiny_model())
    assert found["doctor/outcome"].value == "incomplete"
    assert "Not made: bridge." in found["doctor/outcome"].because


def test_effects_that_patching_reported_are_held_against_the_floor() -> None:
    methods = in_order(composed("doctor", "direction", "patching", **BRIEF, activation_pairs=1, random_sets=2))
    assert list(methods) == ["direction", "patching", "doctor"]
    found = reported(methods, planted_model(), planted_prompts())
    assert found["patching/critical_heads"].value == 1
    (noise,) = (row for row in found["doctor/checks"].rows if row[0] == "noise")
    assert noise[1] == "passed"
    assert "reported effects lie below" not in noise[2]


def test_alone_it_runs_where_another_run_would_stop() -> None:
    alone, beside = composed("doctor"), composed("doctor", "behaviour")
    assert not is_checked(alone)
    assert is_checked(beside)
    assert not any(one.examines for one in (Method, type(beside["behaviour"])))


def test_a_model_to_compare_with_that_there_is_not_is_told_before_weights_load(sentence: Any) -> None:
    told = sentence(lambda: method("doctor", against=("smollm2-135m-nothing",)).check())
    assert told.startswith("method.doctor.against=smollm2-135m-nothing names no model")
    assert tokenizer_of("smollm2-135m", "x").chat_template
