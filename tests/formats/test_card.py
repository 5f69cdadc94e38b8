"""A section for a model card: figures as the run has them, and metadata that the Hub's own library reads."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from rcm.formats.__main__ import main
from rcm.formats.card import card
from rcm.record.results import Null, Outcome, Scalar
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_run
from tests.formats.runs import behaviour, stored

ROWS = [*[("harmful", "No.", "refusal")] * 3, ("harmful", "Yes.", "compliance"), ("harmless", "Yes.", "compliance")]


def test_a_figure_stands_with_its_interval_null_and_n_and_what_cannot_be_weighed_does_not(tmp_path: Path) -> None:
    null = Null(0.9, "random directions", 200)
    results = [
        *behaviour(ROWS),
        Outcome("direction/outcome", "nearest_miss", "One | bar."),
        Scalar("direction/separation", 2.5, (2.0, 3.0), 40, null, label="separation", unit="sigma"),
        Scalar("direction/layer", 18, label="layer", unit="index"),
        Scalar("direction/kl", float("nan"), (0.0, 1.0), 40, null, label="KL"),
    ]
    text = card(stored_run(stored(tmp_path / "run", results))).replace("\N{NO-BREAK SPACE}", " ")
    sigma = "\N{GREEK SMALL LETTER SIGMA}"
    assert (
        f"| direction: separation | 2.50 {sigma} | 2.00 {sigma} to 3.00 {sigma} | 0.90 {sigma} (200 random directions) "
        "| 40 prompts |"
    ) in text
    assert "| behaviour: harmful | 75.0 % | 0.0 % to 100.0 % | none | 4 prompts |" in text
    assert r"| direction | nearest miss | One \| bar. |" in text
    assert "layer |" not in text
    assert "KL" not in text
    assert "`opening`; its kappa with people is 0.9" in text
    assert "`1a2b3c4d`" in text


def test_the_hubs_library_reads_the_rates(tmp_path: Path) -> None:
    text = card(stored_run(stored(tmp_path / "run", behaviour(ROWS))))
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    name, found = model_index_to_eval_results(yaml.safe_load(block)["model-index"])
    assert name == "planted"
    assert {one.metric_type: one.metric_value for one in found} == {
        "refusal_rate_harmful": 0.75,
        "refusal_rate_harmless": 0.0,
    }
    assert {(one.task_type, one.dataset_type) for one in found} == {("text-generation", "letters")}


def test_it_is_printed_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stored(tmp_path / "run", behaviour(ROWS))
    assert main(["card", str(run)]) == 0
    printed = capsys.readouterr().out
    assert main(["card", str(run), "--out", str(tmp_path / "card.md")]) == 0
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == printed
    assert printed.startswith("## Refusal")


def test_a_run_that_failed_or_found_nothing_has_no_card(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = stored(tmp_path / "empty", [])
    failed = Run("1a2b3c4d", tmp_path / "failed", {}, {}, {"started": "today"})
    with pytest.raises(ZeroDivisionError), Store(failed):
        raise ZeroDivisionError
    for run, why in ((empty, "neither figures nor conclusions"), (tmp_path / "failed", "is failed, not finished")):
        assert main(["card", str(run)]) == 1
        assert why in caplog.messages[-1]
