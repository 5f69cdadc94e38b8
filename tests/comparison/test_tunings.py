"""Which runs are compared with which, what is left out, and why."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rcm.comparison import Comparison, compare
from rcm.comparison.changes import ALPHA
from rcm.comparison.reading import Reading
from rcm.record.results import Tensors
from tests.comparison.made import MEASURED, a_run, decomposition, matrix, measured, twins


def compared(*readings: Reading) -> Comparison:
    return compare(reading.run for reading in readings)


def pairs(comparison: Comparison) -> list[list[tuple[str, str]]]:
    return [[(pair.before.run.id, pair.after.run.id) for pair in one.pairs] for one in comparison.tunings]


def why(comparison: Comparison) -> dict[str, str]:
    return {one.run.id: one.why for one in comparison.left_out}


def base(folder: Path, id: str = "base", **changed: Any) -> Reading:
    return a_run(folder, "base", "base", measured(0.1), id=id, **changed)


def tuned(folder: Path, id: str = "tuned", model: str = "tuned", stage: str = "safety", **changed: Any) -> Reading:
    return a_run(folder, model, stage, measured(0.9), id=id, **changed)


def brought_into(
    folder: Path, source: Reading, along: float, seed: int = 0, model: str = "tuned", **changed: Any
) -> Reading:
    """The source's direction in the tuned model."""
    results = [matrix(source, "steers"), decomposition(source, along)]
    id = f"into-{source.run.id}"
    return a_run(folder, model, "safety", results, methods={"transplant": {}}, seed=seed, id=id, **changed)


def test_each_later_model_is_held_against_the_first(tmp_path: Path) -> None:
    first, second, _ = twins(tmp_path)
    third = tuned(tmp_path, "third", "third", started="2026-02")
    found = compared(first, second, third)
    assert [(one.before.name, one.after.name, one.name) for one in found.tunings] == [
        ("base", "tuned", "base → tuned"),
        ("base", "third", "base → third"),
    ]
    assert all("was not decomposed" in one.verdict.sentence for one in found.tunings)
    assert all(
        change.p <= ALPHA
        for one in found.tunings
        for change in one.changes
        if change.label == "harmful prompts refused"
    )
    assert all(one.cosines is one.pairs[0].cosines is not None for one in found.tunings)


def test_models_that_were_asked_in_other_words_are_not_concluded_from(tmp_path: Path) -> None:
    """A base without a chat template, in plain text, beside its tuned twin in its template."""
    plain = [
        replace(one, metadata={**one.metadata, "template": "plain", "template_hash": "y"})
        if isinstance(one, Tensors)
        else one
        for one in measured(0.1)
    ]
    runs = [a_run(tmp_path, "base", results=plain, id="base"), tuned(tmp_path)]
    (one,) = compared(*runs, brought_into(tmp_path, runs[0], 1.0)).tunings
    assert one.verdict.value == "open"
    assert "The two models were asked under different templates" in one.verdict.sentence
    assert "run both with the same dataset.template, of:LATER" in one.verdict.sentence
    alike = base(tmp_path / "alike")
    (other,) = compared(alike, runs[1], brought_into(tmp_path / "alike", alike, 1.0)).tunings
    assert other.verdict.value == "coupling"


def test_three_seeds_of_the_base_and_two_of_the_tuned(tmp_path: Path) -> None:
    """Each seed is compared with its own; never two runs of the base with each other."""
    bases = [base(tmp_path, f"b{seed}", seed=seed) for seed in range(3)]
    later = [tuned(tmp_path, f"t{seed}", "smol-refusal", seed=seed) for seed in (0, 1)]
    found = compared(
        *later, *bases, *(brought_into(tmp_path, bases[seed], 1.0, seed, model="smol-refusal") for seed in (0, 1))
    )
    assert pairs(found) == [[("b0", "t0"), ("b1", "t1")]]
    assert [pair.seed for pair in found.tunings[0].pairs] == [0, 1]
    assert why(found) == {
        "b2": "No run of smol-refusal with seed 2 on these prompts; run model=smol-refusal dataset=pairs seed=2."
    }
    (one,) = found.tunings
    assert one.verdict.value == "coupling"
    assert one.verdict.evidence[0] == (
        "All 2 pairs of runs say so; the figures that follow are those of runs b0 and t0 (seed 0)."
    )
    assert not found.warnings  # seeds that differ between replicates are none


def test_a_seed_that_only_the_tuned_model_has(tmp_path: Path) -> None:
    found = compared(base(tmp_path), tuned(tmp_path), tuned(tmp_path, "t7", seed=7))
    assert why(found) == {"t7": "No run of base with seed 7 on these prompts; run model=base dataset=pairs seed=7."}


def test_other_prompts_are_not_compared(tmp_path: Path) -> None:
    found = compared(base(tmp_path, data="aaaaaaaa"), tuned(tmp_path, data="bbbbbbbb"))
    assert not found.tunings
    assert set(why(found)) == {"base", "tuned"}


def test_how_many_prompts_are_used_tells_no_data_apart(tmp_path: Path) -> None:
    found = compared(base(tmp_path, dataset={"test": 48}), tuned(tmp_path, dataset={"test": 96}))
    assert pairs(found) == [[("base", "tuned")]]
    assert "they differ in dataset.test (48 before, 96 after)." in found.tunings[0].verdict.sentence


def test_seeds_that_disagree_leave_it_open(tmp_path: Path) -> None:
    runs = [base(tmp_path, f"b{seed}", seed=seed) for seed in (0, 1)]
    refusing = tuned(tmp_path, "t0", seed=0)
    answering = a_run(tmp_path, "tuned", "safety", measured(0.1), id="t1", seed=1)
    (one,) = compared(*runs, refusing, answering, brought_into(tmp_path, runs[0], 1.0)).tunings
    assert [pair.verdict.value for pair in one.pairs] == ["coupling", "unchanged"]
    assert one.verdict.value == "open"
    assert one.verdict.sentence == (
        "Its runs do not agree on what tuning changed. Coupling: runs b0 and t0 (seed 0). Unchanged: runs b1 and t1 "
        "(seed 1)."
    )


def test_of_a_sweep_equal_settings_belong_together(tmp_path: Path) -> None:
    def settings(max_kl: float) -> dict[str, Any]:
        return {**MEASURED, "direction": {"max_kl": max_kl}}

    runs = [base(tmp_path, f"b{kl}", methods=settings(kl)) for kl in (0.1, 0.2, 0.3)]
    runs += [tuned(tmp_path, f"t{kl}", methods=settings(kl)) for kl in (0.3, 0.1)]
    found = compared(*runs)
    assert pairs(found) == [[("b0.1", "t0.1"), ("b0.3", "t0.3")]]
    assert why(found) == {
        "b0.2": "Run b0.1 of the same model, prompts and seed was compared with tuned (t0.1) instead, as no run of "
        "tuned has this one's method.direction.max_kl; run model=tuned with the same."
    }


def test_without_equal_settings_the_likest_and_latest_are_compared_and_it_is_said(tmp_path: Path) -> None:
    behaviour = {"behaviour": MEASURED["behaviour"]}
    other = {**MEASURED, "direction": {"max_kl": 0.3}}
    runs = [
        base(tmp_path, "old", started="2026-01"),
        base(tmp_path, "judge", judge="llm", started="2026-03"),
        base(tmp_path, "new", methods={**MEASURED, "direction": {"max_kl": 0.2}}, started="2026-02"),
        a_run(tmp_path, "base", "base", measured(0.1)[:1], id="part", methods=behaviour, started="2026-04"),
        tuned(tmp_path, methods=other, started="2026-05"),
    ]
    found = compared(*runs)
    assert pairs(found) == [[("new", "tuned")]]
    assert found.tunings[0].verdict.evidence[-1] == (
        "The two runs did not measure alike: they differ in method.direction.max_kl (0.2 before, 0.3 after)."
    )
    assert set(why(found)) == {"old", "judge", "part"}


def test_of_several_base_models_the_one_with_the_same_seeds_is_the_reference(tmp_path: Path) -> None:
    half = {"dtype": "bfloat16"}
    runs = [
        base(tmp_path, "full", settings={"dtype": "float32"}, started="2026-01"),
        base(tmp_path, "half", settings=half, started="2026-02"),
        a_run(tmp_path, "trained", "base", measured(0.1), id="trained", settings={**half, "adapter": "a/b"}),
        base(tmp_path, "revised", settings={"dtype": "float32", "revision": "v2"}, seed=5, started="2026-01"),
        tuned(tmp_path, "t", settings=half),
        tuned(tmp_path, "t5", model="five", settings=half, seed=5),
    ]
    found = compared(*runs)
    assert pairs(found) == [[("half", "t")], [("revised", "t5")]]
    assert why(found)["full"] == (
        "Family smol has several models of stage base; later ones are held against base (half) and base@v2 (revised); "
        "to compare base with what came of it, give both another model.family."
    )
    assert set(why(found)) == {"full", "trained"}


def test_equal_weights_under_another_stage_are_no_tuning(tmp_path: Path) -> None:
    one = base(tmp_path, weights="aaaaaaaa")
    relabelled = a_run(tmp_path, "base", "chat", measured(0.1), id="relabelled", weights="aaaaaaaa")
    found = compared(one, relabelled)
    assert not found.tunings
    assert why(found)["relabelled"] == (
        "Stage chat of family smol has the same weights as stage base (base, run base), so nothing was tuned; correct "
        "model.stage, or choose other weights."
    )
    assert set(why(found)) == {"base", "relabelled"}
    assert pairs(compared(one, relabelled, tuned(tmp_path))) == [[("base", "tuned")]]


def test_one_stage_alone_leaves_nothing_out(tmp_path: Path) -> None:
    found = compared(base(tmp_path, "b0"), base(tmp_path, "b1", seed=1))
    assert (found.tunings, found.left_out) == ([], [])


def test_the_cure_names_what_tells_the_model_apart(tmp_path: Path) -> None:
    later = tuned(tmp_path, model="folder", settings={"path": "/m/x", "adapter": "runs/a/step-0040"})
    found = compared(base(tmp_path, seed=1), later)
    assert why(found)["base"] == (
        "No run of x + step-0040 with seed 1 on these prompts; run model=folder model.path=/m/x "
        "model.adapter=runs/a/step-0040 dataset=pairs seed=1."
    )


def test_a_transplant_of_the_same_seed_decides(tmp_path: Path) -> None:
    runs = [base(tmp_path, f"b{seed}", seed=seed) for seed in (0, 1)]
    runs += [tuned(tmp_path, f"t{seed}", seed=seed) for seed in (0, 1)]
    brought = [brought_into(tmp_path, runs[seed], along, seed) for seed, along in ((0, 1.0), (1, 0.0))]
    (one,) = compared(*runs, *brought).tunings
    assert [pair.verdict.value for pair in one.pairs] == ["coupling", "representation"]


@pytest.mark.parametrize("stage", ["base", "sft", "chat"])
def test_what_safety_tuning_changed_is_held_against_the_benign_twin(tmp_path: Path, stage: str) -> None:
    """The benign twin stands beside the base, whatever was done to that before, and the refusing one is held against
    both."""
    first, later = a_run(tmp_path, "base", stage, measured(0.1), id="base"), tuned(tmp_path)
    benign = a_run(tmp_path, "benign", "benign", measured(0.1), id="benign")
    both = [matrix(first, "steers"), matrix(benign, "steers")]
    rows = [row for source in (first, benign) for row in decomposition(source, 0.0).rows]
    brought = a_run(
        tmp_path,
        "tuned",
        "safety",
        [
            replace(both[0], rows=[row for one in both for row in one.rows]),
            replace(decomposition(first, 0.0), rows=rows),
        ],
        methods={"transplant": {}},
    )
    found = compared(first, benign, later, brought)
    verdicts = {one.name: one.verdict for one in found.tunings}
    assert {name: one.value for name, one in verdicts.items()} == {
        "base → benign": "unchanged",
        "base → tuned": "representation",
        "benign → tuned": "representation",
    }
    assert "It is the same held against benign" in verdicts["base → tuned"].sentence
    # Without what the benign twin's direction does in the tuned model nothing is concluded.
    alone = brought_into(tmp_path, first, 0.0, started="2026-04")
    verdicts = {one.name: one.verdict for one in compared(first, benign, later, alone).tunings}
    assert verdicts["base → tuned"].value == "open"


@pytest.mark.parametrize("side", [0, 1])
def test_damaged_directions_cost_the_cosines_alone(tmp_path: Path, side: int) -> None:
    runs = base(tmp_path), tuned(tmp_path)
    (runs[side].run.directory / "direction_directions.safetensors").write_bytes(b"no tensors")
    (one,) = compared(*runs).tunings
    assert one.cosines is None
    assert one.verdict.value == "open"
    assert "cannot be read" in one.verdict.evidence[-1]
