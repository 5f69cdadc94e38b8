"""Interventions on the residual stream, as data that any forward pass or generation can take.

    Ablate   x <- x - (x . r) r          at block input, attention output and MLP output of every layer
    Add      x <- x + v                  at the input of one block
    Clamp    x <- x - (x . r) r + a r    at the input of one block
    Affine   the same at every block, with an `a` for each; and what attention and MLP write along r is removed

with r a unit vector, at every position and every generated token (Arditi et al. 2024, section 2.4). Clamping sets the
projection to `a` whatever it was; affine editing (ACE: Marshall et al. 2024, arXiv:2411.09003) keeps it there to the
end, as ablation keeps it at zero. Each holds one vector for each row of a batch, or one for all rows: prompts at many
strengths, and controls beside them, share a batch. A zero vector leaves its row alone.

Hooks are set once for a batch, and vectors are brought to the device of their layer then: not in every call of a hook,
of which a generated token makes three for each layer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcm.models.points import Points, device_of

Edit = Callable[[Tensor], Tensor]
Side = Literal["input", "output"]
Site = tuple[nn.Module, Side, Edit]


@runtime_checkable
class Intervention(Protocol):
    def rows(self, index: Sequence[int]) -> "Intervention":
        """The same intervention on some rows of the batch, in this order."""
        ...

    def sites(self, points: Points) -> Iterator[Site]:
        """Which modules to edit, at which side, and how."""
        ...


@dataclass(frozen=True)
class Ablate:
    """Remove a direction everywhere. `directions` are unit vectors, or zero."""

    directions: Float[Tensor, "row d_model"]

    def rows(self, index: Sequence[int]) -> "Ablate":
        return Ablate(_rows(self.directions, index))

    def sites(self, points: Points) -> Iterator[Site]:
        there: dict[torch.device, Tensor] = {}  # once for each device

        def edit(module: nn.Module) -> Edit:
            if (device := device_of(module)) not in there:
                there[device] = self.directions.to(device)
            r = there[device]
            return lambda x: without(by_row(x, len(r)), r).view_as(x)

        yield from ((layer, "input", edit(layer)) for layer in points.layers)
        yield from ((module, "output", edit(module)) for module in (*points.attention_out, *points.mlp_out))


@dataclass(frozen=True)
class Add:
    """Add a vector at the input of one block."""

    layer: int
    vectors: Float[Tensor, "row d_model"]

    def rows(self, index: Sequence[int]) -> "Add":
        return Add(self.layer, _rows(self.vectors, index))

    def sites(self, points: Points) -> Iterator[Site]:
        layer = points.layers[self.layer]
        vectors = self.vectors.to(device_of(layer))
        yield layer, "input", lambda x: x + _like(vectors, x)


@dataclass(frozen=True)
class Clamp:
    """Set the projection on a direction at the input of one block. `values` are in units of activation."""

    layer: int
    directions: Float[Tensor, "row d_model"]
    values: Float[Tensor, " row"]

    def rows(self, index: Sequence[int]) -> "Clamp":
        return Clamp(self.layer, _rows(self.directions, index), _rows(self.values, index))

    def sites(self, points: Points) -> Iterator[Site]:
        layer = points.layers[self.layer]
        r = self.directions.to(device_of(layer))
        goal = (self.values[:, None] * self.directions).to(device_of(layer))
        yield layer, "input", lambda x: without(x, r) + _like(goal, x)


@dataclass(frozen=True)
class Affine:
    """Set the projection on a direction everywhere: to its value for each layer, in units of activation."""

    directions: Float[Tensor, "row d_model"]
    values: Float[Tensor, "row layer"]

    def rows(self, index: Sequence[int]) -> "Affine":
        return Affine(_rows(self.directions, index), _rows(self.values, index))

    def sites(self, points: Points) -> Iterator[Site]:
        for layer in range(len(points.layers)):
            yield from Clamp(layer, self.directions, self.values[:, layer]).sites(points)
        yield from (site for site in Ablate(self.directions).sites(points) if site[1] == "output")


def without(x: Float[Tensor, "row token d_model"], directions: Float[Tensor, "#row d_model"]) -> Tensor:
    """The activations less their projection on unit directions, one for each row or one for all.

    Projected in float32: in bfloat16 the removed part would keep an error of one part in 256.
    """
    r = directions.float()[:, None]
    exact = x.float()
    return torch.addcmul(exact, (exact * r).sum(-1, keepdim=True), r, value=-1).to(x.dtype)


def by_row(x: Tensor, rows: int) -> Float[Tensor, "row token width"]:
    """What a module handed over, a row for each prompt: OPT's MLP has all tokens of all rows in one dimension."""
    return x if x.ndim == 3 else x.unflatten(0, (rows, -1))


class Applied:
    """Interventions that are at work; `narrow` leaves some rows of the batch."""

    def __init__(self, points: Points, interventions: Sequence[Intervention]) -> None:
        self._points, self._interventions = points, interventions
        self.sites = [site for one in interventions for site in one.sites(points)]

    def narrow(self, index: Sequence[int]) -> None:
        """From now on the batch is these of the rows that there were at first."""
        self.sites = [site for one in self._interventions for site in one.rows(index).sites(self._points)]

    def edit(self, place: int) -> Edit:
        return lambda x: self.sites[place][2](x)


@contextmanager
def applied(points: Points, interventions: Iterable[Intervention]) -> Iterator[Applied]:
    """Run the model with these interventions inside the block; the hooks are gone afterwards, whatever happens."""
    at_work = Applied(points, list(interventions))
    with ExitStack() as stack:
        for place, (module, side, _) in enumerate(at_work.sites):
            stack.callback(_hook(module, side, at_work.edit(place)).remove)
        yield at_work


def _hook(module: nn.Module, side: Side, edit: Edit) -> torch.utils.hooks.RemovableHandle:
    if side == "input":
        return module.register_forward_pre_hook(_input_hook(edit, device_of(module)), with_kwargs=True)
    return module.register_forward_hook(_output_hook(edit))


def _input_hook(edit: Edit, device: torch.device) -> Callable[..., Any]:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # accelerate brings the stream over behind this hook, where a model is spread over devices.
        if args:
            return (edit(args[0].to(device)), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"].to(device))}

    return hook


def _output_hook(edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return hook


def _rows(tensor: Tensor, index: Sequence[int]) -> Tensor:
    return tensor if len(tensor) == 1 else tensor[list(index)]


def _like(vectors: Float[Tensor, "row d_model"], x: Tensor) -> Float[Tensor, "row 1 d_model"]:
    return vectors[:, None].to(x.dtype)
