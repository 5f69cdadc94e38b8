"""How well activations tell harmful from harmless prompts, at every place: fitted on one part, measured on another.

All prompts of a part count, whatever the model does with them, so that two models are read alike. Readable is not the
same as causal: what separates best often lies layers behind what decides (`rcm.directions.causal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.pipeline import Pipeline
from torch import Tensor

from rcm.directions import fit as fit
from rcm.directions.fit import Activations, Vector
from rcm.directions.held_out import indexed
from rcm.directions.selection import Grid
from rcm.directions.streams import Classes as Read
from rcm.directions.streams import Streams
from rcm.execution.progress import track
from rcm.stats import FEWEST, Estimate, by_cluster
from rcm.stats.separability import auroc, separation

DRAWN = 20  # mean differences of shuffled labels at every place: the null of cosines between models
Cell = tuple[int, int]
Classes = tuple[Activations, Activations]
Masks = tuple[Bool[Tensor, " _"], Bool[Tensor, " _"]]


@dataclass(frozen=True)
class Means:
    """Of the activations of both classes at every position and layer, in float64."""

    harmful: Float[np.ndarray, "position layer d_model"]
    harmless: Float[np.ndarray, "position layer d_model"]

    @property
    def difference(self) -> Float[np.ndarray, "position layer d_model"]:
        return self.harmful - self.harmless


@dataclass(frozen=True)
class Fits:
    """What was fitted to training prompts at every position and layer. `means`: of all of them; `kept`: of those that
    the model treats as labelled."""

    means: Means
    kept: Means
    principal: Float[np.ndarray, "position layer d_model"]
    shuffled: Float[np.ndarray, "position layer draw d_model"]
    probes: dict[tuple[int, int], Pipeline]

    @property
    def mean_difference(self) -> Float[np.ndarray, "position layer d_model"]:
        return self.means.difference

    @property
    def probe_directions(self) -> Float[np.ndarray, "position layer d_model"]:
        found = np.zeros_like(self.principal)
        for cell, probe in self.probes.items():
            found[cell] = fit.probe_direction(probe)
        return found


class Readability(NamedTuple):
    """Figures of every position and layer on prompts that were not fitted to."""

    separation: Grid
    auroc: Grid
    probe_accuracy: Grid


class Everywhere(NamedTuple):
    """Everything that is wanted of every place. `separability`: on test prompts, with its interval."""

    fits: Fits
    validation: Readability
    test: Readability
    separability: dict[tuple[int, int], Estimate]


def everywhere(streams: Streams, labelled: Masks, clusters: Sequence[str], seed: int) -> Everywhere:
    """Fit to the training prompts and measure on the others, some layers at a time. `labelled`: which training prompts
    the model treats as labelled. `clusters`: of test prompts."""
    rows, layers, width = streams.shape
    means, kept = (Means(*(np.zeros((rows, layers, width)) for _ in range(2))) for _ in range(2))
    fits = Fits(means, kept, np.zeros((rows, layers, width)), np.zeros((rows, layers, DRAWN, width), np.float32), {})
    validation, test = (Readability(*(np.zeros((rows, layers)) for _ in range(3))) for _ in range(2))
    separable: dict[tuple[int, int], Estimate] = {}
    for some in streams.layers():
        cells = [(row, layer) for row in range(rows) for layer in some]
        _fit(fits, cells, streams.read("training", some), labelled, seed)
        _measure(validation, fits, cells, streams.read("validation", some))
        _measure(test, fits, cells, streams.read("test", some))
        separable |= _separable(fits, cells, streams.read("test", some), clusters)
    return Everywhere(fits, validation, test, separable)


def _fit(fits: Fits, cells: Sequence[Cell], read: Read, labelled: Masks, seed: int) -> None:
    with fit.on_one_thread():
        for cell in track(cells, "direction: probes"):
            classes = read.at(*cell)
            for name, side, mask in zip(("harmful", "harmless"), classes, labelled, strict=True):
                getattr(fits.means, name)[cell] = side.mean(0, dtype=np.float64)
                if mask.any():
                    getattr(fits.kept, name)[cell] = side[mask.numpy()].mean(0, dtype=np.float64)
            fits.principal[cell] = fit.principal_direction(*classes)
            fits.shuffled[cell] = fit.shuffled_differences(*classes, DRAWN, seed)  # the same labels everywhere
            fits.probes[cell] = fit.probe(*classes)


def _measure(maps: Readability, fits: Fits, cells: Sequence[Cell], read: Read) -> None:
    """Of the mean difference: separation in sigma and AUROC. Of the probe: accuracy."""
    for cell in cells:
        classes, direction = read.at(*cell), fits.means.harmful[cell] - fits.means.harmless[cell]
        projected = tuple(side @ direction for side in classes)
        maps.separation[cell] = separation(*projected)
        maps.auroc[cell] = auroc(*projected)
        maps.probe_accuracy[cell] = fit.correct(fits.probes[cell], *classes).mean()


def _separable(fits: Fits, cells: Sequence[Cell], read: Read, clusters: Sequence[str]) -> dict[Cell, Estimate]:
    return {
        cell: separability(read.at(*cell), fits.means.harmful[cell] - fits.means.harmless[cell], clusters)
        for cell in cells
    }


def separability(classes: Classes, direction: Vector, clusters: Sequence[str]) -> Estimate:
    """The separation along a direction with its interval; NaN where there are too few prompts.

    A jackknife by category (`rcm.stats.by_cluster`); without categories the large-sample standard error of a
    standardised difference of n and m prompts, sqrt((n + m) / (n m) + d^2 / (2 (n + m))) (Hedges and Olkin 1985).
    """
    n, m = map(len, classes)
    if min(n, m) < FEWEST:
        return Estimate(float("nan"), float("nan"), float("nan"))
    harmful, harmless = (side @ direction for side in classes)
    d = separation(harmful, harmless)
    half = 1.96 * sqrt((n + m) / (n * m) + d**2 / (2 * (n + m)))
    return Estimate(d, *(by_cluster(indexed(separation, harmful, harmless), clusters) or (d - half, d + half)))
