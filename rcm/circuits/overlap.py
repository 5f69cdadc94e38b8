"""How alike the circuits of two models of one shape are, beside what their layers alone would make of it.

    Jaccard index     |A and B| / |A or B|           of the two sets of components
    Spearman's rho    of the components' scores      as they are, with their signs

Twins share much for a reason that is no circuit: in either, the same few layers do most, and large MLPs are large. So
chance keeps of each layer what it has, and permutes only components of one kind within it:

    Jaccard index     one circuit stays; the other is replaced by random components, as many of each kind in each layer
    Spearman's rho    one model's scores stay; the other's are permuted among components of one kind in one layer

If the two models agreed on layers and on nothing else, every such permutation would be as likely, and p is exact. What
has no other of its kind in its layer, as attention and MLP outputs, stays where it is: it counts in the figure and in
all draws alike, and so never speaks for an overlap that chance would not reach. To permute it with its neighbours would
take for agreement that strength rises with depth in both.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from rcm.errors import InputError
from rcm.execution.components import Component
from rcm.record.results import Null

OF_SETS, OF_SCORES = "random sets of the same kinds and layers", "scores permuted within kinds and layers"
DRAWS = 2000
NAN = float("nan")
Scores = Mapping[Component, float]
Draws = Float[np.ndarray, " draw"]


@dataclass(frozen=True)
class Overlap:
    """`jaccard`: 0 to 1; NaN where both circuits are empty. `rho`: -1 to 1; NaN where all scores of a model are equal.
    Their nulls are one-sided, high is more alike; None where a figure has no value, and where no component has another
    of its kind in its layer, as then nothing can be permuted. `exchangeable`: how many of the components have one.
    """

    jaccard: float
    jaccard_null: Null | None
    rho: float
    rho_null: Null | None
    components: int
    exchangeable: int


def overlap(
    ours: Scores,
    theirs: Scores,
    our_circuit: Collection[Component],
    their_circuit: Collection[Component],
    seed: int,
    draws: int = DRAWS,
) -> Overlap:
    """Of two circuits, and of the scores of all components that they were chosen from. Raises InputError where the two
    models do not have the same components, scores are not finite, or a circuit holds what has no score."""
    _require_alike(ours, theirs, our_circuit, their_circuit)
    components = sorted(ours)  # so that draws do not depend on the order in which scores are given
    of_each = [component[:2] for component in components]  # kind and layer
    number = {one: i for i, one in enumerate(dict.fromkeys(of_each))}
    group = np.array([number[one] for one in of_each], dtype=int)
    sizes = np.bincount(group, minlength=1)
    draw = np.random.default_rng(seed)
    a, b = set(our_circuit), set(their_circuit)
    jaccard = len(a & b) / len(a | b) if a | b else NAN
    first, second = (rankdata([scores[one] for one in components]) for scores in (ours, theirs))
    varied = all(len(ranks) and np.ptp(ranks) > 0 for ranks in (first, second))
    rho = float(np.corrcoef(first, second)[0, 1]) if varied else NAN
    some, jaccard_null, rho_null = int(sizes[sizes > 1].sum()), None, None
    if some and a | b:
        held = [Counter(number[component[:2]] for component in circuit) for circuit in (a, b)]
        kept, drawn = (np.array([of[i] for i in range(len(sizes))]) for of in held)
        jaccard_null = Null.of_draws(random_jaccard(sizes, kept, drawn, draw, draws), OF_SETS, figure=jaccard)
    if some and varied:
        rho_null = Null.of_draws(permuted_rho(group, first, second, draw, draws), OF_SCORES, figure=rho)
    return Overlap(jaccard, jaccard_null, rho, rho_null, len(components), some)


def random_jaccard(
    sizes: Int[np.ndarray, " group"],
    kept: Int[np.ndarray, " group"],
    drawn: Int[np.ndarray, " group"],
    draw: np.random.Generator,
    draws: int,
) -> Draws:
    """Jaccard indices of a fixed set and random ones. `sizes` of all groups; `kept`, `drawn`: how many components of
    each group lie in the fixed set, and in every random one. What two sets share in a group is hypergeometric."""
    common = draw.hypergeometric(kept, sizes - kept, drawn, size=(draws, len(sizes))).sum(1)
    return common / (kept.sum() + drawn.sum() - common)


def permuted_rho(
    group: Int[np.ndarray, " component"],
    ours: Float[np.ndarray, " component"],
    theirs: Float[np.ndarray, " component"],
    draw: np.random.Generator,
    draws: int,
) -> Draws:
    """Spearman's rho of ranks when the second ones change places within their groups."""
    order = np.argsort(group, kind="stable")
    group, ours, theirs = group[order], ours[order] - ours.mean(), theirs[order] - theirs.mean()
    size = np.sqrt((ours**2).sum() * (theirs**2).sum())
    # Sorted by group and a random number below one, every group stays where it is.
    permuted = (theirs[np.argsort(group + draw.random(len(group)))] for _ in range(draws))
    return np.array([ours @ one for one in permuted]) / size


def _require_alike(
    ours: Scores, theirs: Scores, our_circuit: Collection[Component], their_circuit: Collection[Component]
) -> None:
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise InputError(
            f"{odd[0]} has a score in one of the two models alone, and so have {len(odd) - 1} more; compare models of "
            "one shape, and give scores of the same components."
        )
    if bad := [component for component in ours if not np.isfinite([ours[component], theirs[component]]).all()]:
        raise InputError(
            f"{bad[0]} has scores of {ours[bad[0]]:g} and {theirs[bad[0]]:g}, which have no rank; give finite ones, or "
            "leave the component out of both models."
        )
    if unknown := sorted((set(our_circuit) | set(their_circuit)) - ours.keys()):
        raise InputError(
            f"{unknown[0]} is of a circuit and has no score; give scores of all components that circuits were chosen "
            "from."
        )
