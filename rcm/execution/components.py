"""What can be patched, and sets of it.

Components at one token of one layer: the output of an attention head (`z`), what attention and the MLP write to the
residual stream, the residual stream at the layer's input, and a neuron of the MLP (`post`, the input of its down
projection; Geva et al. 2021, section 2). A *row* is any set of them, with the donor that its values come from: a single
head, a pair, a set of neurons, a circuit and its complement are all rows.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from rcm.errors import InputError
from rcm.execution.interventions import Side
from rcm.models.points import Points

DenseKind = Literal["head", "attention", "mlp", "residual"]  # few enough for a mask over all of them
Kind = DenseKind | Literal["neuron"]
COMPONENT_KINDS: tuple[DenseKind, ...] = ("head", "attention", "mlp", "residual")
PerNeuron = Int[Tensor, " neuron"]
OWN, SOURCE = 0, 1  # donors: a row of OWN takes the values of its own prompt, and so must change nothing


class Component(NamedTuple):
    """One thing to patch. Of heads and neurons a layer has several: `number` says which, from 0."""

    kind: Kind
    layer: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.layer}" + (f".{self.number}" if self.kind in ("head", "neuron") else "")


class Shape(NamedTuple):
    """How many layers and attention heads a model has."""

    layers: int
    heads: int

    def components(self, kinds: Iterable[DenseKind] = COMPONENT_KINDS) -> list[Component]:
        """Every component of these kinds, by kind and layer."""
        return [
            Component(kind, layer, head)
            for kind in kinds
            for layer in range(self.layers)
            for head in range(self.heads if kind == "head" else 1)
        ]


@dataclass(frozen=True)
class Rows:
    """Sets of components, one for each row, as masks; `donor` says whose values a row takes.

    Neurons are too many for a mask: `neuron` lists their row, layer and number, in the order of rows.
    """

    head: Bool[Tensor, "row layer head"]
    attention: Bool[Tensor, "row layer"]
    mlp: Bool[Tensor, "row layer"]
    residual: Bool[Tensor, "row layer"]
    neuron: Int[Tensor, "neuron 3"]
    donor: Int[Tensor, " row"]

    @classmethod
    def of(cls, sets: Sequence[Iterable[Component]], shape: Shape, donor: int = SOURCE) -> "Rows":
        """One row for each set; an empty set is the unpatched run."""
        n = len(sets)
        whole = {kind: torch.zeros(n, shape.layers, dtype=torch.bool) for kind in ("attention", "mlp", "residual")}
        heads, neurons = torch.zeros(n, *shape, dtype=torch.bool), []
        for row, components in enumerate(sets):
            for kind, layer, number in components:
                if kind == "head":
                    heads[row, layer, number] = True
                elif kind == "neuron":
                    neurons.append((row, layer, number))
                else:
                    whole[kind][row, layer] = True
        listed = torch.tensor(neurons, dtype=torch.long).view(-1, 3)
        if len(outside := listed[(listed[:, 1] < 0) | (listed[:, 1] >= shape.layers)]):
            raise InputError(
                f"{Component('neuron', *outside[0, 1:].tolist())} is in none of the model's {shape.layers} layers; "
                f"name a layer from 0 to {shape.layers - 1}."
            )
        return cls(heads, **whole, neuron=listed, donor=torch.full((n,), donor))

    @classmethod
    def each(cls, kinds: Iterable[DenseKind], shape: Shape, donor: int = SOURCE) -> "Rows":
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
        return cls.of(_random_sets("head", n, like, [shape.heads] * shape.layers, seed), shape)

    @classmethod
    def random_neurons(
        cls, n: int, like: Collection[Component], widths: Sequence[int], shape: Shape, seed: int
    ) -> "Rows":
        """The same for a set of neurons; `widths`: how many each layer has (`rcm.models.points.Points.neurons`)."""
        return cls.of(_random_sets("neuron", n, like, widths, seed), shape)

    @classmethod
    def concat(cls, parts: Sequence["Rows"]) -> "Rows":
        before = accumulate((len(part) for part in parts[:-1]), initial=0)
        neurons = [part.neuron + torch.tensor([n, 0, 0]) for part, n in zip(parts, before, strict=True)]
        masks = {name: torch.cat([getattr(part, name) for part in parts]) for name in MASKS}
        return cls(**masks, neuron=torch.cat(neurons))

    def __len__(self) -> int:
        return len(self.donor)

    def __getitem__(self, index: Int[Tensor, " chosen"]) -> "Rows":
        """Only some of the rows, in this order."""
        # A row's neurons lie one after the other: so many, from this place of the list on.
        many = self.neuron[:, 0].bincount(minlength=len(self))
        first = (many.cumsum(0) - many)[index]
        many = many[index]
        row = torch.arange(len(index)).repeat_interleave(many)
        place = first[row] + torch.arange(len(row)) - (many.cumsum(0) - many)[row]
        masks = {name: getattr(self, name)[index] for name in MASKS}
        return Rows(**masks, neuron=torch.column_stack([row, self.neuron[place, 1:]]))

    @property
    def first_layer(self) -> Int[Tensor, " row"]:
        """The first layer that a row changes: before it, the row is the unpatched run. The last for an empty set."""
        changed = self.head.any(-1) | self.attention | self.mlp | self.residual
        changed[self.neuron[:, 0], self.neuron[:, 1]] = True
        last = changed.shape[1] - 1
        return torch.where(changed.any(-1), changed.int().argmax(-1), last)


def _random_sets(
    kind: Kind, n: int, like: Collection[Component], widths: Sequence[int], seed: int
) -> list[list[Component]]:
    """Sets with as many components in every layer as `like` has; `widths`: how many of the kind each layer has."""
    draw = np.random.default_rng(seed)
    layers = {one.layer for one in like}
    taken = {layer: {one.number for one in like if one.layer == layer} for layer in layers}

    def pool(layer: int, ours: set[int]) -> Sequence[int]:
        others = sorted(set(range(widths[layer])) - ours)
        return others if len(others) >= len(ours) else range(widths[layer])

    pools = [(layer, len(ours), pool(layer, ours)) for layer, ours in sorted(taken.items())]
    return [
        [
            Component(kind, layer, int(number))
            for layer, many, those in pools
            for number in draw.choice(those, many, replace=False)
        ]
        for _ in range(n)
    ]


MASKS = (*COMPONENT_KINDS, "donor")  # and what else has one entry for each row


def places(points: Points) -> dict[DenseKind, tuple[Sequence[nn.Module], Side]]:
    """Where each kind of component is read and replaced, neurons aside: a module for each layer, and the side of it."""
    return {
        "residual": (points.layers, "input"),
        "head": (points.head_out, "input"),
        "attention": (points.attention_out, "output"),
        "mlp": (points.mlp_out, "output"),
    }


def neurons_of(patches: Rows, points: Points) -> Iterator[tuple[int, nn.Module, PerNeuron, PerNeuron]]:
    """The layers of which rows change neurons: the down projection whose input they are, and the row and the number of
    each neuron. Raises InputError where a model has no such neurons."""
    for layer in patches.neuron[:, 1].unique().tolist():
        module, width = points.down_projection[layer], points.neurons[layer]
        if module is None:
            raise InputError(
                f"The MLP of layer {layer} has no down projection that rcm knows (in a mixture of experts each expert "
                "has one), so neurons cannot be patched there; patch heads, attention, MLPs or residual streams."
            )
        row, _, number = patches.neuron[patches.neuron[:, 1] == layer].unbind(1)
        if len(outside := number[(number < 0) | (number >= width)]):
            raise InputError(
                f"{Component('neuron', layer, int(outside[0]))} is none of the {width} neurons of its layer; name one "
                f"from 0 to {width - 1}."
            )
        yield layer, module, row, number
