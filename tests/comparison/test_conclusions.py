"""All conclusions together: the same for the same runs, and not lost over an odd one."""

import random
from pathlib import Path

import pytest

from rcm.comparison import compare
from rcm.comparison.comparison_json import as_json
from rcm.errors import InputError
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_runs
from tests.comparison.made import a_run, measured, twins


def test_the_order_in_which_runs_are_given_changes_nothing(tmp_path: Path) -> None:
    base, tuned, others = twins(tmp_path, along=1.0)
    seeds = [a_run(tmp_path, model, stage, measured(0.1), seed=3) for model, stage in (("base", "base"), ("x", "chat"))]
    runs = [reading.run for reading in (base, tuned, *others, *seeds)]
    expected = as_json(compare(runs))
    draw = random.Random(0)
    for _ in range(3):
        assert as_json(compare(draw.sample(runs, len(runs)))) == expected


def test_nothing_gives_nothing() -> None:
    found = compare([])
    assert (found.compared, found.finished, found.unfinished, found.tunings, found.warnings) == ([], [], [], [], [])


def test_unfinished_runs_are_kept_apart(tmp_path: Path) -> None:
    run = a_run(tmp_path, "m").run
    (run.directory / "metrics.json").unlink()
    found = compare(stored_runs(tmp_path))
    assert [one.status for one in found.unfinished] == ["started"]
    assert not found.finished


def test_a_failed_run_is_unfinished(tmp_path: Path) -> None:
    run = Run("m", tmp_path / "m", {"model": "m"}, {"model": {}}, {"started": "2026"})
    run.directory.mkdir()
    with pytest.raises(InputError), Store(run):
        raise InputError("There is no such file.")
    found = compare(stored_runs(tmp_path))
    assert [one.error for one in found.unfinished] == ["There is no such file."]


def test_one_odd_run_does_not_cost_the_others_theirs(tmp_path: Path) -> None:
    base, tuned, _ = twins(tmp_path)
    odd = a_run(tmp_path, "odd", id="odd").run
    (odd.directory / "results.jsonl").write_text('{"kind": "hologram", "name": "x", "files": []}\n')
    found = compare([odd, base.run, tuned.run])
    assert len(found.tunings) == 1
    (left_out,) = found.left_out
    assert left_out.run.id == "odd"
    assert "hologram" in left_out.why
    assert left_out.why.endswith("run it again with rerun=true.")
