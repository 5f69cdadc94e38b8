"""One ordinary pass over prompts, and all that patching needs of it. What they all begin with is read once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rcm.errors import InputError
from rcm.execution.components import COMPONENT_KINDS, Kind, PerNeuron, Shape, places
from rcm.execution.interventions import Edit, Site, applied, by_row
from rcm.execution.self_checks import may_share
from rcm.models import LoadedModel
from rcm.models.points import Points
from rcm.models.template import Batch, common_beginning

WORTH_SHARING = 64  # tokens: to save fewer, a pass of its own over the beginning costs more time than it saves


class Values(NamedTuple):
    """What every component puts out at one token of each prompt. Layers may have heads of different widths (Gemma 4):
    `d_head` is the widest, behind what narrower ones put out are zeros (`of_width` leaves them away). Neurons, too, and
    where they were not recorded `d_mlp` is 0."""

    head: Float[Tensor, "layer prompt head d_head"]
    attention: Float[Tensor, "layer prompt d_model"]
    mlp: Float[Tensor, "layer prompt d_model"]
    residual: Float[Tensor, "layer prompt d_model"]
    neuron: Float[Tensor, "layer prompt d_mlp"]

    def of_neurons(self, layer: int, number: PerNeuron) -> Float[Tensor, "prompt neuron"]:
        """What these neurons of a layer put out; InputError where neurons were not recorded."""
        if not self.neuron.shape[-1]:
            raise InputError(
                f"Neurons of layer {layer} are to be patched, and the donor's were not recorded; call "
                "cache_components with neurons=True."
            )
        return self.neuron[layer][:, number]


@dataclass(frozen=True)
class ComponentCache:
    """`cache`: each layer's keys and values at every token of a batch; `tail`: what each kind of component put out at
    the last tokens, neurons only where they were asked for."""

    batch: Batch
    cache: Sequence[tuple[Float[Tensor, "prompt kv_head token _"], Float[Tensor, "prompt kv_head token _"]]]
    tail: dict[Kind, Float[Tensor, "layer prompt tail *width"]]
    shape: Shape

    @property
    def length_of_tail(self) -> int:
        return self.tail["residual"].shape[2]

    def __len__(self) -> int:
        return len(self.batch.input_ids)

    def __getitem__(self, prompts: slice) -> "ComponentCache":
        """Only some of the prompts."""
        batch = Batch(self.batch.input_ids[prompts], self.batch.attention_mask[prompts])
        cache = [(keys[prompts], values[prompts]) for keys, values in self.cache]
        return ComponentCache(batch, cache, {kind: tail[:, prompts] for kind, tail in self.tail.items()}, self.shape)

    def at(self, position: int) -> Values:
        """What the components put out at a token of the tail, -1 being the last."""
        return Values(**{kind: tail[:, :, position] for kind, tail in self.tail.items()})


def of_width(heads: Float[Tensor, "*prompt head d_head"], width: int) -> Float[Tensor, "*prompt head d_layer"]:
    """What a layer's heads put out, which is `width` numbers for all of them."""
    return heads[..., : width // heads.shape[-2]]


def shape_of(model: LoadedModel) -> Shape:
    return Shape(model.n_layers, int(model.config.num_attention_heads))


@torch.inference_mode()
def cache_components(
    model: LoadedModel, prompts: Sequence[Sequence[int]], tail: int = 1, neurons: bool = False
) -> ComponentCache:
    """Run token rows, which may differ in length, and keep what their last `tail` tokens computed.

    `neurons`: also what those of the MLPs put out, layers x prompts x `tail` x d_mlp numbers; nothing in layers that
    have no down projection.
    """
    shape = shape_of(model)
    beginning = _beginning(model, prompts, tail)
    batch = model.template.padded(prompts, model.device, beginning)
    keeper = _Keeper(len(prompts), tail, shape, neurons)
    cache = _cache(model)
    if beginning:
        model.hf(input_ids=batch.input_ids[:1, :beginning], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(prompts))
    with applied(model.points, [keeper]):
        model.hf(
            input_ids=batch.input_ids[:, beginning:],
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids[:, beginning:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    stacked: dict[Kind, Tensor] = {
        kind: _stacked([keeper.seen[kind, layer] for layer in range(shape.layers)], model.device)
        for kind in COMPONENT_KINDS
    }
    none = stacked["residual"].new_empty(len(prompts), tail, 0)
    neurons_seen = [keeper.seen.get(("neuron", layer), none) for layer in range(shape.layers)]
    stacked["neuron"] = _stacked(neurons_seen, model.device)
    # A layer that keeps a state instead of keys has nothing to share; rcm.execution.engine notices.
    kept = [
        (layer.keys, layer.values)
        for layer in cache.layers
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    ]
    return ComponentCache(batch, kept, stacked, shape)


def _cache(model: LoadedModel) -> DynamicCache:
    """As its layers need it, but that none forgets what has left its window: later rows may see it."""
    cache = DynamicCache(config=model.hf.config)
    cache.layers = [DynamicLayer() if isinstance(one, DynamicSlidingWindowLayer) else one for one in cache.layers]
    return cache


def _stacked(layers: Sequence[Tensor], device: torch.device) -> Tensor:
    """Of layers whose last dimension differs, with zeros up to the longest; on one device, wherever the layers lie."""
    widest = max(layer.shape[-1] for layer in layers)
    return torch.stack([nn.functional.pad(layer.to(device), (0, widest - layer.shape[-1])) for layer in layers])


def _beginning(model: LoadedModel, prompts: Sequence[Sequence[int]], tail: int) -> int:
    """How many tokens to read once for all prompts, none of their tails among them.

    None where the padding between the beginning and a shorter prompt would count.
    """
    lengths = [len(prompt) for prompt in prompts]
    if not may_share(model, lengths):
        return 0
    shared = min(len(common_beginning(prompts)), min(lengths) - tail)
    return shared if shared * (len(prompts) - 1) > WORTH_SHARING else 0


class _Keeper:
    """An intervention that changes nothing and keeps what it sees at the last tokens."""

    def __init__(self, prompts: int, tail: int, shape: Shape, neurons: bool) -> None:
        self.prompts, self.tail, self.shape, self.neurons = prompts, tail, shape, neurons
        self.seen: dict[tuple[Kind, int], Tensor] = {}

    def rows(self, index: Sequence[int]) -> "_Keeper":
        return self

    def sites(self, points: Points) -> Iterator[Site]:
        for kind, (modules, side) in places(points).items():
            for layer, module in enumerate(modules):
                yield module, side, self._keep(kind, layer)
        for layer, down in enumerate(points.down_projection if self.neurons else ()):
            if down is not None:
                yield down, "input", self._keep("neuron", layer)

    def _keep(self, kind: Kind, layer: int) -> Edit:
        def keep(x: Tensor) -> Tensor:
            seen = by_row(x, self.prompts)[:, -self.tail :].clone()
            self.seen[kind, layer] = seen.unflatten(-1, (self.shape.heads, -1)) if kind == "head" else seen
            return x

        return keep
