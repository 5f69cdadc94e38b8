"""Results by name, settings by path, and why something is missing."""

from pathlib import Path

from rcm.comparison.reading import NOT_RUN
from rcm.record.results import Outcome, Scalar, Table
from tests.comparison.made import a_run


def test_what_is_missing_says_why_whatever_the_method(tmp_path: Path) -> None:
    """The outcome of the step says it, of any method, also of one that nobody knows."""
    stopped = Outcome("mine/outcome", "nothing_to_do", "There is nothing to do.", complete=False)
    ended = Outcome("yours/outcome", "none", "None was found.")
    reading = a_run(
        tmp_path, "m", results=[stopped, ended, Scalar("behaviour/rate", 1)], methods={"mine": {}, "quiet": {}}
    )
    assert reading.why_without("mine/rate") == "There is nothing to do."
    assert reading.why_without("yours/rate") == ""  # it came to its figures, of which this is none
    assert reading.why_without("quiet/rate") == ""  # it ran
    assert reading.why_without("behaviour/other") == ""  # so did this: it reported something
    assert reading.why_without("theirs/rate") == NOT_RUN


def test_results_come_by_name_and_kind(tmp_path: Path) -> None:
    table = Table("mine/rows", ("a", "b"), [(1, 2), (3, 4)])
    reading = a_run(tmp_path, "m", results=[table, Scalar("mine/x", 1.0), Outcome("mine/outcome", "yes", "")])
    assert reading.rows("mine/rows") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert reading.rows("mine/none") == []
    assert reading.scalar("mine/rows") is None
    assert reading.outcome("mine/outcome") is not None
    assert [one.name for one in reading.every(Scalar)] == ["mine/x"]
    assert reading.reporting == {"mine"}


def test_settings_have_a_path(tmp_path: Path) -> None:
    reading = a_run(tmp_path, "m", methods={"direction": {"max_kl": 0.1}})
    assert reading.setting("method", "direction", "max_kl") == 0.1
    assert reading.setting("method", "steering", "strengths") is None
    assert reading.setting("seed", "further") is None


def test_a_model_is_called_by_what_tells_it_apart(tmp_path: Path) -> None:
    assert a_run(tmp_path, "smol").name == "smol"
    tuned = a_run(tmp_path, "smol", settings={"adapter": "runs/a/step-0040"}, id="tuned")
    assert tuned.name == "smol + step-0040"
    assert a_run(tmp_path, "folder", settings={"path": "x/my-model"}, id="mine").name == "my-model"
