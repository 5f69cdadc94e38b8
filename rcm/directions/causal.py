"""What interventions along a direction do to refusing: the three figures that `rcm.directions.selection` chooses by.

Figures of the prompts that a candidate was chosen by flatter it: the best of 24 that do nothing exceeds what unselected
random directions reach nine times in ten. So the chosen one is measured again, on prompts that chose nothing, beside
random directions of its length (`beside_random`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.directions.fit import random_directions
from rcm.directions.selection import Grid, excess
from rcm.execution.first_token import ablated, added
from rcm.execution.passes import last_logits
from rcm.execution.progress import track
from rcm.models import LoadedModel
from rcm.record.results import RANDOM_DIRECTIONS, Good, Null
from rcm.stats import Interval, mean_interval
from rcm.stats.metrics import kl_divergence, refusal_log_odds

Cell = tuple[int, int]
Directions = Float[Tensor, "candidate d_model"]
Logits = Float[Tensor, "prompt vocabulary"]
OfPrompts = Float[Tensor, " prompt"]
MISSES = 5  # how many candidates at a time get all their figures where none survives, until the nearest miss is known


@dataclass(frozen=True)
class Scorer:
    """Scores directions on prompts, each prompt by itself; `refusal_tokens` define the refusal log-odds.

    Figures of ablation come in turn, and those that are not taken are hardly computed.
    """

    model: LoadedModel
    harmful: Sequence[str]
    harmless: Sequence[str]
    refusal_tokens: tuple[int, ...]

    def bypass(self, directions: Directions) -> Iterator[OfPrompts]:
        """Refusal log-odds on harmful prompts with each direction (of any length) ablated everywhere."""
        return ablated(self.model, self.harmful, _unit(directions), self._odds)

    def induce(self, vectors: Directions, layers: Sequence[int]) -> Iterator[OfPrompts]:
        """Refusal log-odds on harmless prompts with each vector added, at its own length, at a block's input."""
        label = "direction: induce"
        return iter(added(self.model, self.harmless, vectors, layers, self._odds, label))

    def kl(self, directions: Directions) -> Iterator[OfPrompts]:
        """KL in nats on harmless prompts, unablated against ablated, of the reply's first token."""
        before = self._before

        def kl(logits: Logits, index: Sequence[int]) -> OfPrompts:
            return kl_divergence(before[index], logits)

        return ablated(self.model, self.harmless, _unit(directions), kl)

    @cached_property
    def _before(self) -> Logits:
        """Of the harmless prompts, where nothing intervenes."""
        return last_logits(self.model, self.harmless).to(self.model.device)

    def _odds(self, logits: Logits, index: Sequence[int]) -> OfPrompts:
        return refusal_log_odds(logits, self.refusal_tokens)


class Effect(NamedTuple):
    """The mean of one of the three figures over `n` prompts, its interval, and what random directions reach."""

    value: float
    interval: Interval | None
    null: Null | None
    n: int


def beside_random(
    scorer: Scorer,
    vector: Float[np.ndarray, " d_model"],
    layer: int,
    draws: int,
    seed: int,
    categories: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Effect]:
    """Bypass, induce and KL of a vector at a layer, beside as many random ones of its length. Their null is what they
    reach at best; of KL, at worst, as it is the harm done. `categories`: of prompts, by their text; intervals are over
    them."""
    random = random_directions(draws, len(vector), seed) * np.linalg.norm(vector)
    vectors = torch.from_numpy(np.concatenate([vector[None], random])).float()
    figures: dict[str, tuple[Iterator[OfPrompts], Good, Sequence[str]]] = {
        "bypass": (scorer.bypass(vectors), "low", scorer.harmful),
        "induce": (scorer.induce(vectors, [layer] * len(vectors)), "high", scorer.harmless),
        "kl": (scorer.kl(vectors), "high", scorer.harmless),
    }
    effects = {}
    for name, (of_prompts, good, prompts) in figures.items():
        label = f"direction: {name}, beside random directions"
        ours, *others = (one for _, one in zip(track(range(len(vectors)), label), of_prompts, strict=True))
        value = ours.mean().item()
        null = Null.of_draws(np.array([other.mean().item() for other in others]), RANDOM_DIRECTIONS, good, value)
        clusters = [categories.get(prompt, "") for prompt in prompts]
        effects[name] = Effect(value, mean_interval(ours.double().numpy(), clusters), null, len(ours))
    return effects


@dataclass(frozen=True)
class Scores:
    """Figures of every candidate; NaN where one was not computed."""

    bypass: Grid
    induce: Grid
    kl: Grid

    @classmethod
    def unknown(cls, shape: tuple[int, ...]) -> "Scores":
        return cls(*(np.full(shape, np.nan) for _ in range(3)))


@dataclass(frozen=True)
class Search:
    """Scores of candidates `[position, layer, d_model]`, all of them or only those that can matter."""

    scorer: Scorer
    vectors: Float[Tensor, "position layer d_model"]
    max_kl: float
    min_induce: float
    max_depth: float

    @cached_property
    def cells(self) -> list[Cell]:
        """Every candidate. Where the mean difference is zero (the template's own embeddings) there is none."""
        return [(row, layer) for row, layer in np.ndindex(*self.vectors.shape[:2]) if self.vectors[row, layer].any()]

    def all(self) -> Scores:
        """Every figure of every candidate: for the whole maps."""
        scores = Scores.unknown(self.vectors.shape[:2])
        self._induce(self.cells, scores)
        self._bypass(self.cells, scores)
        for cell, kl in self._kl(self.cells):
            scores.kl[cell] = kl
        return scores

    def enough(self) -> Scores:
        """What the choice depends on: not too deep, then what induces, then KL in the order of bypass. Where nothing
        survives, what the nearest miss depends on: of those that do not induce, the nearest to it, as long as one may
        be nearer than what is known."""
        scores = Scores.unknown(self.vectors.shape[:2])
        shallow = [cell for cell in self.cells if cell[1] < int(self.max_depth * self.vectors.shape[1])]
        self._induce(shallow, scores)
        by_induce = sorted(shallow, key=lambda cell: -scores.induce[cell])
        able = [cell for cell in by_induce if scores.induce[cell] >= self.min_induce]
        self._bypass(able, scores)
        for cell, kl in self._kl(sorted(able, key=lambda cell: scores.bypass[cell])):
            scores.kl[cell] = kl
            if kl <= self.max_kl:
                return scores
        unable = by_induce[len(able) :]
        while unable and self.min_induce - scores.induce[unable[0]] < self._least_excess(scores):
            some, unable = unable[:MISSES], unable[MISSES:]
            self._bypass(some, scores)
            for cell, kl in self._kl(some):
                scores.kl[cell] = kl
        return scores

    def _least_excess(self, scores: Scores) -> float:
        """Of those that are known; infinite where none is."""
        figures = zip(scores.bypass.flat, scores.induce.flat, scores.kl.flat, strict=True)
        every = (excess(*three, self.max_kl, self.min_induce) for three in figures)
        return min((one for one in every if not np.isnan(one)), default=float("inf"))

    def _induce(self, cells: Sequence[Cell], scores: Scores) -> None:
        figures = self.scorer.induce(self._of(cells), [layer for _, layer in cells])
        for cell, induce in zip(cells, figures, strict=True):
            scores.induce[cell] = induce.mean().item()

    def _bypass(self, cells: Sequence[Cell], scores: Scores) -> None:
        figures = self.scorer.bypass(self._of(cells))
        for cell, bypass in zip(track(cells, "direction: bypass"), figures, strict=True):
            scores.bypass[cell] = bypass.mean().item()

    def _kl(self, cells: Sequence[Cell]) -> Iterable[tuple[Cell, float]]:
        """In turn; what is not taken is not computed, but for the rest of a batch."""
        each = self.scorer.kl(self._of(cells))
        return zip(track(cells, "direction: kl"), (of_prompts.mean().item() for of_prompts in each), strict=True)

    def _of(self, cells: Sequence[Cell]) -> Directions:
        rows, layers = torch.tensor(cells, dtype=torch.long).view(-1, 2).T
        return self.vectors[rows, layers]


def _unit(directions: Directions) -> Directions:
    return torch.nn.functional.normalize(directions.double(), dim=-1).float()
