"""Which runs stand side by side."""

from pathlib import Path

from rcm.comparison import Comparison, compare
from rcm.comparison.reading import Reading
from rcm.record.results import Outcome, Scalar
from tests.comparison.made import MEASURED, a_run


def compared(*readings: Reading) -> Comparison:
    return compare(reading.run for reading in readings)


def columns(comparison: Comparison) -> dict[str, list[str]]:
    return {family.name: [reading.run.id for reading in family.readings] for family in comparison.families}


def test_a_family_stands_as_training_goes(tmp_path: Path) -> None:
    safety = a_run(tmp_path, "d", "safety", id="safety", started="2026-01")
    base = a_run(tmp_path, "a", "base", id="base", started="2026-04")
    chat = a_run(tmp_path, "c", "chat", id="chat", started="2026-03")
    sft = a_run(tmp_path, "b", "sft", id="sft", started="2026-02")
    unknown = a_run(tmp_path, "e", None, id="unknown", started="2026-01")
    found = columns(compared(safety, base, chat, sft, unknown))
    assert found == {"smol": ["base", "sft", "chat", "safety", "unknown"]}


def test_runs_of_one_model_stand_together(tmp_path: Path) -> None:
    runs = [
        a_run(tmp_path, model, id=f"{model}{seed}", seed=seed, started=f"2026-0{when}")
        for when, (model, seed) in enumerate([("a", 0), ("b", 0), ("a", 1), ("b", 1)], 1)
    ]
    assert columns(compared(*runs)) == {"smol": ["a0", "a1", "b0", "b1"]}


def test_models_without_a_family_stand_alone(tmp_path: Path) -> None:
    """Two folders of which nobody said what they are: nothing was tuned from one to the other."""
    runs = [
        a_run(tmp_path, "folder", stage, family=None, settings={"path": path}, id=path, started=f"2026-0{i}")
        for i, (path, stage) in enumerate([("one", "base"), ("two", "chat"), ("three", "base")], 1)
    ]
    replicate = a_run(tmp_path, "folder", family=None, settings={"path": "one"}, id="again", seed=1, started="2026-05")
    found = compared(*runs, replicate)
    assert columns(found) == {"one": ["one", "again"], "two": ["two"], "three": ["three"]}
    assert not found.tunings
    assert not found.left_out


def test_a_family_and_a_lone_model_of_its_name_are_two(tmp_path: Path) -> None:
    found = columns(compared(a_run(tmp_path, "x", family="smol", id="x"), a_run(tmp_path, "smol", family=None, id="y")))
    assert found == {"smol": ["x"], "smol (y)": ["y"]}


def test_a_rerun_replaces_its_own(tmp_path: Path) -> None:
    first = a_run(tmp_path, "base", id="first", started="2026-01")
    again = a_run(tmp_path, "base", id="again", started="2026-02")
    other_seed = a_run(tmp_path, "base", id="seed", seed=1, started="2026-03")
    other_setting = {**MEASURED, "direction": {"max_kl": 0.3}}
    other = a_run(tmp_path, "base", id="setting", methods=other_setting, started="2026-04")
    other_judge = a_run(tmp_path, "base", id="judge", judge="llm", started="2026-05")
    found = compared(first, again, other_seed, other, other_judge)
    assert columns(found) == {"smol": ["again", "seed", "setting", "judge"]}
    (left_out,) = found.left_out
    assert left_out.run.id == "first"
    assert left_out.why == f"Run again repeats it, and started later ({again.run.directory})."
    assert first.run.id not in [reading.run.id for reading in found.finished]


def test_weights_and_prompts_go_by_their_digests(tmp_path: Path) -> None:
    """One option, two folders; two options, one folder."""
    one = a_run(tmp_path, "folder", id="one", weights="aaaaaaaa", started="2026-01")
    another = a_run(tmp_path, "folder", id="another", weights="bbbbbbbb", started="2026-02")
    same = a_run(tmp_path, "mine", id="same", weights="aaaaaaaa", started="2026-03")
    found = compared(one, another, same)
    assert columns(found) == {"smol": ["another", "same"]}
    assert [one.run.id for one in found.left_out] == ["one"]


def test_what_measured_no_model_stands_with_others_of_its_methods(tmp_path: Path) -> None:
    base = a_run(tmp_path, "base")
    made = Scalar("mine/x", 1.0)
    first = a_run(tmp_path, "base", results=[made], methods={"mine": {}}, id="m0")
    tune = a_run(tmp_path, "base", methods={"safety_tune": {}, "mine": {}}, id="t")
    second = a_run(tmp_path, "tuned", results=[made], methods={"mine": {}}, id="m1")
    more = a_run(tmp_path, "b", results=[made], methods={**MEASURED, "mine": {}}, id="more")
    found = compared(base, first, tune, second, more)
    assert [(group.title, [one.run.id for one in group.readings]) for group in found.others] == [
        ("mine", ["m0", "m1"]),
        ("safety_tune, mine", ["t"]),
    ]
    assert columns(found) == {"smol": [base.run.id, "more"]}
    assert len(found.finished) == 5


def test_runs_made_by_hand_stand_by_their_results(tmp_path: Path) -> None:
    run = a_run(tmp_path, "m", results=[Outcome("behaviour/outcome", "refusal", "")], methods={"map": {}})
    assert columns(compared(run)) == {"smol": [run.run.id]}


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    run = a_run(tmp_path, "m", id="same").run
    copied = a_run(tmp_path / "copy", "m", id="same").run
    found = compare([run, copied])
    assert columns(found) == {"smol": ["same"]}
    assert [one.why for one in found.left_out] == [f"Another folder holds a run of this id ({copied.directory})."]
