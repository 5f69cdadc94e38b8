"""What is drawn first of a family is what its runs hold, and nothing besides."""

from pathlib import Path

import pytest

from rcm.comparison import compare
from rcm.comparison.names import SEPARABILITY
from rcm.comparison.overview import MOST, overview
from rcm.record.results import Scalar, Table
from rcm.record.stored import stored_runs
from tests.comparison.made import a_run, measured, refusing, twins
from tests.report.samples import fill


def test_a_family_is_drawn_in_the_order_of_training_with_what_is_said_of_it(tmp_path: Path) -> None:
    fill(tmp_path)
    comparison = compare(stored_runs(tmp_path))
    family = comparison.families[0]
    drawn = overview(family, comparison.tunings)
    assert [one.reading.stage for one in drawn.models] == [one.stage for one in family.readings]
    (tuning,) = comparison.tunings
    assert list(drawn.tunings) == [tuning]
    for model, reading in zip(drawn.models, family.readings, strict=True):
        assert [one.value for one in model.rates] == [
            scalar.value
            for kind in ("harmful", "harmless", "lookalike")
            if (scalar := reading.scalar(f"behaviour/refusal_rate_{kind}"))
        ]
    untuned, tuned = drawn.models
    assert untuned.decided is None
    assert tuned.decided is not None
    assert drawn.layers == len(tuned.decided.x) == 30


def test_a_verdict_on_models_of_another_family_is_not_said(tmp_path: Path) -> None:
    twins(tmp_path, along=0.9)
    a_run(tmp_path, "alone", "chat", measured(0.9), family="other")
    comparison = compare(stored_runs(tmp_path))
    said = {family.name: overview(family, comparison.tunings).tunings for family in comparison.families}
    assert len(said["smol"]) == 1
    assert said["other"] == []


def test_of_each_model_the_last_run_is_drawn_and_the_others_are_counted(tmp_path: Path) -> None:
    for seed in range(3):
        when = f"2026-01-0{seed + 1}"
        a_run(tmp_path, "m", "chat", [refusing(0.1 * seed)], seed=seed, started=when, weights="same")
    for other in range(MOST):
        a_run(tmp_path, f"n{other}", "safety", [refusing(0.5)], weights=f"w{other}", started=f"2026-02-0{other + 1}")
    drawn = overview(compare(stored_runs(tmp_path)).families[0])
    assert len(drawn.models) == MOST
    assert drawn.models[0].reading.setting("seed") == 2
    assert drawn.left_out == 3 + MOST - MOST
    assert all(one.reading.name != f"n{MOST - 1}" for one in drawn.models)


@pytest.mark.parametrize(("chosen", "position"), [(None, -1), (-2, -2)])
def test_separation_is_that_of_the_chosen_position_or_else_of_the_best(
    chosen: int | None, position: int, tmp_path: Path
) -> None:
    columns = ("position", "layer", "separation", "separation_low", "separation_high")
    rows = [(at, layer, high + layer, 0.0, 9.0) for at, high in ((-2, 1.0), (-1, 3.0)) for layer in range(2)]
    results = [Table(SEPARABILITY, columns, rows), *([Scalar("direction/position", chosen)] if chosen else [])]
    a_run(tmp_path, "m", "chat", results)
    (model,) = overview(compare(stored_runs(tmp_path)).families[0]).models
    assert model.separated is not None
    assert list(model.separated.lines[0].y) == ([3.0, 4.0] if position == -1 else [1.0, 2.0])
