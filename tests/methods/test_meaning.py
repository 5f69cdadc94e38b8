"""Every result that a method of ours reports says what it means: real ones, of tiny models, rendered on the page."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rcm.record.results import (
    Adapter,
    Curve,
    Diagram,
    Heatmap,
    Outcome,
    Result,
    Scalar,
    Scatter,
    Table,
    Tensors,
    Transcripts,
)
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.report import write
from tests.methods.test_neurons import BRIEF, neuron_model
from tests.planted import (
    MAP,
    composed,
    known,
    method,
    planted_direction,
    planted_map,
    planted_model,
    planted_prompts,
    reported,
)


def stored(directory: Path, results: Iterable[Result]) -> None:
    """These results as a finished run."""
    run = Run(
        directory.name,
        directory,
        {"model": "tiny", "dataset": "planted", "method": ",".join(MAP), "judge": "planted"},
        {"model": {"family": "tiny", "stage": "chat"}, "dataset": {}, "method": {name: {} for name in MAP}, "seed": 0},
        {"started": "2026-01-01T00:00:00+00:00"},
    )
    directory.mkdir(parents=True)
    with Store(run) as store:
        for result in results:
            store.save(result)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What all methods report: the main job, at every token, in another model, tuning, neurons."""
    folder = tmp_path_factory.mktemp("runs")
    stored(folder / "other", planted_map())
    transplant = method("transplant", source=str(folder), prompts=4, max_new_tokens=3, random_sets=5)
    tune = method("safety_tune", epochs=1, batch=16, max_new_tokens=4, target_tokens=4, rank=1, checkpoints=1)
    results: dict[str, Any] = {result.name: result for result in planted_map()}
    results |= reported(composed("direction", "positions"), planted_model(), planted_prompts())
    results |= reported(transplant, planted_model(4), planted_prompts())
    results |= reported(tune, planted_model(), planted_prompts(sizes=(4, 4, 4)))
    model = neuron_model()
    found = known(model, planted_direction(), 3, tuple(model.template.tokenizer("R")["input_ids"]))
    return results | reported(method("neurons", **BRIEF), model, planted_prompts(sizes=(10, 4, 12)), None, found)


@pytest.mark.slow
def test_every_result_has_a_label(real: dict[str, Result]) -> None:
    assert {type(result) for result in real.values()} == {
        *(Scalar, Outcome, Heatmap, Curve, Scatter, Diagram, Table, Transcripts, Tensors, Adapter)
    }
    without = [name for name, result in real.items() if not result.label]
    assert not without


@pytest.mark.slow
def test_every_figure_says_what_it_counts_and_what_its_null_is(real: dict[str, Result]) -> None:
    figures = [result for result in real.values() if isinstance(result, Scalar)]
    assert len(figures) > 50
    assert all(figure.counts for figure in figures)
    nulls = [figure.null for figure in figures if figure.null is not None]
    assert len(nulls) > 10
    assert all(null.of and 0 < null.level < 1 and (null.draws or 0) > 0 for null in nulls)
    # A figure with a target or a null is good on one side.
    assert [one.name for one in figures if (one.target or one.null) and not one.good and "cosine" not in one.name] == []


@pytest.mark.slow
def test_the_page_shows_each_by_its_label(real: dict[str, Result], tmp_path: Path) -> None:
    stored(tmp_path / "runs" / "0a1b2c3d", real.values())
    page, twin = write(tmp_path / "runs", tmp_path / "page")
    drawn, plain = page.read_text(encoding="utf-8"), twin.read_text(encoding="utf-8")
    for result in real.values():
        if isinstance(result, Heatmap | Curve | Scatter | Diagram):
            assert result.label in drawn, result.name
        if isinstance(result, Scalar):
            assert (result.row or result.label) in drawn, result.name
            assert (result.row or result.label) in plain, result.name
