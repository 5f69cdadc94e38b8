"""Ways to rank heads that patch nothing from one prompt into another, to stand beside interchange."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution.components import Rows
from rcm.execution.engine import Engine
from rcm.execution.metric import Metric
from rcm.execution.progress import track
from rcm.execution.recording import Values, cache_components, mean_values
from rcm.patching.contribution import contributions
from rcm.patching.interchange import Pair, batches

Heads = Float[np.ndarray, " head"]  # of all layers, in the order of `Shape.components`


@dataclass(frozen=True)
class Ranking:
    """`direct`: what harmful prompts make a head write along the refusal direction more than harmless ones do, as a
    share of the direction's natural length. `ablation`: what the metric of harmful prompts loses when the head's mean
    replaces it."""

    direct: Heads
    ablation: Heads


def rank_heads(
    engine: Engine, pairs: Sequence[Pair], training: Sequence[Pair], metric: Metric, vector: Float[Tensor, " d_model"]
) -> Ranking:
    """Rank heads on `pairs`; the means are those of `training`, of both classes. `vector` has its natural length."""
    mean = mean_values(engine.model, [tokens for pair in training for tokens in pair])
    patches = Rows.concat([Rows.each(["head"], engine.shape), Rows.of([[]], engine.shape)])
    square = vector.square().sum()
    direct, metrics = [], []
    for index in track(batches(pairs, engine.prompts_at_once(len(patches))), "patching: heads ranked in other ways"):
        both = cache_components(engine.model, [pairs[i][side] for side in (0, 1) for i in index])
        harmful, harmless = contributions(engine.model, both.at(-1), vector).tensor_split(2, dim=1)
        direct.append((harmful - harmless) / square)
        donor = Values(*(part.expand(-1, len(index), *part.shape[2:]) for part in mean))
        metrics.append(engine.measure(both[: len(index)], [donor, donor], patches, metric.of(index)))
    figures = torch.cat(metrics)
    lost = (figures[:, -1:] - figures[:, :-1]).mean(0)
    return Ranking(torch.cat(direct, 1).double().mean(1).flatten().cpu().numpy(), lost.numpy())
