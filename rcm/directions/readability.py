"""How well activations tell harmful from harmless prompts: fitted on one part, measured on another.

Readable is not the same as causal: what separates best often lies layers behind what decides (`rcm.directions.causal`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.pipeline import Pipeline

from rcm.directions import fit as fit
from rcm.directions.fit import Activations, Vector, random_directions
from rcm.directions.selection import Grid
from rcm.execution.passes import Residuals
from rcm.execution.progress import track
from rcm.stats import Statistic, bootstrap
from rcm.stats.separability import auroc, separation

PROBE_DRAWS = 20  # a probe takes a hundred times as long to fit as a mean difference


class Recorded(NamedTuple):
    """Both classes of one part of the prompts."""

    harmful: Residuals
    harmless: Residuals

    def at(self, row: int, layer: int) -> tuple[Activations, Activations]:
        return self.harmful.at(row, layer), self.harmless.at(row, layer)


@dataclass(frozen=True)
class Fits:
    """Three directions at every position and layer, fitted to the training prompts."""

    mean_difference: Float[np.ndarray, "position layer d_model"]
    principal: Float[np.ndarray, "position layer d_model"]
    probes: list[list[Pipeline]]

    @classmethod
    def of(cls, train: Recorded) -> "Fits":
        _, n_positions, n_layers, d_model = train.harmful.residuals.shape
        mean_difference, principal = np.zeros((2, n_positions, n_layers, d_model))
        probes: list[list[Pipeline]] = [[] for _ in range(n_positions)]
        for row, layer in track(list(np.ndindex(n_positions, n_layers)), "direction: probes"):
            harmful, harmless = train.at(row, layer)
            mean_difference[row, layer] = fit.mean_difference(harmful, harmless)
            principal[row, layer] = fit.principal_direction(harmful, harmless)
            probes[row].append(fit.probe(harmful, harmless))
        return cls(mean_difference, principal, probes)

    @property
    def probe_directions(self) -> Float[np.ndarray, "position layer d_model"]:
        return np.stack([[fit.probe_direction(probe) for probe in row] for row in self.probes])


class Readability(NamedTuple):
    """Figures of every position and layer on prompts that were not fitted to."""

    separation: Grid
    auroc: Grid
    probe_accuracy: Grid


def readability(fits: Fits, part: Recorded) -> Readability:
    """Of the mean difference: separation in sigma and AUROC. Of the probe: accuracy."""
    maps = Readability(*(np.zeros(fits.mean_difference.shape[:2]) for _ in range(3)))
    for row, layer in np.ndindex(*maps.separation.shape):
        harmful, harmless = part.at(row, layer)
        projected = harmful @ fits.mean_difference[row, layer], harmless @ fits.mean_difference[row, layer]
        maps.separation[row, layer] = separation(*projected)
        maps.auroc[row, layer] = auroc(*projected)
        maps.probe_accuracy[row, layer] = fit.correct(fits.probes[row][layer], harmful, harmless).mean()
    return maps


class Figure(NamedTuple):
    """A figure with its 95 % interval and the 95th percentile of its null."""

    value: float
    interval: tuple[float, float] | None
    null: float


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


def held_out_separation(place: Place, draws: int, seed: int) -> Figure:
    """Separation of the test prompts in sigma. Null: shuffled labels, and random directions, whichever is higher."""
    return _projected(place, separation, draws, seed)


def held_out_auroc(place: Place, draws: int, seed: int) -> Figure:
    """AUROC of the test prompts. Null as for the separation."""
    return _projected(place, auroc, draws, seed)


def probe_accuracies_of_null(place: Place, seed: int) -> Iterator[float]:
    """Test accuracies of probes that learned shuffled labels."""
    random = np.random.default_rng(seed)
    for _ in range(PROBE_DRAWS):
        shuffled = place.shuffled(random)
        yield float(fit.correct(fit.probe(*shuffled.train), *shuffled.test).mean())


def _projected(place: Place, statistic: Statistic, draws: int, seed: int) -> Figure:
    harmful, harmless = (activations @ place.direction for activations in place.test)
    random = np.random.default_rng(seed)
    shuffled = [_score(drawn.direction, drawn, statistic) for drawn in (place.shuffled(random) for _ in range(draws))]
    chance = [_score(vector, place, statistic) for vector in random_directions(draws, len(place.direction), seed)]
    null = max(float(np.quantile(values, 0.95)) for values in (shuffled, chance))
    return Figure(statistic(harmful, harmless), bootstrap(statistic, harmful, harmless, seed=seed), null)


def _score(vector: Vector, place: Place, statistic: Statistic) -> float:
    """The statistic on the test prompts, with the sign of the direction set by the training prompts."""
    harmful, harmless = (activations.mean(0) @ vector for activations in place.train)
    signed = vector if harmful >= harmless else -vector
    return statistic(*(activations @ signed for activations in place.test))


def _shuffled(classes: tuple[Activations, Activations], random: np.random.Generator) -> tuple[Activations, Activations]:
    pooled = random.permutation(np.concatenate(classes))
    return pooled[: len(classes[0])], pooled[len(classes[0]) :]
