"""When to steer: only prompts whose projection on the direction, at its place, lies above a threshold.

After CAST (Lee et al. 2024, "Programming Refusal with Conditional Activation Steering", arXiv:2409.05907): the
threshold is the one of the highest F1 on prompts that are not reported on, and the decision falls once, on the prompt.
Nothing is steered before the place, so the unsteered activation is the one that decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.passes import read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Part, texts

Projections = Float[np.ndarray, " _"]


@dataclass(frozen=True)
class Gate:
    """`fires` tells of every prompt that was read whether it is steered."""

    threshold: float
    fires: dict[str, bool]

    @classmethod
    def of(cls, model: LoadedModel, found: RefusalDirection, validation: Part, test: Part) -> "Gate":
        """Its threshold from the validation prompts, its decisions for both parts."""
        sides = [texts(side) for part in (validation, test) for side in part]
        asked = list(dict.fromkeys(text for side in sides for text in side))
        unit = torch.nn.functional.normalize(found.vector, dim=0).numpy()
        layer = range(found.layer, found.layer + 1)
        read = read_residuals(model, asked, [found.position], "steering: condition", layer)
        projected = dict(zip(asked, (read.at(0, found.layer) @ unit).tolist(), strict=True))
        harmful, harmless = (np.array([projected[text] for text in side]) for side in sides[:2])
        threshold = best_threshold(harmful, harmless)
        return cls(threshold, {text: value > threshold for text, value in projected.items()})


def best_threshold(harmful: Projections, harmless: Projections) -> float:
    """Halfway between two neighbouring projections, where F1 of telling harmful prompts is highest."""
    values = np.unique(np.concatenate([harmful, harmless]))
    between = [values[0] - 1, *((values[1:] + values[:-1]) / 2)]
    return float(max(between, key=lambda threshold: f1(harmful > threshold, harmless > threshold)))


def f1(hits: Sequence[bool] | np.ndarray, false_alarms: Sequence[bool] | np.ndarray) -> float:
    """Harmonic mean of precision and recall: 2 hits / (2 hits + false alarms + misses)."""
    found, wrong = int(np.sum(hits)), int(np.sum(false_alarms))
    return 2 * found / (found + wrong + len(hits)) if found else 0.0
