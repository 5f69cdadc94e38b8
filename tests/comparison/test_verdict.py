"""What tuning changed, in a word, and what the word rests on."""

from pathlib import Path
from typing import Any

import pytest

from rcm.comparison.verdict import OPEN, Verdict, overall, verdict
from tests.comparison.made import a_run, twins, verdict_on


@pytest.mark.parametrize(
    ("value", "planted"),
    [
        ("coupling", {}),
        ("representation", {"vector": 0.0}),
        ("behaviour", {"separation": 0.8}),
        ("unchanged", {"refuses": 0.1}),
        ("coupling", {"vector": 0.0, "brought": "steers"}),  # what a transplant shows goes before a cosine
        ("representation", {"brought": "nothing"}),
    ],
)
def test_the_verdict(tmp_path: Path, value: str, planted: dict[str, Any]) -> None:
    assert verdict_on(*twins(tmp_path, **planted)).value == value


def test_the_verdict_says_what_it_rests_on(tmp_path: Path) -> None:
    sentence = verdict_on(*twins(tmp_path, brought="steers")).sentence
    for part in ("were refused before", "The base separates them by 2.00", "cosine is 0.7 (null 0.2)", "forces 90.0"):
        assert part in sentence


def test_without_figures_the_verdict_is_open(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, name, stage) for name, stage in (("a", "base"), ("b", "chat"))]
    assert verdict(*runs, [], None, []).value == "open"


def test_one_pair_of_runs_decides_alone() -> None:
    alone = Verdict("coupling", ["It does."])
    assert overall({"runs a and b (seed 0)": alone}) == alone


def test_pairs_that_agree_are_counted() -> None:
    found = overall({"runs a and b": Verdict("coupling", ["It does."]), "runs c and d": Verdict("coupling", ["Too."])})
    assert (found.value, found.agreed) == ("coupling", True)
    assert list(found.evidence) == [
        "All 2 pairs of runs say so; the figures that follow are those of runs a and b.",
        "It does.",
    ]


def test_a_pair_of_which_too_little_was_measured_contradicts_none() -> None:
    found = overall({"a": Verdict(OPEN, ()), "b": Verdict("unchanged", ["y"]), "c": Verdict(OPEN, ())})
    assert (found.value, found.agreed) == ("unchanged", True)
    assert list(found.evidence) == ["y", "Too little was measured in a and c to say."]
    assert overall({"a": Verdict(OPEN, ()), "b": Verdict(OPEN, ())}).value == OPEN


def test_pairs_that_disagree_leave_it_open() -> None:
    verdicts = {"a": Verdict("coupling", ["x"]), "b": Verdict("unchanged", ["y"]), "c": Verdict("coupling", ["z"])}
    found = overall(verdicts)
    assert (found.value, found.agreed) == (OPEN, False)
    assert found.sentence == "Its runs do not agree on what tuning changed. Coupling: a and c. Unchanged: b."
