"""What can be patched, and sets of it.

Components at one token of one layer: the output of an attention head (`z`), what attention and the MLP write to the
residual stream, and the residual stream at the layer's input. A *row* is any set of them, with the donor that its
values come from: a single head, a pair, a circuit and its complement are all rows.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from rcm.execution.interventions import Side
from rcm.models.points import Points

Kind = Literal["head", "attention", "mlp", "residual"]
COMPONENT_KINDS: tuple[Kind, ...] = ("head", "attention", "mlp", "residual")
OWN, SOURCE = 0, 1  # donors: a row of OWN takes the values of its own prompt, and so must change nothing


class Component(NamedTuple):
    """One thing to patch. Only heads have a `head`."""

    kind: Kind
    layer: int
    head: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.layer}" + (f".{self.head}" if self.kind == "head" else "")


class Shape(NamedTuple):
    """How many layers and attention heads a model has."""

    layers: int
    heads: int

    def components(self, kinds: Iterable[Kind] = COMPONENT_KINDS) -> list[Component]:
        """Every component of these kinds, by kind and layer."""
        return [
            Component(kind, layer, head)
            for kind in kinds
            for layer in range(self.layers)
            for head in range(self.heads if kind == "head" else 1)
        ]


@dataclass(frozen=True)
class Rows:
    """Sets of components, one for each row, as masks; `donor` says whose values a row takes."""

    head: Bool[Tensor, "row layer head"]
    attention: Bool[Tensor, "row layer"]
    mlp: Bool[Tensor, "row layer"]
    residual: Bool[Tensor, "row layer"]
    donor: Int[Tensor, " row"]

    @classmethod
    def of(cls, sets: Sequence[Iterable[Component]], shape: Shape, donor: int = SOURCE) -> "Rows":
        """One row for each set; an empty set is the unpatched run."""
        n = len(sets)
        attention, mlp, residual = (torch.zeros(n, shape.layers, dtype=torch.bool) for _ in range(3))
        heads, donors = torch.zeros(n, *shape, dtype=torch.bool), torch.full((n,), donor)
        rows = cls(heads, attention, mlp, residual, donors)
        for row, components in enumerate(sets):
            for kind, layer, head in components:
                if kind == "head":
                    rows.head[row, layer, head] = True
                else:
                    getattr(rows, kind)[row, layer] = True
        return rows

    @classmethod
    def each(cls, kinds: Iterable[Kind], shape: Shape, donor: int = SOURCE) -> "Rows":
        """Every component of these kinds alone, in the order of `Shape.components`."""
        return cls.of([[component] for component in shape.components(kinds)], shape, donor)

    @classmethod
    def identity(cls, shape: Shape) -> "Rows":
        """Everything of one layer replaced by itself, a row for each layer: what it changes is the noise floor."""
        layers = range(shape.layers)
        whole = shape.components()
        return cls.of([[part for part in whole if part.layer == layer] for layer in layers], shape, OWN)

    @classmethod
    def full(cls, shape: Shape) -> "Rows":
        """One row with every component of every layer."""
        return cls.of([shape.components()], shape)

    @classmethod
    def random_heads(cls, n: int, like: Collection[Component], shape: Shape, seed: int) -> "Rows":
        """The null of a set of heads: sets with as many heads in every layer, drawn without replacement from the others
        of that layer (from all of them, where the others are too few)."""
        draw = np.random.default_rng(seed)
        taken = {layer: {head.head for head in like if head.layer == layer} for layer in {head.layer for head in like}}

        def of_layer(layer: int, ours: set[int]) -> Iterator[Component]:
            others = sorted(set(range(shape.heads)) - ours)
            pool = others if len(others) >= len(ours) else range(shape.heads)
            yield from (Component("head", layer, int(h)) for h in draw.choice(pool, len(ours), replace=False))

        return cls.of([[head for of in sorted(taken.items()) for head in of_layer(*of)] for _ in range(n)], shape)

    @classmethod
    def concat(cls, parts: Sequence["Rows"]) -> "Rows":
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in FIELDS))

    def __len__(self) -> int:
        return len(self.donor)

    def __getitem__(self, index: Int[Tensor, " chosen"]) -> "Rows":
        return Rows(*(getattr(self, name)[index] for name in FIELDS))

    @property
    def first_layer(self) -> Int[Tensor, " row"]:
        """The first layer that a row changes: before it, the row is the unpatched run. The last for an empty set."""
        changed = self.head.any(-1) | self.attention | self.mlp | self.residual
        last = changed.shape[1] - 1
        return torch.where(changed.any(-1), changed.int().argmax(-1), last)


FIELDS = (*COMPONENT_KINDS, "donor")


def places(points: Points) -> dict[Kind, tuple[Sequence[nn.Module], Side]]:
    """Where each kind of component is read and replaced: a module for each layer, and the side of it."""
    return {
        "residual": (points.layers, "input"),
        "head": (points.head_out, "input"),
        "attention": (points.attention_out, "output"),
        "mlp": (points.mlp_out, "output"),
    }
