"""The trial of a circuit, on pairs that had no part in choosing it, beside random circuits.

Everything is measured with nodes ablated at the last token (`rcm.circuits.ablation`), in one pass for each pair:

    f(C), f(not C)    with only the circuit, and without it (`rcm.circuits.faithfulness`)
    carried           1 - max(|1 - f(C)|, |f(not C)|), whose null are random circuits: as many heads of each layer, and
                      as many MLPs of each third of the layers. Were C drawn like these, its carried would be as likely
                      to lie anywhere among theirs, so p <= .05 comes to pass in one of twenty such.
    minimality        f(C) - f(C without one node), for each
    completeness      |f(C without K) - f(N without K)| in the mean over random halves K of C: what the circuit makes of
                      a lack, and what the model does (Wang et al. 2023, arXiv:2211.00593, section 4)

and the five tests of `rcm.circuits.hypotheses`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from rcm.circuits import hypotheses
from rcm.circuits.ablation import Mask, Masks, Measure, nodes_of
from rcm.circuits.faithfulness import by_category, carried, faithfulness
from rcm.circuits.hypotheses import Tested
from rcm.execution.components import Shape
from rcm.record.results import Good, Null
from rcm.stats import Estimate

Scores = Float[np.ndarray, " pair"]
Circuits = Float[np.ndarray, "_ pair"]
BANDS = 3  # of layers, within each of which an MLP may stand for another
HALVES = 20  # random ones of the circuit, for completeness
ADDED = 200  # random nodes, each put in on top of the circuit, for minimality
OF = "random circuits of the same size and layers"


@dataclass(frozen=True)
class Trial:
    """The metric on every pair: of the model, of all nodes ablated, with only the circuit, without it; `lacking`: with
    only the circuit less one node; `added`: with the circuit and a random node more; of random circuits, alone and
    without them; `halves`: with only the circuit less a random half, and of the model less that half."""

    everything: Scores
    nothing: Scores
    kept: Scores
    removed: Scores
    lacking: Circuits
    added: Circuits
    random_kept: Circuits
    random_removed: Circuits
    halves: tuple[Circuits, Circuits]
    categories: Sequence[str]
    seed: int

    @property
    def gap(self) -> float:
        """Mean of what there is to carry, in units of the metric."""
        return float((self.everything - self.nothing).mean())

    @property
    def sufficient(self) -> Estimate:
        """f(C)."""
        return faithfulness(self.kept, self.nothing, self.everything, self.categories)

    @property
    def left(self) -> Estimate:
        """f(not C): what is left without the circuit."""
        return faithfulness(self.removed, self.nothing, self.everything, self.categories)

    @property
    def has_gap(self) -> bool:
        """Whether there is certainly something to carry: the model refuses more than with all nodes ablated."""
        return self.gap > 0 and not np.isnan(self.sufficient.value)

    @cached_property
    def carried(self) -> Estimate:
        each = np.stack([self.kept, self.removed, self.nothing, self.everything])
        return by_category(lambda index: carried(*each[:, index]), self.categories)

    @property
    def null(self) -> Null | None:
        """What random circuits carry."""
        draws = [
            carried(kept, removed, self.nothing, self.everything)
            for kept, removed in zip(self.random_kept, self.random_removed, strict=True)
        ]
        return Null.of_draws(np.array(draws), OF, figure=self.carried.value)

    def null_of(self, random: Circuits, figure: float, good: Good) -> Null | None:
        """What random circuits do, alone or removed."""
        return Null.of_draws(ratios(random, self.nothing, self.everything), OF, good, figure)

    @property
    def missed(self) -> Float[np.ndarray, "node pair"]:
        """f(C) - f(C without one node), of each node and pair, in gaps of the mean pair."""
        return (self.kept - self.lacking) / self.gap

    @property
    def incompleteness(self) -> float:
        of_circuit, of_model = self.halves
        return float(np.abs((of_circuit - of_model).mean(1) / self.gap).mean())

    def tests(self) -> dict[str, Tested]:
        """The five, by name; minimality is that of the node that is missed least."""
        of_nodes = hypotheses.minimality(self.kept, self.lacking, self.added)
        return {
            "sufficiency": hypotheses.sufficiency(self.kept, self.random_kept, self.everything),
            "partial necessity": hypotheses.partial_necessity(self.removed, self.random_removed, self.everything),
            "minimality": min(of_nodes, key=lambda one: one.p),
            "equivalence": hypotheses.equivalence(self.kept, self.everything),
            "independence": hypotheses.independence(self.removed, self.everything, self.seed),
        }

    @property
    def superfluous(self) -> int:
        """How many nodes do less than random ones that are put in on top."""
        return sum(not one.holds for one in hypotheses.minimality(self.kept, self.lacking, self.added))


def ratios(circuits: Circuits, nothing: Scores, everything: Scores) -> Float[np.ndarray, " circuit"]:
    """f of each, without an interval."""
    return (circuits.mean(1) - nothing.mean()) / (everything.mean() - nothing.mean())


def trial(
    measure: Measure, circuit: Mask, shape: Shape, categories: Sequence[str], random_circuits: int, seed: int
) -> Trial:
    """Try a circuit of one node or more, which is not all of them. `measure`: the metric of every pair with the nodes
    of each mask ablated; `categories`: of the pairs."""
    draw = np.random.default_rng(seed)
    members = np.flatnonzero(circuit)
    lacking = np.repeat(circuit[None], len(members), axis=0)
    lacking[np.arange(len(members)), members] = False
    others = np.flatnonzero(~circuit)
    added = np.repeat(circuit[None], len(others), axis=0)
    added[np.arange(len(others)), others] = True
    if len(others) > ADDED:
        added = added[draw.choice(len(others), ADDED, replace=False)]
    halves = np.zeros((HALVES, len(circuit)), dtype=bool)
    for half in halves:
        half[draw.choice(members, max(1, len(members) // 2), replace=False)] = True
    random = random_like(circuit, random_circuits, shape, seed)
    everyone = np.ones_like(circuit)
    parts = {
        "ends": np.stack([~everyone, everyone, ~circuit, circuit]),
        "lacking": ~lacking,
        "added": ~added,
        "random kept": ~random,
        "random removed": random,
        "halves of the circuit": ~(circuit & ~halves),
        "halves of the model": halves,
    }
    scores = measure(np.concatenate(list(parts.values())))
    ends, lacks, adds, kept, removed, *of_halves = np.split(scores, np.cumsum([len(p) for p in parts.values()])[:-1])
    everything, nothing, alone, without = ends
    halves_of = (of_halves[0], of_halves[1])
    return Trial(everything, nothing, alone, without, lacks, adds, kept, removed, halves_of, categories, seed)


def random_like(circuit: Mask, n: int, shape: Shape, seed: int) -> Masks:
    """Random circuits with as many heads of each layer, and as many MLPs of each third of the layers, as this one has:
    drawn among all that there are, so that the circuit itself is one that could have been drawn."""
    draw = np.random.default_rng([seed, len(circuit)])
    groups: dict[tuple[str, int], list[int]] = {}
    for i, node in enumerate(nodes_of(shape)):
        place = node.layer if node.kind == "head" else BANDS * node.layer // shape.layers
        groups.setdefault((node.kind, place), []).append(i)
    found = np.zeros((n, len(circuit)), dtype=bool)
    for group in groups.values():
        many = int(circuit[group].sum())
        for mask in found:
            mask[draw.permutation(group)[:many]] = True
    return found
