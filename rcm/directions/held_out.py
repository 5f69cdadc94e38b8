"""Figures of one place on test prompts, which nothing has seen, with intervals and with what chance reaches.

Intervals rest on whole categories where the prompts have them, for prompts of a category resemble each other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rcm.directions import fit as fit
from rcm.directions.fit import Activations, Vector, random_directions
from rcm.prompts import Part
from rcm.record.results import RANDOM_DIRECTIONS, SHUFFLED_LABELS, Null
from rcm.stats import FEWEST_DRAWS, Interval, Samples, Statistic, bootstrap, by_cluster
from rcm.stats.separability import auroc, separation


class Figure(NamedTuple):
    """A figure with its 95 % interval, if it has one, and the null that is harder to exceed."""

    value: float
    interval: Interval | None
    null: Null | None


class Place(NamedTuple):
    """Training and test activations at one position and layer."""

    train: tuple[Activations, Activations]
    test: tuple[Activations, Activations]

    @property
    def direction(self) -> Vector:
        return fit.mean_difference(*self.train)

    def shuffled(self, random: np.random.Generator) -> "Place":
        """Labels drawn anew in both parts: the whole procedure where "harmful" means nothing."""
        return Place(*(_shuffled(classes, random) for classes in self))


def clusters(part: Part) -> tuple[str, ...]:
    """The category of each prompt, harmful ones first; none where without one category hardly a prompt of a class
    were left, so that it cannot be left out."""
    for prompts in part:
        if any(sum(one.category != left_out for one in prompts) < 2 for left_out in {one.category for one in prompts}):
            return ()
    return tuple(prompt.category for prompts in part for prompt in prompts)


def held_out_separation(place: Place, categories: Sequence[str], draws: int, seed: int) -> Figure:
    """Separation of the test prompts in sigma. Null: shuffled labels, and random directions, whichever is higher."""
    return _projected(place, separation, categories, draws, seed)


def held_out_auroc(place: Place, categories: Sequence[str], draws: int, seed: int) -> Figure:
    """AUROC of the test prompts. Null as for the separation."""
    value, interval, null = _projected(place, auroc, categories, draws, seed)
    return Figure(value, interval and (max(0.0, interval[0]), min(1.0, interval[1])), null)


def probe_accuracies_of_null(place: Place, draws: int, seed: int) -> Float[np.ndarray, " draw"]:
    """Test accuracies of probes that learned shuffled labels. A probe takes a hundred times as long to fit as a mean
    difference, so there are no more than a percentile needs."""
    random = np.random.default_rng(seed)
    drawn = (place.shuffled(random) for _ in range(min(draws, FEWEST_DRAWS)))
    with fit.on_one_thread():
        return np.array([fit.correct(fit.probe(*one.train), *one.test).mean() for one in drawn])


def indexed(statistic: Statistic, harmful: Samples, harmless: Samples) -> Callable[[Int[np.ndarray, " _"]], float]:
    """The statistic of the prompts with some indices, harmful ones first."""
    both, n = np.concatenate([harmful, harmless]), len(harmful)
    return lambda index: statistic(both[index[index < n]], both[index[index >= n]])


def _projected(place: Place, statistic: Statistic, categories: Sequence[str], draws: int, seed: int) -> Figure:
    harmful, harmless = (activations @ place.direction for activations in place.test)
    value, random = statistic(harmful, harmless), np.random.default_rng(seed)
    shuffled = [_score(drawn.direction, drawn, statistic) for drawn in (place.shuffled(random) for _ in range(draws))]
    chance = [_score(vector, place, statistic) for vector in random_directions(draws, len(place.direction), seed)]
    nulls = [
        Null.of_draws(np.array(drawn), of, figure=value)
        for of, drawn in ((SHUFFLED_LABELS, shuffled), (RANDOM_DIRECTIONS, chance))
    ]
    interval = by_cluster(indexed(statistic, harmful, harmless), categories)
    interval = interval or bootstrap(statistic, harmful, harmless, seed=seed)
    if interval is not None and interval[0] == interval[1]:
        interval = None  # where no category makes a difference (an AUROC of 1), their spread says nothing
    return Figure(value, interval, max(filter(None, nulls), key=lambda null: null.value, default=None))


def _score(vector: Vector, place: Place, statistic: Statistic) -> float:
    """The statistic on the test prompts, with the sign of the direction set by the training prompts."""
    harmful, harmless = (activations.mean(0) @ vector for activations in place.train)
    signed = vector if harmful >= harmless else -vector
    return statistic(*(activations @ signed for activations in place.test))


def _shuffled(classes: tuple[Activations, Activations], random: np.random.Generator) -> tuple[Activations, Activations]:
    pooled = random.permutation(np.concatenate(classes))
    return pooled[: len(classes[0])], pooled[len(classes[0]) :]
