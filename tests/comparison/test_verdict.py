"""What tuning changed, in a word, and what the word rests on."""

from pathlib import Path
from typing import Any

import pytest

from rcm.comparison.verdict import OPEN, Verdict, against_benign, overall, verdict
from rcm.record.results import Outcome
from tests.comparison.made import a_run, refusing, twins, verdict_on


@pytest.mark.parametrize(
    ("value", "planted"),
    [
        ("coupling", {"along": 1.0}),
        ("representation", {"along": 0.0}),
        ("mixed", {"along": 0.5}),
        ("behaviour", {"separation": 0.2}),
        ("unchanged", {"refuses": 0.1}),
        ("open", {}),  # nothing was transplanted
        ("open", {"along": 1.0, "separation": 0.8}),  # it neither tells them apart nor certainly does not
    ],
)
def test_the_verdict(tmp_path: Path, value: str, planted: dict[str, Any]) -> None:
    assert verdict_on(*twins(tmp_path, **planted)).value == value


def test_the_verdict_says_what_it_rests_on(tmp_path: Path) -> None:
    sentence = verdict_on(*twins(tmp_path, along=1.0)).sentence
    for part in (
        "Said where certainly more than 50% of the later direction's effect",
        "were refused before",
        "The earlier model separates them by 2.00",
        "the cosine of the two directions is 0.9 (its own refits: 0.95 or more)",
        "Ablating the plane of both directions moves refusing by 6 nats",
        "Adding the later's own direction",
    ):
        assert part in sentence


def test_a_nearest_miss_decides_and_is_told(tmp_path: Path) -> None:
    found = verdict_on(*twins(tmp_path, along=1.0, chosen="nearest_miss"))
    assert found.value == "coupling"
    assert "The later model's direction is a nearest miss" in found.sentence
    assert "nearest miss" not in verdict_on(*twins(tmp_path / "selected", along=1.0)).sentence


def test_where_none_was_chosen_it_is_open(tmp_path: Path) -> None:
    found = verdict_on(*twins(tmp_path, along=1.0, chosen="none"))
    assert found.value == "open"
    assert "no direction was selected" in found.sentence


def test_without_figures_the_verdict_is_open(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, name, stage) for name, stage in (("a", "base"), ("b", "chat"))]
    assert verdict(*runs, [], []).value == "open"


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


SAFE, SAME = Verdict("representation", ["Evidence."]), Verdict("unchanged", [])


def test_a_benign_twin_that_changed_nothing_and_says_the_same_supports_it() -> None:
    found = against_benign(SAFE, SAFE, SAME, "benign")
    assert found.value == "representation"
    assert found.evidence[0].startswith("It is the same held against benign")
    assert found.evidence[1:] == ["Evidence."]


@pytest.mark.parametrize(
    ("from_benign", "of_benign", "because"),
    [
        (Verdict("coupling", []), SAME, "Held against benign, tuned alike with nothing to refuse, it is coupling"),
        (Verdict(OPEN, []), SAME, "it is open"),
        (SAFE, Verdict("representation", []), "changed is representation: tuning alone may have done it"),
        (SAFE, Verdict(OPEN, []), "changed is open"),
    ],
)
def test_a_benign_twin_that_contradicts_leaves_it_open(from_benign, of_benign, because: str) -> None:
    found = against_benign(SAFE, from_benign, of_benign, "benign")
    assert found.value == OPEN
    assert found.evidence[0] == "From the base it is representation."
    assert because in found.evidence[1]


def test_what_is_open_or_unchanged_stays_so_whatever_the_benign_twin_says() -> None:
    assert against_benign(SAME, SAFE, SAFE, "benign") == SAME


def test_of_replies_that_were_cut_within_thoughts_nothing_is_concluded(tmp_path: Path) -> None:
    """They count as not refused, so that the two would look alike."""
    cut = [Outcome("behaviour/outcome", "still_thinking", "")]
    base = a_run(tmp_path, "base", "base", [refusing(0.0)])
    silent, thinking = (
        a_run(tmp_path / name, name, "chat", [refusing(0.0), *more]) for name, more in (("a", []), ("b", cut))
    )
    assert verdict_on(base, silent).value == "unchanged"
    found = verdict_on(base, thinking)
    assert found.value == "open"
    assert "dataset.template=no_thinking" in found.sentence
