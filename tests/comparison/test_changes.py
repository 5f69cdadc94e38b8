"""What differs between two runs is found where it is planted, and not where there is nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test

from rcm.comparison.changes import ALPHA, changes, holm
from rcm.comparison.cosines import cosines
from rcm.comparison.reading import Comparison, Reading
from rcm.comparison.verdict import judged, tunings
from rcm.methods.transplant import COLUMNS as TRANSPLANT
from rcm.record.results import Outcome, Result, Scalar, Table, Tensors, Transcripts
from rcm.record.storage import Run, Store, stored_run
from rcm.report.changes import told
from rcm.report.transplants import matrix
from tests.conftest import tiny_model
from tests.planted import method, opening_judge, planted_prompts

N = 48


def said(refused: dict[str, np.ndarray], prefix: str = "") -> Transcripts:
    rows = [
        {"kind": kind, "prompt": f"{prefix}{kind} {i}", "completion": "", "verdict": "refusal" if hit else "compliance"}
        for kind, of_kind in refused.items()
        for i, hit in enumerate(of_kind)
    ]
    return Transcripts("behaviour/transcripts", rows)


def held_out(harmful: np.ndarray, harmless: np.ndarray, prefix: str = "") -> Table:
    sides = {"harmful": harmful, "harmless": harmless}
    rows = [
        (kind, f"{prefix}{i}", float(x), bool((x > 0) == (kind == "harmful")))
        for kind, side in sides.items()
        for i, x in enumerate(side)
    ]
    return Table("direction/held_out", ("kind", "prompt", "projection", "probe_correct"), rows)


def a_reading(folder: Path, name: str, stage: str, results: list[Result], method: str = "map") -> Reading:
    config: dict[str, Any] = {"model": {"family": "smol", "stage": stage}, "seed": 0}
    choices = {"model": name, "dataset": "pairs", "method": method, "judge": "calibrated"}
    run = Run(name, folder / f"{name}-{method}", choices, config, {"started": f"2026-01-0{1 + (stage != 'base')}"})
    run.directory.mkdir(parents=True)
    with Store(run) as store:
        for result in results:
            store.save(result)
    return Reading.of(stored_run(run.directory))


def random_run(
    folder: Path, name: str, stage: str, draw: np.random.Generator, distance: float, refuses: float
) -> Reading:
    """Projections this many standard deviations apart, and this share of harmful prompts refused."""
    refused = {"harmful": draw.random(N) < refuses, "harmless": draw.random(N) < 0.1}
    results = [said(refused), held_out(draw.standard_normal(N) + distance, draw.standard_normal(N))]
    return a_reading(folder, name, stage, results)


def test_what_was_planted_is_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    base, tuned = (
        random_run(tmp_path, "base", "base", draw, 0.5, 0.1),
        random_run(tmp_path, "tuned", "safety", draw, 3, 0.9),
    )
    found = {one.label: one for one in changes(base, tuned)}
    assert found["harmful prompts refused"].significant
    assert found["separation"].significant
    assert found["separation"].interval[0] > 1
    assert not found["harmless prompts refused"].significant
    assert found["harmful prompts refused"].n == N
    assert "safe lookalikes refused" not in found


def test_equal_models_are_rarely_told_apart(tmp_path: Path) -> None:
    """Of 40 pairs that differ by chance alone, one in twenty may show something: 2 are expected, 6 or more have a
    chance of 1.4 %."""
    draw = np.random.default_rng(0)
    alarms = 0
    for i in range(40):
        runs = [
            random_run(tmp_path / str(i), name, stage, draw, 2, 0.5) for name, stage in (("a", "base"), ("b", "chat"))
        ]
        alarms += any(one.significant for one in changes(*runs))
    assert alarms < 6


def test_other_prompts_are_exchanged_whole_and_fits_to_them_not_tested(tmp_path: Path) -> None:
    """At most 2 of 20 pairs may show something."""
    draw = np.random.default_rng(1)

    def run_of(folder: Path, seed: str) -> Reading:
        harmful, harmless = draw.standard_normal(N) + 2, draw.standard_normal(N)
        refused = {"harmful": harmful > 1.5, "harmless": harmless > 1.5}
        return a_reading(folder, seed, "base", [said(refused, seed), held_out(harmful, harmless, seed)])

    pairs = [(run_of(tmp_path / str(i), "0"), run_of(tmp_path / str(i), "1")) for i in range(20)]
    found = [changes(*pair) for pair in pairs]
    assert all(one.n is None for of in found for one in of)
    assert all([np.isnan(one.p) for one in of] == [False, False, True, True] for of in found)
    assert sum(any(one.significant for one in of) for of in found) <= 2
    explained = told(found[0]).said
    assert "Not asked the same prompts, so not compared within them: harmful prompts refused, harmless" in explained
    assert "Resting on fits, too, or without a value, and so not tested: separation, probe accuracy." in explained
    assert [row[4].text for row in told(found[0]).rows][2:] == ["–", "–"]


@pytest.mark.slow
def test_two_seeds_of_one_model_do_not_differ(tmp_path: Path) -> None:
    """A tiny model that opens its replies with `p` or not, as chance has it, on prompts drawn anew, measured as in a
    run; at most 2 of 20 pairs may show something."""
    model, judge = tiny_model(seed=1, batch_size=16), opening_judge("p")

    def run_of(seed: int) -> Reading:
        prompts = planted_prompts(seed, sizes=(1, 1, 48))
        return a_reading(
            tmp_path, str(seed), "base", [*method("behaviour", max_new_tokens=2).run(model, prompts, judge, seed)]
        )

    found = [changes(run_of(2 * i), run_of(2 * i + 1)) for i in range(20)]
    shares = np.array([[one.before for one in of] for of in found])
    assert shares.shape == (20, 2)
    assert (shares.std(0) > 0.02).all()  # chance has its part
    assert sum(any(one.significant for one in of) for of in found) <= 2


def test_the_p_value_is_that_of_an_exact_exchange(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    before, after = draw.random(N) < 0.4, draw.random(N) < 0.6
    quiet = {"harmless": np.zeros(N)}
    runs = [
        a_reading(tmp_path, str(i), "base", [said({"harmful": one} | quiet)]) for i, one in enumerate((before, after))
    ]
    change = next(one for one in changes(*runs) if one.label == "harmful prompts refused")
    slow = permutation_test(
        (after.astype(float), before.astype(float)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=5000,
        rng=0,
    )
    # Two figures were compared, of which the other has p = 1.
    assert change.p == pytest.approx(min(1, 2 * slow.pvalue), abs=0.03)
    differences = after.astype(float) - before
    assert change.d == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


# The verdict


def place(separation: float, vector: list[float], refuses: bool) -> list[Result]:
    value = "selected" if refuses else "no_refusal_behaviour"
    metadata = {"positions": "[-1]", "template_hash": "x", "model": "m"}
    shuffled = torch.randn(1, 3, 20, len(vector), generator=torch.Generator().manual_seed(len(value)))
    tensors = {"mean_difference": torch.tensor(vector)[None, None].repeat(1, 3, 1), "shuffled": shuffled}
    return [
        Outcome("direction/outcome", value, ""),
        Scalar("direction/position", -1),
        Scalar("direction/layer", 1),
        Scalar("direction/separation", separation, (separation - 0.5, separation + 0.5), N, 0.6, 2.0),
        Tensors("direction/directions", tensors, metadata),
    ]


def family(
    folder: Path, separation: float = 2.0, vector: float = 1.0, refuses: float = 0.9, grafted: str | None = None
) -> tuple[Reading, Reading, list[Reading]]:
    draw = np.random.default_rng(0)
    axis, other = np.eye(400)[:2]

    def refused(share: float) -> Transcripts:
        return said({"harmful": draw.random(N) < share, "harmless": np.zeros(N)})

    mixed = (vector * axis + (1 - vector) * other).tolist()
    base = a_reading(folder, "base", "base", [refused(0.1), *place(separation, mixed, refuses=False)])
    tuned = a_reading(folder, "tuned", "safety", [refused(refuses), *place(3.0, axis.tolist(), refuses=True)])
    figures = {"source": "base", "place": "this model's choice", "outcome": grafted, "cosine": 0.7, "cosine_null": 0.2}
    figures |= {"force": 0.9, "suppress": 0.8, "force_n": N, "suppress_n": N, "layer": 1}
    row = [figures.get(column, 0.1) for column in TRANSPLANT]
    others = [a_reading(folder, "tuned", "safety", [Table("transplant/matrix", TRANSPLANT, [row])], "transplant")]
    return base, tuned, others if grafted else []


@pytest.mark.parametrize(
    ("value", "planted"),
    [
        ("coupling", {}),
        ("representation", {"vector": 0.0}),
        ("behaviour", {"separation": 0.8}),
        ("unchanged", {"refuses": 0.1}),
        ("coupling", {"vector": 0.0, "grafted": "steers"}),  # what a transplant shows goes before a cosine
        ("representation", {"grafted": "nothing"}),
    ],
)
def test_the_verdict(tmp_path: Path, value: str, planted: dict[str, Any]) -> None:
    base, tuned, others = family(tmp_path, **planted)
    assert judged(base, tuned, changes(base, tuned), cosines(base, tuned), others).value == value


def test_the_verdict_says_what_it_rests_on(tmp_path: Path) -> None:
    base, tuned, others = family(tmp_path, grafted="steers")
    said_of_it = judged(base, tuned, changes(base, tuned), cosines(base, tuned), others).said
    for part in ("were refused before", "The base separates them by 2.00", "cosine is 0.7 (null 0.2)", "forces 90.0"):
        assert part in said_of_it


def test_cosines_are_those_of_the_mean_differences(tmp_path: Path) -> None:
    """Half of the base's direction is the tuned model's: at every layer, but for the null of 400 dimensions."""
    base, tuned, _ = family(tmp_path, vector=0.5)
    found = cosines(base, tuned)
    assert found is not None
    alike, null = (line.y for line in found.lines)
    assert alike == pytest.approx([0.5**0.5] * 3)
    tensors = [reading.run.tensors("direction/directions").tensors for reading in (base, tuned)]
    first, second = (of["mean_difference"][0, 1] for of in tensors)
    drawn = [
        *(torch.cosine_similarity(vector, second, dim=0).abs() for vector in tensors[0]["shuffled"][0, 1]),
        *(torch.cosine_similarity(first, vector, dim=0).abs() for vector in tensors[1]["shuffled"][0, 1]),
    ]
    assert null[1] == pytest.approx(float(torch.stack(drawn).quantile(0.95)))
    assert 0.05 < null[1] < 0.2  # two standard deviations of random vectors


def test_without_directions_of_one_shape_there_are_no_cosines(tmp_path: Path) -> None:
    _, tuned, _ = family(tmp_path)
    smaller = a_reading(tmp_path, "small", "base", place(2.0, [1.0] * 8, refuses=False))
    bare = a_reading(tmp_path, "bare", "base", [Scalar("direction/position", -1.0)])
    assert cosines(smaller, tuned) is None
    assert cosines(bare, tuned) is None
    assert cosines(tuned, bare) is None


def test_without_figures_the_verdict_is_open(tmp_path: Path) -> None:
    runs = [a_reading(tmp_path, name, stage, []) for name, stage in (("a", "base"), ("b", "chat"))]
    assert judged(*runs, [], None, []).value == "open"


def test_each_later_stage_is_held_against_the_first(tmp_path: Path) -> None:
    base, tuned, _ = family(tmp_path)
    third = replace(tuned, run=replace(tuned.run, id="third"))
    runs = [reading.run for reading in (base, tuned, third)]
    found = tunings(Comparison.of(runs))
    assert [(one.before.name, one.after.run.id) for one in found] == [("base", "tuned"), ("base", "third")]
    assert all(one.judged.value == "coupling" for one in found)
    assert all(
        change.p <= ALPHA for one in found for change in one.changes if change.label == "harmful prompts refused"
    )


def test_transplants_stand_in_rows(tmp_path: Path) -> None:
    _, _, others = family(tmp_path, grafted="steers")
    table = matrix(others)
    assert table is not None
    assert [cell.text for cell in table.rows[0]][:4] == ["base", "tuned", "steers", "90.0\N{NO-BREAK SPACE}%"]
    assert matrix([]) is None


def test_of_two_transplants_the_later_stands(tmp_path: Path) -> None:
    _, _, earlier = family(tmp_path / "earlier", grafted="nothing")
    _, _, later = family(tmp_path / "later", grafted="steers")
    table = matrix([*earlier, *later])
    assert table is not None
    assert [[cell.text for cell in row][:3] for row in table.rows] == [["base", "tuned", "steers"]]
    other = [replace(one, run=replace(one.run, config={**one.run.config, "seed": 1})) for one in earlier]
    table = matrix([*other, *later])
    assert table is not None
    assert sorted(row[2].text for row in table.rows) == ["nothing", "steers"]  # another seed is another run


def test_a_figure_without_a_value_is_not_tested(tmp_path: Path) -> None:
    """Projections that do not vary within a class have no separation in standard deviations."""
    flat = held_out(np.zeros(N), np.zeros(N))
    runs = [a_reading(tmp_path, name, "base", [flat]) for name in ("a", "b")]
    found = {one.label: one for one in changes(*runs)}
    assert np.isnan(found["separation"].difference)
    assert np.isnan(found["separation"].p)
    assert not found["separation"].significant
