"""Checkpoints of one model, in order, and what they show first."""

from pathlib import Path
from typing import Any

import pytest

from rcm.comparison import compare
from rcm.comparison.emergence import Series, checkpoints, step_of
from rcm.comparison.reading import Reading
from rcm.record.results import Null, Outcome, Result, Scalar
from tests.comparison.made import MEASURED, a_run
from tests.planted import composed, planted_model, planted_prompts, reported


def shown(rate: float, apart: float) -> list[Result]:
    refuses = rate > 0.3
    return [
        Outcome("behaviour/outcome", "refusal" if refuses else "no_refusal_behaviour", ""),
        Scalar("behaviour/refusal_rate_harmful", rate, (rate - 0.1, rate + 0.1), 48, Null(0.123, "shuffled labels")),
        Outcome("direction/outcome", "selected" if refuses else "none", ""),
        Scalar("direction/separation", apart, (apart - 0.5, apart + 0.5), 48, Null(0.6, "shuffled labels"), 2.0),
        Scalar("direction/induce", rate if refuses else float("nan")),
    ]


def checkpoint(
    folder: Path, adapter: str | None, rate: float = 0.1, apart: float = 1, model: str = "smol", **changed: Any
) -> Reading:
    """`revision` is a setting of the model."""
    settings = {"name": model, "adapter": adapter, "revision": changed.pop("revision", None)}
    id = changed.pop("id", f"{model}-{(adapter or 'none').replace('/', '-')}-{settings['revision']}")
    return a_run(folder, model, "base", shown(rate, apart), id=id, settings=settings, **changed)


def series(*readings: Reading) -> list[Series]:
    return list(checkpoints(readings).series)


def test_checkpoints_come_in_the_order_of_training(tmp_path: Path) -> None:
    given = [
        checkpoint(tmp_path, "runs/a/step-0100", 0.9, 3),
        checkpoint(tmp_path, None, 0.1, 0.9),
        checkpoint(tmp_path, "runs/a/step-0020", 0.1, 2),
        checkpoint(tmp_path, "runs/a/adapter", 0.1, 2),
        checkpoint(tmp_path, None, 0.1, 2, model="alone"),
    ]
    (one,) = series(*given)
    assert one.name == "smol"
    assert list(one.steps) == [0, 20, 100]
    assert one.sentence == (
        "Harmful and harmless prompts are told apart from step 20; a direction causes refusing from step 100; it "
        "refuses from step 100."
    )
    assert (one.separates_from, one.causes_from, one.refuses_from) == (20, 100, 100)
    assert {reading.run.id for reading in compare(r.run for r in given).compared} == {
        given[3].run.id,
        given[4].run.id,
    }


@pytest.mark.parametrize(
    ("config", "step"),
    [
        ({"adapter": None}, 0),
        ({"adapter": None, "revision": "step143000"}, 143000),
        ({"adapter": None, "revision": "main"}, None),
    ],
)
def test_steps_are_named_by_adapters_and_revisions(tmp_path: Path, config: dict[str, Any], step: int | None) -> None:
    assert step_of(checkpoint(tmp_path, rate=0.1, apart=1, **config)) == step


def test_revisions_begin_with_no_finished_model(tmp_path: Path) -> None:
    """Without a revision it is the model at the end of training, not at step 0."""
    given = [checkpoint(tmp_path, None, revision=revision) for revision in ("step1000", "step64000", None)]
    (one,) = series(*given)
    assert list(one.steps) == [1000, 64000]
    assert [reading.run.id for reading in compare(r.run for r in given).compared] == [given[2].run.id]


def test_series_go_by_base_prompts_seed_judge_and_training(tmp_path: Path) -> None:
    """Not by the option's name: two options of one base are one series, one option over two bases is two."""
    first = checkpoint(tmp_path, "runs/a/step-0020")
    assert series(first, checkpoint(tmp_path, "runs/a/step-0040"))
    for i, changed in enumerate(
        (
            {"seed": 1},
            {"judge": "llm"},
            {"data": "dddddddd"},
            {"model": "other"},
            {"adapter": "runs/b/step-0040"},
        )
    ):
        other = checkpoint(tmp_path / str(i), **{"adapter": "runs/a/step-0040", **changed})
        assert not series(first, other)
    for folder, alike in (("runs/a", 1), ("elsewhere/a", 0)):  # of one name, and yet another training
        settings = first.run.config["model"] | {"adapter": f"{folder}/step-0060"}
        renamed = a_run(tmp_path / folder, "other-option", settings=settings)
        assert len(series(first, renamed)) == alike


def test_two_trainings_of_one_base_share_their_beginning(tmp_path: Path) -> None:
    given = [checkpoint(tmp_path, adapter) for adapter in (None, "runs/a/step-0020", "runs/b/step-0040")]
    found = series(*given)
    assert [(one.name, list(one.steps)) for one in found] == [
        ("smol (a, pairs, seed 0, calibrated)", [0, 20]),
        ("smol (b, pairs, seed 0, calibrated)", [0, 40]),
    ]


def test_of_one_step_the_latest_stands(tmp_path: Path) -> None:
    early = checkpoint(tmp_path, "a/step-0020", id="early", started="2026-01", methods={**MEASURED, "direction": {}})
    late = checkpoint(tmp_path, "a/step-0020", id="late", started="2026-02")
    found = compare(one.run for one in (late, checkpoint(tmp_path, None), early))
    assert [reading.run.id for reading in found.emergence[0].readings][1] == "late"
    assert [(one.run.id, one.why) for one in found.left_out] == [
        ("early", "Run late measured the same step of training later.")
    ]
    assert not found.compared


def test_a_checkpoint_of_which_more_is_known_is_a_column_too(tmp_path: Path) -> None:
    steering = Outcome("steering/outcome", "steered", "")
    untuned = a_run(
        tmp_path,
        "smol",
        results=[*shown(0.1, 1), steering],
        methods={**MEASURED, "steering": {}},
        settings={"name": "smol", "adapter": None, "revision": None},
    )
    found = compare(one.run for one in (untuned, checkpoint(tmp_path, "a/step-0020")))
    assert list(found.emergence[0].steps) == [0, 20]
    assert [reading.run.id for reading in found.compared] == [untuned.run.id]
    assert len(found.finished) == 2


def test_the_untuned_model_is_compared_where_its_family_has_a_later_stage(tmp_path: Path) -> None:
    untuned = checkpoint(tmp_path, None)
    given = [untuned, checkpoint(tmp_path, "a/step-0020")]
    assert not compare(one.run for one in given).compared
    tuned = a_run(tmp_path, "tuned", "safety", shown(0.9, 3))
    found = compare(one.run for one in (*given, tuned))
    assert [reading.run.id for reading in found.compared] == [untuned.run.id, tuned.run.id]
    assert len(found.tunings) == 1
    swept = checkpoint(tmp_path, None, id="swept", methods={**MEASURED, "direction": {"max_kl": 0.3}})
    found = compare(one.run for one in (*given, tuned, swept))
    assert {reading.run.id for reading in found.compared} == {untuned.run.id, "swept", tuned.run.id}


def test_a_checkpoint_is_measured_whether_it_refuses_or_not() -> None:
    found = reported(composed("behaviour", "direction", max_new_tokens=3), planted_model(), planted_prompts())
    assert found["behaviour/outcome"].value == "refusal"
    assert found["direction/outcome"].value == "selected"
