"""How well activations tell harmful from harmless prompts, at every place: fitted on one part, measured on another.

All prompts of a part count, whatever the model does with them, so that two models are read alike. Readable is not the
same as causal: what separates best often lies layers behind what decides (`rcm.directions.causal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.pipeline import Pipeline

from rcm.directions import fit as fit
from rcm.directions.held_out import indexed
from rcm.directions.recorded import Recorded, mean_differences
from rcm.directions.selection import Grid
from rcm.execution.progress import track
from rcm.stats import FEWEST, Estimate, by_cluster
from rcm.stats.separability import auroc, separation


@dataclass(frozen=True)
class Fits:
    """Three directions at every position and layer, fitted to training prompts."""

    mean_difference: Float[np.ndarray, "position layer d_model"]
    principal: Float[np.ndarray, "position layer d_model"]
    probes: list[list[Pipeline]]

    @classmethod
    def of(cls, train: Recorded) -> "Fits":
        _, n_positions, n_layers, d_model = train.harmful.residuals.shape
        principal = np.zeros((n_positions, n_layers, d_model))
        probes: list[list[Pipeline]] = [[] for _ in range(n_positions)]
        for row, layer in track(list(np.ndindex(n_positions, n_layers)), "direction: probes"):
            harmful, harmless = train.at(row, layer)
            principal[row, layer] = fit.principal_direction(harmful, harmless)
            probes[row].append(fit.probe(harmful, harmless))
        return cls(mean_differences(train), principal, probes)

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


def separability(fits: Fits, test: Recorded, clusters: Sequence[str]) -> list[tuple[int, int, Estimate]]:
    """Row, layer, and the separation along the mean difference with its interval; NaN where there are too few prompts.

    A jackknife by category (`rcm.stats.by_cluster`); without categories the large-sample standard error of a
    standardised difference of n and m prompts, sqrt((n + m) / (n m) + d^2 / (2 (n + m))) (Hedges and Olkin 1985).
    """
    n, m = (len(side.prompts) for side in test)
    found = []
    for row, layer in np.ndindex(*fits.mean_difference.shape[:2]):
        if min(n, m) < FEWEST:
            found.append((row, layer, Estimate(float("nan"), float("nan"), float("nan"))))
            continue
        harmful, harmless = (side @ fits.mean_difference[row, layer] for side in test.at(row, layer))
        d = separation(harmful, harmless)
        half = 1.96 * sqrt((n + m) / (n * m) + d**2 / (2 * (n + m)))
        ends = by_cluster(indexed(separation, harmful, harmless), clusters) or (d - half, d + half)
        found.append((row, layer, Estimate(d, *ends)))
    return found
