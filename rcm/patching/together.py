"""Sets of heads put in together, beside random sets of heads of the same layers, and how few heads do most of it.

    heads needed = the smallest k for which share(first k heads) >= part * share(all heads)

The heads come in an order that other pairs decided on, so k is not that of the luckiest order. Chance is a random
order: at every place a random head of the layer that stands there, so that a layer that matters says nothing for its
heads.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from rcm.execution.components import Component, Rows, Shape
from rcm.patching.interchange import Interchange
from rcm.patching.pairs import Pairs

PAIRS_PER_ORDER = 4  # that one random order is measured on
SIZES = 28  # at most, of the sets that begin with the first head
Exchange = Callable[[Pairs, Rows], Interchange]
Draw = Callable[[int, int], Rows]  # how many random counterparts of all sets, and a seed


def beside_random(
    exchange: Exchange, pairs: Pairs, sets: Rows, random: Draw, draws: int, per_draw: int, seed: int
) -> tuple[Float[np.ndarray, "way pair set"], Float[np.ndarray, "way draw set"]]:
    """Shares of every set in every pair, and means of at least `draws` random counterparts. `pairs` all have a gap.

    A random one is measured on `per_draw` of the pairs. Where these are not all, its mean scatters more than ours: the
    null is wider than it need be, never narrower.
    """
    groups = [range(len(pairs))[start : start + per_draw] for start in range(0, len(pairs), per_draw)]
    each = -(-draws // len(groups))
    ours, others = [], []
    for number, group in enumerate(groups):
        patches = Rows.concat([sets, random(each, seed + number)])
        shares = exchange(pairs.some(group), patches).shares.numpy()
        ours.append(shares[..., : len(sets)])
        others.append(shares[..., len(sets) :].mean(1).reshape(2, each, len(sets)))
    return np.concatenate(ours, 1), np.concatenate(others, 1)


def sizes_up_to(heads: int) -> list[int]:
    """Of sets that begin with the first head: close to each other at first, then ever further apart."""
    return np.unique(np.geomspace(1, heads, SIZES).round().astype(int)).tolist()


def first_of(order: Sequence[Component], sizes: Sequence[int], shape: Shape) -> Rows:
    """One row for each size: that many heads, the first of an order."""
    return Rows.of([order[:size] for size in sizes], shape)


def random_orders(n: int, order: Sequence[Component], seed: int) -> list[list[Component]]:
    """Orders with the same layer at every place, and the heads of each layer shuffled."""
    draw = np.random.default_rng(seed)
    heads = {layer: [one.number for one in order if one.layer == layer] for layer in {one.layer for one in order}}
    orders = []
    for _ in range(n):
        left = {layer: draw.permutation(those).tolist() for layer, those in sorted(heads.items())}
        orders.append([Component("head", one.layer, left[one.layer].pop()) for one in order])
    return orders


def heads_needed(
    shares: Float[np.ndarray, "draw size"], sizes: Sequence[int], part: float
) -> Float[np.ndarray, " draw"]:
    """Of each draw, the first size that reaches a part of what the last and largest does."""
    return np.asarray(sizes, dtype=float)[(shares >= part * shares[..., -1:]).argmax(-1)]
