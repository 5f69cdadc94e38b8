"""Reasons to be careful, each in one sentence."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rcm.comparison import compare
from rcm.comparison.reading import Reading
from rcm.record.results import Result, Scalar, Tensors
from tests.comparison.made import MEASURED, a_run


def warned(*readings: Reading) -> list[str]:
    return [one.replace("\N{NO-BREAK SPACE}", " ") for one in compare(reading.run for reading in readings).warnings]


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
        "The compared runs differ in commit: aaaaaaaaaaaa in one (11111111); bbbbbbbbbbbb with changes that are not "
        "committed in two (22222222).",
        "The compared runs differ in seed: 0 in one (11111111); 1 in two (22222222).",
        "The compared runs differ in dataset.test: 48 in one (11111111); 72 in two (22222222).",
        "The compared runs differ in method.direction.max_kl: 0.1 in one (11111111); 0.3 in two (22222222).",
        "The compared runs differ in judge: calibrated in one (11111111); llm in two (22222222).",
        "The compared runs differ in template: chat (aaaa) in one (11111111); chat (bbbb) in two (22222222). They read "
        "other words and decide at other tokens: run them with the same dataset.template, of:MODEL for a chat template "
        "that all are asked in, or plain.",
        "Made with code that was not committed: two (22222222).",
        "The adapter of two (22222222) was trained on 25.0 % of its test prompts.",
    ]


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
