"""Checkpoints of one model, in order, and what they show first."""

from pathlib import Path
from typing import Any

import pytest

from rcm.comparison.emergence import outside, series, step_of
from rcm.comparison.reading import Reading
from rcm.record.results import Outcome, Scalar
from rcm.record.storage import Run, Store, stored_run
from rcm.report import write
from tests.planted import by_name, method, planted_judge, planted_model, planted_prompts


def checkpoint(
    folder: Path, adapter: str | None, rate: float, apart: float, model: str = "smol", **config: Any
) -> Reading:
    name = f"{model}-{(adapter or 'none').replace('/', '-')}-{config.get('revision', '')}"
    settings = {"model": {"family": "smol", "stage": "base", "adapter": adapter, **config}, "seed": 0}
    run = Run(
        name,
        folder / name,
        {"model": model, "dataset": "pairs", "method": "emergence", "judge": "x"},
        settings,
        {"started": "2026"},
    )
    run.directory.mkdir(parents=True)
    refuses = rate > 0.3
    with Store(run) as store:
        for result in (
            Outcome("behaviour/outcome", "refusal" if refuses else "no_refusal_behaviour", ""),
            Scalar("behaviour/refusal_rate_harmful", rate, (rate - 0.1, rate + 0.1), 48, 0.123),
            Outcome("direction/outcome", "selected" if refuses else "none", ""),
            Scalar("direction/separation", apart, (apart - 0.5, apart + 0.5), 48, 0.6, 2.0),
            Scalar("direction/induce", rate if refuses else float("nan")),
        ):
            store.save(result)
    return Reading.of(stored_run(run.directory))


def test_checkpoints_come_in_the_order_of_training(tmp_path: Path) -> None:
    given = [
        checkpoint(tmp_path, "runs/a/step-0100", 0.9, 3),
        checkpoint(tmp_path, None, 0.1, 0.9),
        checkpoint(tmp_path, "runs/a/step-0020", 0.1, 2),
        checkpoint(tmp_path, "runs/a/adapter", 0.1, 2),
        checkpoint(tmp_path, None, 0.1, 2, model="alone"),
    ]
    (one,) = series(given)
    assert list(one.steps) == [0, 20, 100]
    assert one.said == (
        "Harmful and harmless prompts are told apart from step 20; a direction causes refusing from step 100; it "
        "refuses from step 100."
    )
    assert outside(given) == [given[3], given[4]]


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


def test_the_page_draws_figures_over_steps(tmp_path: Path) -> None:
    for adapter, rate in ((None, 0.1), ("a/step-0020", 0.2), ("a/step-0040", 0.8)):
        checkpoint(tmp_path / "runs", adapter, rate, 2)
    page, twin = (path.read_text() for path in write(tmp_path / "runs", tmp_path / "page"))
    assert "smol: emergence over 3 checkpoints" in page
    assert "behaviour: share of prompts refused" in page
    assert "harmful: null, training step 20: 0.123" in page
    for in_short in (page.split('id="maps"')[0], twin.split("## smol")[0]):
        assert "it refuses from step 40" in in_short
        assert "nothing to compare" not in in_short
    assert "| 40 | 0.8 |" in twin
    assert "run smol" not in page.split('id="maps"')[1].split('id="transcripts"')[0]


def test_a_checkpoint_is_measured_whether_it_refuses_or_not() -> None:
    settings = method("emergence", max_new_tokens=3)
    found = by_name(settings.run(planted_model(), planted_prompts(), planted_judge(), seed=0))
    assert found["behaviour/outcome"].value == "refusal"
    assert found["direction/outcome"].value == "selected"
