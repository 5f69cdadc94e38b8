"""What a model does with some of its components ablated, at the last token of its harmful prompts.

A circuit is a set of *nodes*, the attention heads and MLPs of all layers, as a mask over them. A node that is ablated
puts out at the last token, instead of what it would,

    interchange    what it puts out at the last token of the pair's harmless prompt
    mean           its mean over the last tokens of both prompts of some reference pairs
    zero           nothing

and all others go on from that. Earlier tokens stay as they are, and so does the embedding, which is the same in both
prompts. So with every node interchanged the model says of the harmful prompt what it says of the harmless one.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.components import Component, DenseKind, Rows, Shape
from rcm.execution.engine import Engine
from rcm.execution.metric import Metric
from rcm.execution.recording import ComponentCache, Values, cache_components
from rcm.models import LoadedModel
from rcm.patching import Pair, by_length

KINDS: tuple[DenseKind, ...] = ("head", "mlp")
Kind = Literal["interchange", "mean", "zero"]
Mask = Bool[np.ndarray, " node"]
Masks = Bool[np.ndarray, "circuit node"]
Scores = Float[np.ndarray, "circuit pair"]
Measure = Callable[[Masks], Scores]  # the metric of some pairs with the nodes of each mask ablated


def nodes_of(shape: Shape) -> list[Component]:
    """All heads, then all MLPs, by layer: what a mask is over."""
    return shape.components(KINDS)


def masked(ablated: Masks, shape: Shape) -> Rows:
    """One row for each mask, in which its nodes take the donor's values."""
    chosen = torch.from_numpy(ablated)
    heads, mlps = chosen.split([shape.layers * shape.heads, shape.layers], dim=1)
    empty = Rows.of([[]] * len(chosen), shape)
    return Rows(heads.unflatten(1, shape), empty.attention, mlps, empty.residual, empty.neuron, empty.donor)


class Ablation:
    """`reference`: the pairs of which `mean` is the mean; the other kinds need none."""

    def __init__(self, kind: Kind, model: LoadedModel, reference: Sequence[Pair]) -> None:
        self.kind = kind
        self._mean = _mean(model, reference) if kind == "mean" else None

    def donor(self, harmless: ComponentCache) -> Values:
        """What ablated nodes put out on prompts whose twins these are."""
        values = harmless.at(-1)
        if self._mean is not None:
            return Values(*(mean.to(one).expand_as(one) for mean, one in zip(self._mean, values, strict=True)))
        return values if self.kind == "interchange" else Values(*(torch.zeros_like(one) for one in values))


def _mean(model: LoadedModel, pairs: Sequence[Pair]) -> Values:
    prompts = [prompt for pair in pairs for prompt in pair]
    total: list[Tensor] = []

    def summed(some: list[list[int]]) -> list[Tensor]:
        return [one.double().sum(1, keepdim=True) for one in cache_components(model, some).at(-1)]

    for _, sums in in_batches(model, prompts, rows_at_once(model), summed, "prompts"):
        total = [a + b for a, b in zip(total, sums, strict=True)] if total else sums
    return Values(*((one / len(prompts)).to(model.hf.dtype) for one in total))


def ablate(
    engine: Engine, pairs: Sequence[Pair], ablated: Masks, metric: Metric, ablation: Ablation, label: str
) -> Scores:
    """The metric of every harmful prompt with the nodes of each mask ablated; float64."""
    rows = masked(ablated, engine.shape)
    figures = np.empty((len(ablated), len(pairs)))

    def under_each(index: list[int]) -> Scores:
        both = cache_components(engine.model, [pairs[i][side] for side in (0, 1) for i in index])
        base, donor = both[: len(index)], ablation.donor(both[len(index) :])
        return engine.measure(base, [base.at(-1), donor], rows, metric.of(index)).T.numpy()

    at_once = engine.prompts_at_once(len(rows))
    for index, some in in_batches(engine.model, by_length(pairs), at_once, under_each, "pairs", f"circuit: {label}"):
        figures[:, index] = some
    return figures
