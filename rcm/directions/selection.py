"""Which candidate direction is *the* refusal direction: the causal selection of Arditi et al. 2024, appendix C.

A candidate lives at a position and a layer. Three figures, all on validation prompts, decide:
    bypass   refusal log-odds on harmful prompts with the direction ablated everywhere (low is good)
    induce   refusal log-odds on harmless prompts with it added at its layer (high is good)
    kl       KL of first-token distributions on harmless prompts, ablated against not, in nats (low is good)
Discard candidates with `kl > max_kl`, `induce < min_induce`, a layer from `int(max_depth * n_layers)` on, or a figure
that is NaN; of the rest take the least bypass. There may be no rest: then nothing is selected, and there is a nearest
miss, which asks the limits to be loosened least (`Candidate.excess`); the paper has no such rule.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, "position layer"]


class Candidate(NamedTuple):
    """A position (negative: -1 is the last token), a layer, and its figures. `failed` names the filters it fails,
    `excess` says by how much (`excess`)."""

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float
    failed: tuple[str, ...]
    excess: float


@dataclass(frozen=True)
class Selection:
    """`survivors`: how many candidates passed every filter. `ranked`: the best of them first, with runners-up; on no
    survivor, the nearest misses: not too deep, and of least excess. Empty where all figures are unknown."""

    survivors: int
    ranked: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """The chosen candidate, or the nearest miss."""
        return self.ranked[0] if self.ranked else None


def excess(bypass: float, induce: float, kl: float, max_kl: float, min_induce: float) -> float:
    """By how many nats a candidate lies beyond the limits, all together; NaN where a figure is unknown.

    Bypass has no limit in the paper. Here it counts where refusing stays likelier than not with the direction ablated,
    for a direction that does nothing harms nothing, and would be near otherwise.
    """
    beyond = (bypass, min_induce - induce, kl - max_kl)
    return math.nan if any(map(math.isnan, beyond)) else sum(max(0.0, one) for one in beyond)


def select(
    bypass: Grid,
    induce: Grid,
    kl: Grid,
    *,
    max_kl: float = 0.1,
    min_induce: float = 0.0,
    max_depth: float = 0.8,
    keep: int = 5,
) -> Selection:
    """Choose among candidates on a grid [position, layer], whose last row is the last token of the prompt.

    NaN stands for a figure that is unknown; such a candidate never survives. `keep`: how many to rank.
    """
    bypass, induce, kl = (np.asarray(grid, dtype=float) for grid in (bypass, induce, kl))
    n_positions, n_layers = bypass.shape
    deepest = int(max_depth * n_layers)

    def candidate(row: int, layer: int) -> Candidate:
        figures = (float(bypass[row, layer]), float(induce[row, layer]), float(kl[row, layer]))
        failed = {
            "unknown": bool(np.isnan(figures).any()),
            "depth": layer >= deepest,
            "kl": figures[2] > max_kl,
            "induce": figures[1] < min_induce,
        }
        fails = tuple(name for name, failing in failed.items() if failing)
        return Candidate(row - n_positions, layer, *figures, fails, excess(*figures, max_kl, min_induce))

    candidates = [candidate(row, layer) for row in range(n_positions) for layer in range(n_layers)]
    survivors = sorted((c for c in candidates if not c.failed), key=lambda c: c.bypass)
    if survivors:
        return Selection(len(survivors), tuple(survivors[:keep]))
    near = [c for c in candidates if not {"unknown", "depth"} & set(c.failed)]
    return Selection(0, tuple(sorted(near, key=lambda c: c.excess)[:keep]))
