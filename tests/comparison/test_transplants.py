"""Transplants are found by what was measured, not by what it was called."""

from pathlib import Path

from rcm.comparison import compare
from rcm.comparison.transplants import all_transplants, latest_transplants, transplanted
from tests.comparison.made import a_run, matrix, twins

TRANSPLANT = {"transplant": {}}


def test_a_transplant_tells_source_and_target(tmp_path: Path) -> None:
    base, tuned, others = twins(tmp_path, along=1.0)
    (one,) = compare(reading.run for reading in (base, tuned, *others)).transplants
    assert (one.source, one.source_run, one.target.name) == ("base", base.run.id, "tuned")
    assert (one.row["outcome"], one.row["force"]) == ("steers", 0.9)
    assert not compare([base.run, tuned.run]).transplants


def test_of_two_transplants_the_later_stands(tmp_path: Path) -> None:
    base, tuned, earlier = twins(tmp_path / "earlier", along=0.0)
    later = a_run(tmp_path, "tuned", "safety", [matrix(base, "steers")], methods=TRANSPLANT, started="2026-03")
    found = latest_transplants(all_transplants([later, base, tuned, *earlier]))
    assert [(one.source, one.target.name, one.row["outcome"]) for one in found] == [("base", "tuned", "steers")]
    other = a_run(tmp_path, "tuned", "safety", [matrix(base, "nothing")], methods=TRANSPLANT, seed=1)
    found = latest_transplants(all_transplants([later, base, tuned, other]))
    assert sorted(one.row["outcome"] for one in found) == ["nothing", "steers"]  # another seed is another run


def test_sources_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Two folders called `model`: neither stands for the other."""
    first = a_run(tmp_path, "model", "base", weights="aaaaaaaa", id="first")
    second = a_run(tmp_path, "model", "base", weights="bbbbbbbb", id="second")
    target = a_run(tmp_path, "tuned", "safety", weights="cccccccc")
    into = {"stage": "safety", "methods": TRANSPLANT, "weights": "cccccccc"}
    found = all_transplants(
        [
            *(first, second, target),
            a_run(tmp_path, "tuned", results=[matrix(first, "steers")], id="x", **into),
            a_run(tmp_path, "tuned", results=[matrix(second, "nothing")], id="y", **into),
        ]
    )
    assert len(latest_transplants(found)) == 2
    for source, outcome in ((first, "steers"), (second, "nothing")):
        one = transplanted(source, target, found)
        assert one is not None
        assert one.row["outcome"] == outcome
    assert transplanted(target, first, found) is None


def test_another_run_of_the_source_counts_and_another_seed_of_the_target_does_not(tmp_path: Path) -> None:
    first = a_run(tmp_path, "base", id="first")
    again = a_run(tmp_path, "base", id="again", seed=1)
    target = a_run(tmp_path, "tuned", "safety")
    brought = a_run(tmp_path, "tuned", "safety", [matrix(first, "steers")], methods=TRANSPLANT)
    found = all_transplants([first, again, target, brought])
    assert transplanted(first, target, found) is not None
    assert transplanted(again, target, found) is not None
    assert transplanted(first, a_run(tmp_path, "tuned", "safety", seed=1), found) is None


def test_a_source_whose_run_is_gone_is_shown_and_decides_nothing(tmp_path: Path) -> None:
    _, tuned, others = twins(tmp_path, along=1.0)
    found = all_transplants([tuned, *others])
    assert [one.source for one in latest_transplants(found)] == ["base"]
    namesake = a_run(tmp_path / "other", "base", weights="dddddddd", id="namesake")
    assert transplanted(namesake, tuned, found) is None
