"""Which candidate direction is *the* refusal direction: the causal selection of Arditi et al. 2024, appendix C.

A candidate lives at a position and a layer. Three figures, all on validation prompts, decide:
    bypass   refusal log-odds on harmful prompts with the direction ablated everywhere (low is good)
    induce   refusal log-odds on harmless prompts with it added at its layer (high is good)
    kl       KL of first-token distributions on harmless prompts, ablated against not, in nats (low is good)
Discard candidates with `kl > max_kl`, `induce < min_induce`, a layer from `int(max_depth * n_layers)` on, or a figure
that is NaN; of the rest take the least bypass. There may be no rest: then the answer is none, and the nearest misses.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, "position layer"]


class Candidate(NamedTuple):
    """A position (negative: -1 is the last token), a layer, and its figures. `failed` names the filters it fails."""

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """The chosen candidate, or None for both if none survived.

    `survivors`: how many passed every filter. `ranked`: the best of them first, with runners-up; on no survivor, the
    nearest misses: fewest filters failed, then least bypass.
    """

    position: int | None
    layer: int | None
    survivors: int
    ranked: tuple[Candidate, ...]


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
        return Candidate(row - n_positions, layer, *figures, tuple(name for name, fails in failed.items() if fails))

    candidates = [candidate(row, layer) for row in range(n_positions) for layer in range(n_layers)]
    survivors = sorted((c for c in candidates if not c.failed), key=lambda c: c.bypass)
    if survivors:
        return Selection(survivors[0].position, survivors[0].layer, len(survivors), tuple(survivors[:keep]))
    known = [c for c in candidates if "unknown" not in c.failed]
    return Selection(None, None, 0, tuple(sorted(known, key=lambda c: (len(c.failed), c.bypass))[:keep]))
