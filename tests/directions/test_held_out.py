"""Intervals of a place rest on categories where there are some; what is no place has no more than chance."""

import numpy as np
import pytest

from rcm.directions.held_out import Place, clusters, held_out_auroc, held_out_separation, probe_accuracies_of_null
from rcm.directions.readability import separability
from rcm.prompts import Part, Prompt
from tests.planted import method, planted_model, planted_prompts, reported

WIDTH = 64


def place(n: int, apart: float, seed: int = 0) -> Place:
    draw = np.random.default_rng(seed)

    def classes() -> tuple[np.ndarray, np.ndarray]:
        harmful, harmless = draw.standard_normal((2, n, WIDTH))
        return harmful + apart * np.eye(WIDTH)[0], harmless

    return Place(classes(), classes())


def in_categories(n: int, categories: int) -> Part:
    side = tuple(Prompt(f"prompt {i}", f"category {i % categories}") for i in range(n))
    return Part(side, side)


def test_what_is_there_exceeds_its_null_and_what_is_not_does_not() -> None:
    for figure in (held_out_separation, held_out_auroc):
        found = figure(place(40, 3.0), (), 100, 0)
        assert found.null is not None
        assert found.interval is not None
        assert found.interval[0] > found.null.value
        assert found.null.p < 0.05
        nothing = figure(place(40, 0.0), (), 100, 0)
        assert nothing.value < nothing.null.value
        assert nothing.interval[0] < nothing.null.value


def test_intervals_are_by_category() -> None:
    """Categories that differ widen them; without categories they are those of prompts."""
    part = in_categories(48, 6)
    names = np.array([int(prompt.category[-1]) for prompt in part.harmful])
    one = place(48, 2.0)
    harmful = one.test[0] + 1.5 * np.eye(WIDTH)[0] * np.where(names % 2, 1, -1)[:, None]
    mixed = Place(one.train, (harmful, one.test[1]))
    widths = []
    for categories in (clusters(part), ()):
        low, high = held_out_separation(mixed, categories, 20, 0).interval
        widths.append(high - low)
    assert widths[0] > 1.5 * widths[1]
    assert held_out_separation(place(4, 2.0), (), 20, 0).interval is None


def test_perfectly_apart_has_no_interval_of_no_width() -> None:
    found = held_out_auroc(place(48, 30.0), clusters(in_categories(48, 6)), 20, 0)
    assert found.value == 1
    assert found.interval is None


def test_a_class_in_one_category_has_none() -> None:
    harmful, harmless = in_categories(12, 6)
    assert len(set(clusters(Part(harmful, harmless)))) == 6
    assert clusters(Part(harmful, tuple(one._replace(category="safe") for one in harmless))) == ()


def test_probes_of_shuffled_labels_are_at_chance() -> None:
    drawn = probe_accuracies_of_null(place(40, 3.0), 30, 0)
    assert len(drawn) == 30
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)


def test_separability_covers_what_is_true() -> None:
    """Of known directions, in new samples of prompts: nineteen times in twenty, with categories and without."""
    covered = np.zeros((2, 200), dtype=bool)
    for i in range(200):
        for row, categories in enumerate((clusters(in_categories(48, 12)), ())):
            found = separability(activations(i), np.eye(3)[0], categories)
            covered[row, i] = found.low < 1.5 < found.high
    assert (covered.mean(1) >= 0.91).all()


def activations(seed: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed).standard_normal((2, 48, 3)).astype(np.float32)
    noise[0, :, 0] += 1.5
    return noise[0], noise[1]


def test_the_method_reports_them_of_every_place() -> None:
    found = reported(method("direction"), planted_model(), planted_prompts())
    table = found["direction/separability"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["position"], row["layer"]) for row in rows] == [(-1, layer) for layer in range(6)]
    assert rows[3]["separation"] == pytest.approx(found["direction/separation"].value)
    assert all(row["separation_low"] <= row["separation"] <= row["separation_high"] for row in rows)
    assert rows[0]["separation"] == 0
