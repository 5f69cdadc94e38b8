"""What one pass over a part of the prompts saw, and which of them the model treats as their label says.

Filtered prompts differ from model to model, so only what intervenes takes them; what is read takes all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from rcm.directions.fit import Activations
from rcm.execution.passes import Residuals, read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Part, texts
from rcm.record.results import Column, Table
from rcm.stats import FEWEST
from rcm.stats.metrics import refusal_log_odds


class Recorded(NamedTuple):
    """Both classes of one part of the prompts."""

    harmful: Residuals
    harmless: Residuals

    @classmethod
    def of(cls, model: LoadedModel, part: Part, positions: Sequence[int], label: str) -> "Recorded":
        return cls(*(read_residuals(model, texts(prompts), positions, label) for prompts in part))

    def at(self, row: int, layer: int) -> tuple[Activations, Activations]:
        return self.harmful.at(row, layer), self.harmless.at(row, layer)

    def as_labelled(self, tokens: tuple[int, ...]) -> "Recorded":
        """The prompts that the model treats so: refusal log-odds above zero on harmful, below on harmless."""
        return Recorded(
            self.harmful.where(refusal_log_odds(self.harmful.logits, tokens) > 0),
            self.harmless.where(refusal_log_odds(self.harmless.logits, tokens) < 0),
        )

    def first(self, n: int | None) -> "Recorded":
        """As many prompts of each class; None is all."""
        return Recorded(*(side.where(torch.arange(len(side.prompts)) < (n or len(side.prompts))) for side in self))

    def too_few(self, part: str) -> str:
        """What to do where a class has fewer prompts than an interval needs; empty where it has enough."""
        sides = [f"{len(side.prompts)} {kind}" for kind, side in self._asdict().items() if len(side.prompts) < FEWEST]
        if not sides:
            return ""
        option = "train" if part == "training" else part
        return f"Too few {part} prompts ({', '.join(sides)}); use at least {FEWEST} of a class (dataset.{option})."


def mean_differences(part: Recorded) -> Float[np.ndarray, "position layer d_model"]:
    """At every place; summed in float64 (`rcm.directions.fit`) without a copy of the activations."""
    harmful, harmless = (side.residuals.mean(0, dtype=torch.float64) for side in part)
    return (harmful - harmless).numpy()


def kept(parts: Mapping[str, tuple[Recorded, Recorded]], filtered: bool) -> Table:
    """How many prompts of each part, by its name, are treated as labelled; of all of them. `filtered`: whether those
    alone are intervened on."""
    rows = [
        (name, kind, len(agreeing.prompts), len(side.prompts))
        for name, (every, some) in parts.items()
        for (kind, side), agreeing in zip(every._asdict().items(), some, strict=True)
    ]
    used = "Directions are fitted to, and scored on, those alone." if filtered else "Nothing was filtered by it."
    shown = [
        Column("part", "part"),
        Column("kind", "prompts"),
        Column("as_labelled", "treated as labelled", "count"),
        Column("prompts", "of", "count"),
    ]
    return Table(
        "direction/kept",
        ("part", "kind", "as_labelled", "prompts"),
        rows,
        "prompts treated as labelled",
        f"Harmful ones about to be refused, harmless ones about to be answered. {used} What is readable is of all.",
        shown,
    )
