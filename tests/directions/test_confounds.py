"""A probe is called readable where it beats words and length, and not where it merely does as well, or nothing is."""

from collections.abc import Sequence

import numpy as np
import pytest

from rcm.directions.confounds import OF_TEXTS, Readers
from rcm.directions.held_out import Place, clusters, probe_accuracies_of_null
from rcm.prompts import Part, Prompt
from rcm.record.results import SHUFFLED_LABELS, Null, Outcome

WIDTH, CATEGORIES = 8, [f"category {i}" for i in range(6)]
FILLER = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def part(n: int, draw: np.random.Generator, harmful: Sequence[str] = (), harmless: Sequence[str] = ()) -> Part:
    """Twelve random words a prompt, and one more of each class; categories in turn."""

    def side(own: Sequence[str]) -> tuple[Prompt, ...]:
        chosen = [[*draw.choice(FILLER, 12), *draw.choice(own or FILLER, 1)] for _ in range(n)]
        return tuple(Prompt(" ".join(draw.permutation(c)), CATEGORIES[i % 6]) for i, c in enumerate(chosen))

    return Part(side(harmful), side(harmless))


def activations(n: int, apart: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    harmful, harmless = draw.standard_normal((2, n, WIDTH))
    harmful[:, 0] += apart
    return harmful, harmless


def read(apart: float, seed: int = 0, n: tuple[int, int] = (48, 48), **words: Sequence[str]) -> tuple[Readers, Place]:
    draw = np.random.default_rng(seed)
    train, test = (part(size, draw, **words) for size in n)
    place = Place(activations(n[0], apart, draw), activations(n[1], apart, draw))
    return Readers.of(place, train, test, clusters(test)), place


def concluded(apart: float, **words: Sequence[str]) -> Outcome:
    readers, place = read(apart, **words)
    accuracy = float(readers.by_name["probe"].correct.mean())
    null = Null.of_draws(probe_accuracies_of_null(place, 40, 0), SHUFFLED_LABELS, figure=accuracy)
    return readers.conclusion(null)


TELLING = {"harmful": ["bomb", "steal"], "harmless": ["cake", "stroll"]}


def test_activations_that_tell_more_than_words_are_readable() -> None:
    assert concluded(4.0).value == "readable"


@pytest.mark.parametrize("apart", [4.0, 1.5])
def test_where_words_alone_tell_as_much_it_is_confounded(apart: float) -> None:
    outcome = concluded(apart, **TELLING)
    assert outcome.value == "confounded"
    assert "learned from the same 96 prompts" in outcome.because


def test_activations_that_tell_nothing_are_not_readable() -> None:
    assert concluded(0.0).value == "not_readable"
    assert concluded(0.0, **TELLING).value == "not_readable"


def test_length_alone_is_found() -> None:
    draw = np.random.default_rng(0)

    def of_length(words: int) -> tuple[Prompt, ...]:
        return tuple(Prompt(" ".join(draw.choice(FILLER, words + i % 3)), "") for i in range(24))

    parts = [Part(of_length(12), of_length(6)) for _ in range(2)]
    place = Place(activations(24, 0.0, draw), activations(24, 0.0, draw))
    readers = Readers.of(place, *parts, clusters(parts[1]))
    assert readers.by_name["length"].correct.all()
    assert readers.by_name["length"].new_category is None
    assert not readers.by_name["probe"].correct.all()


def test_signs_are_words_too() -> None:
    assert read(0.0, harmful=["?"], harmless=["."])[0].by_name["words"].correct.all()


def test_a_reader_of_categories_fails_in_a_new_one() -> None:
    """Each category has its own axis for harm: known ones are told apart perfectly, a new one by chance."""
    draw = np.random.default_rng(0)

    def classes(part: Part) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for sign, side in zip((1, -1), part, strict=True):
            noise = 0.3 * draw.standard_normal((len(side), WIDTH))
            axes = np.array([CATEGORIES.index(prompt.category) for prompt in side])
            noise[np.arange(len(side)), axes] += 3 * sign * np.where(axes % 2, 1, -1)
            found.append(noise)
        return found[0], found[1]

    train, test = part(60, draw), part(60, draw)
    readers = Readers.of(Place(classes(train), classes(test)), train, test, clusters(test))
    probe = readers.by_name["probe"]
    assert probe.correct.mean() > 0.95
    assert probe.new_category.mean() < 0.7
    general = read(6.0)[0].by_name["probe"]
    assert general.new_category.mean() > 0.95


def test_a_model_that_knows_no_more_than_words_is_seldom_called_readable() -> None:
    """Probe and words are right equally often, on prompts of their own: the claim would be false."""
    readers, draw = read(0.0)[0], np.random.default_rng(0)
    for of in (readers, readers._replace(clusters=())):
        readable = [_redrawn(of, draw).hardest[1].low > 0 for _ in range(400)]
        assert np.mean(readable) <= 0.05


def _redrawn(readers: Readers, draw: np.random.Generator) -> Readers:
    """All readers are right on 80 % of the prompts, each on its own."""
    n = len(readers.harmful)
    texts = draw.random(n) < 0.8
    reads = [one._replace(correct=texts if one.reader in OF_TEXTS else draw.random(n) < 0.8) for one in readers.reads]
    return readers._replace(reads=reads)


def test_every_reader_stands_in_the_table() -> None:
    table = read(2.0)[0].table()
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert {row["reader"] for row in rows} == {"probe", "mean difference", *OF_TEXTS}
    assert {row["training_prompts"] for row in rows} == {96}
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    assert all(0 <= row["new_category"] <= 1 and 0 <= row["auroc"] <= 1 for row in rows)
    separation = {row["reader"]: row["separation"] for row in rows}
    assert separation["probe"] == pytest.approx(2, abs=0.7)
    assert abs(separation["words"]) < 1
