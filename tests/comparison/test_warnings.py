"""Reasons to be careful, each in one sentence."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rcm.comparison import compare
from rcm.comparison.families import Family
from rcm.comparison.reading import Reading
from rcm.comparison.warnings import doubted, warnings
from rcm.record.results import Outcome, Result, Scalar, Tensors
from tests.comparison.made import MEASURED, a_run


def warned(*readings: Reading) -> list[str]:
    found = compare(reading.run for reading in readings).warnings
    return [one.sentence.replace("\N{NO-BREAK SPACE}", " ") for one in found]


def hashed(template: str) -> Tensors:
    return Tensors(
        "direction/directions",
        {"x": torch.zeros(1)},
        {"template": "chat", "template_hash": template, "positions": "[]"},
    )


def made(folder: Path, model: str, stage: str, results: Sequence[Result] = (), **changed: Any) -> Reading:
    git = {"commit": changed.pop("commit", "0123456789abcdef"), "dirty": changed.pop("dirty", False)}
    return a_run(folder, model, stage, results, provenance={"git": git}, id=changed.pop("id", model), **changed)


def test_equal_runs_warn_of_nothing(tmp_path: Path) -> None:
    assert warned(made(tmp_path, "one", "base"), made(tmp_path, "two", "chat")) == []
    assert warned() == []


def test_runs_that_differ_say_in_what(tmp_path: Path) -> None:
    seen = Scalar("behaviour/seen_in_training", 0.25)
    one = made(tmp_path, "one", "base", [hashed("aaaa")], commit="a" * 40, seed=0, id="11111111")
    two = made(
        tmp_path,
        "two",
        "chat",
        [hashed("bbbb"), seen],
        commit="b" * 40,
        dirty=True,
        seed=1,
        judge="llm",
        dataset={"test": 72},
        methods={**MEASURED, "direction": {"max_kl": 0.3}},
        id="22222222",
    )
    assert warned(one, two) == [
        "The adapter of two (22222222) was trained on 25.0 % of its test prompts.",
        "The compared runs differ in template: chat (aaaa) in one (11111111); chat (bbbb) in two (22222222). They read "
        "other words and decide at other tokens: run them with the same dataset.template, of:MODEL for a chat template "
        "that all are asked in, or plain.",
        "The compared runs differ in seed: 0 in one (11111111); 1 in two (22222222).",
        "The compared runs differ in dataset.test: 48 in one (11111111); 72 in two (22222222).",
        "The compared runs differ in judge: calibrated in one (11111111); llm in two (22222222).",
        "The compared runs differ in method.direction.max_kl: 0.1 in one (11111111); 0.3 in two (22222222).",
        "The compared runs differ in commit: aaaaaaaaaaaa in one (11111111); bbbbbbbbbbbb with changes that are not "
        "committed in two (22222222).",
        "Made with code that was not committed: two (22222222).",
    ]


RATE = Scalar("behaviour/harmful_refusal_rate", 0.9, unit="share")
MET = Scalar("direction/probe_accuracy", 0.95, target=0.9)
PLAIN = Scalar("direction/layer", 12)
SUMMED_UP = Outcome("summary/outcome", "1 of 1 met", "Probe accuracy is met.")


@pytest.mark.parametrize(("seen", "doubtful"), [(1 / 3, True), (0.0, False), (float("nan"), False)])
def test_what_training_saw_stands_beside_the_figures_that_it_puts_in_doubt(
    tmp_path: Path, seen: float, doubtful: bool
) -> None:
    one = made(tmp_path, "one", "base")
    two = made(tmp_path, "two", "safety", [Scalar("behaviour/seen_in_training", seen)])
    found = compare([one.run, two.run])
    caveats = ["33.3\N{NO-BREAK SPACE}% of its test prompts were trained on"] if doubtful else []
    for result in (RATE, MET, SUMMED_UP):
        assert doubted(found.warnings, two, result) == caveats
        assert doubted(found.warnings, one, result) == []
    assert doubted(found.warnings, two, PLAIN) == []
    assert any(warning.parts(one, two) for warning in found.warnings) == doubtful


@pytest.mark.parametrize(
    ("sources", "commits", "doubtful"),
    [("ss", "ab", False), ("st", "ab", True), ("st", "aa", False), (("", ""), "ab", True)],
)
def test_other_code_puts_differences_in_doubt_where_it_measured(
    tmp_path: Path, sources: Sequence[str], commits: str, doubtful: bool
) -> None:
    """A commit may differ in what measures nothing: runs by the same sources are measured alike."""
    git = [{"git": {"commit": 40 * commit, "dirty": False}} for commit in commits]
    one, two, three = (
        replace(made(tmp_path, name, stage), run=replace(run, sources=source, provenance={**run.provenance, **by}))
        for name, stage, source, by in zip(
            ("one", "two", "three"), ("base", "chat", "safety"), (*sources, sources[0]), (*git, git[0]), strict=True
        )
        for run in [a_run(tmp_path / "x", name, stage).run]
    )
    found = warnings([Family("smol", [one, two, three])])
    assert [warning.parts(one, two) for warning in found] == [True] * doubtful
    assert not any(warning.parts(one, three) for warning in found)
    assert not any(doubted(found, reading, RATE) for reading in (one, two, three))


def test_families_may_have_templates_of_their_own(tmp_path: Path) -> None:
    one = made(tmp_path, "one", "base", [hashed("aaaa")])
    assert warned(one, made(tmp_path, "two", "base", [hashed("bbbb")], family="other")) == []


def test_replicates_may_have_seeds_of_their_own(tmp_path: Path) -> None:
    given = [made(tmp_path, model, "base", seed=seed, id=f"{model}{seed}") for model in "ab" for seed in (0, 1)]
    assert warned(*given[:3]) == []  # one seed is that of both models
    (warning,) = warned(given[0], given[3])
    assert warning == "The compared runs differ in seed: 0 in a (a0); 1 in b (b1)."


def test_a_method_that_one_run_did_without_is_told_once(tmp_path: Path) -> None:
    one = made(tmp_path, "one", "base", methods={**MEASURED, "steering": {"strengths": [1.0], "prompts": 4}})
    assert warned(one, made(tmp_path, "two", "chat")) == [
        "The compared runs differ in method: behaviour,direction,steering in one (one); behaviour,direction in two "
        "(two)."
    ]


def test_long_values_are_cut(tmp_path: Path) -> None:
    given = [made(tmp_path, name, "base", dataset={"prefix": name * 100}) for name in ("a", "b")]
    (warning,) = warned(*given)
    assert f"{'a' * 59}… in a (a)" in warning


def test_of_two_data_sets_the_settings_go_without_saying(tmp_path: Path) -> None:
    one, two = made(tmp_path, "one", "base"), made(tmp_path, "two", "chat", dataset={"test": 72, "path": "there"})
    told = [sentence.split(":")[0].rpartition(" ")[2] for sentence in warned(one, two)]
    assert told == ["dataset.test", "dataset.path"]
    other = replace(two, run=replace(two.run, choices={**two.run.choices, "dataset": "arditi"}))
    (warning,) = warned(one, other)
    assert warning == "The compared runs differ in dataset: pairs in one (one); arditi in two (two)."
