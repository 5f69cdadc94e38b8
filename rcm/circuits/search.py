"""In which order nodes matter, and the smallest set of the first that carries the behaviour.

    exact          each node alone: what is lost when it is ablated and what is gained when all others are, by size
    attribution    the first-order estimate of the former (`rcm.circuits.attribution`), at the last token, by size
    elimination    of the first by exact effects, those are left out that are missed least in what is left, a part at a
                   time (as ACDC does with edges: Conmy et al. 2023, arXiv:2304.14997, but every node of what is left
                   is tried in one pass, and the complement is asked as well)

Of what is left, C, a node is missed by

    |m(C) - m(C without it)| + |m(not C) - m(not C, and it)|

with m the metric's mean over pairs. The second term asks what the node does where nothing of C stands in for it: by the
first alone, one of two copies could go. Sizes count, not signs: what holds the behaviour back is missed, too.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rcm.circuits.ablation import Ablation, Mask, Measure, ablate, nodes_of
from rcm.circuits.attribution import Attribution, attribute
from rcm.circuits.faithfulness import carried
from rcm.execution.components import Shape
from rcm.execution.engine import Engine
from rcm.execution.metric import Metric
from rcm.patching import Pair

Ranking = Literal["exact", "attribution", "elimination"]
Order = Int[np.ndarray, " node"]  # the node that matters most comes first
COARSE = 24  # sizes that are tried at first


def single_effects(measure: Measure, nodes: int) -> Float[np.ndarray, " node"]:
    """What each node does alone, as a share of the mean gap: the mean of what is lost when it is ablated and of what is
    gained when it is the only one that is not."""
    alone = np.eye(nodes, dtype=bool)
    ends = np.stack([np.zeros(nodes, dtype=bool), np.ones(nodes, dtype=bool)])
    scores = measure(np.concatenate([alone, ~alone, ends])).mean(1)
    everything, nothing = scores[-2:]
    necessity, sufficiency = everything - scores[:nodes], scores[nodes : 2 * nodes] - nothing
    return (necessity + sufficiency) / 2 / (everything - nothing)


def by_size(scores: Float[np.ndarray, " node"]) -> Order:
    return np.argsort(-np.abs(scores), kind="stable")


class Attributed(NamedTuple):
    """`gap`: by which harmful prompts of these pairs exceed their twins, in units of the metric."""

    found: Attribution
    gap: float


def attributed(engine: Engine, pairs: Sequence[Pair], metric: Metric) -> Attributed:
    """At the last token, of pairs of one length."""
    found = attribute(engine.model, pairs, metric, sign="denoising", last=True, label="circuit: attribution")
    none = np.zeros((1, len(nodes_of(engine.shape))), dtype=bool)
    as_twin = Ablation("interchange", engine.model, ())
    itself, twin = ablate(engine, pairs, np.concatenate([none, ~none]), metric, as_twin, "gap of these pairs")
    return Attributed(found, float((itself - twin).mean()))


def node_scores(found: Attribution, shape: Shape) -> Float[np.ndarray, " node"]:
    """In the order of masks, without the embedding."""
    values = found.nodes.mean(0).tolist()
    score = {(str(one.kind), one.layer, one.head): value for one, value in zip(found.writers, values, strict=True)}
    return np.array([score[node.kind, node.layer, node.number] for node in nodes_of(shape)])


def by_elimination(measure: Measure, order: Order, start: int, per_round: float) -> Order:
    """An order with its first `start` nodes in a better one. `per_round`: the share of what is left that goes at once,
    one node at least."""
    left, gone = first(order, start), list[int]()
    while len(members := np.flatnonzero(left)) > 1:
        without = np.repeat(left[None], len(members), axis=0)
        without[np.arange(len(members)), members] = False
        # With only what is left, and without it: as it is, then less each of its nodes.
        kept, removed = measure(np.concatenate([~left[None], ~without, left[None], without])).mean(1).reshape(2, -1)
        missed = np.abs(kept[1:] - kept[0]) + np.abs(removed[1:] - removed[0])
        least = members[np.argsort(missed, kind="stable")][: max(1, int(per_round * len(members)))]
        gone += least.tolist()
        left[least] = False
    return np.array([*np.flatnonzero(left), *reversed(gone), *order[start:]])


def first(order: Order, size: int) -> Mask:
    """The circuit of that many nodes."""
    mask = np.zeros(len(order), dtype=bool)
    mask[order[:size]] = True
    return mask


def sizes_of(nodes: int, many: int = COARSE) -> list[int]:
    """From none to all, close to each other at first."""
    return [0, *np.unique(np.geomspace(1, nodes, many).round().astype(int)).tolist()]


def smallest(measure: Measure, order: Order, share: float) -> tuple[int, float]:
    """How many of the first nodes carry that share (`rcm.circuits.faithfulness.carried`), and what they carry; all of
    them carry 1."""
    known = {0: 0.0, len(order): 1.0}

    def ask(sizes: Sequence[int]) -> None:
        asked = [size for size in sizes if size not in known]
        masks = np.stack([first(order, size) for size in (*asked, 0, len(order))])
        scores = measure(np.concatenate([~masks, masks[:-2]]))
        kept, (nothing, everything) = scores[: len(asked)], scores[len(asked) : len(asked) + 2]
        removed = scores[len(asked) + 2 :]
        for size, one, other in zip(asked, kept, removed, strict=True):
            known[size] = carried(one, other, nothing, everything)

    ask(sizes_of(len(order)))
    enough = min(size for size, value in known.items() if value >= share)
    below = max(size for size in known if size < enough)
    ask(range(below + 1, enough))
    size = min(size for size, value in known.items() if value >= share)
    return size, known[size]
