"""The named points of a model at which activations are read and changed.

`layers[l]` is a block; its input is the residual stream before it (`resid_pre`). The input of `head_out[l]`, the output
projection of attention, is what the heads put out, side by side (`z`); that of `mlp_in[l]` is what the MLP reads,
behind its norm; that of `down_projection[l]` is what the MLP's neurons put out (`post`), None where an MLP has no such
layer, as a mixture of experts, whose neurons run for some tokens only. `attention_out[l]` and `mlp_out[l]` are the
modules whose outputs are *written to the residual stream*: the output projections (Bloom's attention and MLP add the
stream themselves), and in models that normalise after a sublayer (Gemma 2 and 3) that norm. Paths come from
TransformerLens' architecture adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from rcm.errors import InputError


@dataclass(frozen=True)
class Points:
    """Modules of one model, one entry for each layer."""

    layers: Sequence[nn.Module]
    head_out: Sequence[nn.Module]
    attention_out: Sequence[nn.Module]
    mlp_in: Sequence[nn.Module]
    mlp_out: Sequence[nn.Module]
    down_projection: Sequence[nn.Module | None]

    @property
    def neurons(self) -> tuple[int, ...]:
        """How many neurons the MLP of each layer has: the width of its down projection's input, 0 where it has none."""
        return tuple(0 if module is None else _input_width(module) for module in self.down_projection)


def _input_width(module: nn.Module) -> int:
    """Of a linear layer, whatever it is called there (GPT-2's Conv1D: `nx`); 0 of any other module."""
    return int(getattr(module, "in_features", 0) or getattr(module, "nx", 0))


def output_weight(projection: nn.Module) -> Float[Tensor, "d_model width"]:
    """Of a linear layer that writes to the stream; GPT-2's lies transposed. What is quantised, or lies elsewhere and is
    brought in for a pass (accelerate), is seen by what the layer does."""
    weight = cast(Tensor, projection.weight)
    if not weight.is_floating_point() or weight.is_meta:
        return _seen(projection)
    return weight if isinstance(projection, nn.Linear) else weight.T


@torch.no_grad()
def _seen(projection: nn.Module) -> Float[Tensor, "d_model width"]:
    """What each unit vector comes out as, without what nothing comes out as."""
    dtype = next((one.dtype for one in projection.parameters() if one.is_floating_point()), torch.float32)
    units = torch.eye(_input_width(projection), dtype=dtype, device=device_of(projection))
    return (projection(units) - projection(torch.zeros_like(units[:1]))).T


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes; of one whose weights accelerate brings in for each pass, where they are brought."""
    hook = getattr(module, "_hf_hook", None)
    brought: Any = getattr(hook, "execution_device", None)
    if brought is not None:
        return torch.device(brought)
    found = next(module.parameters(), next(module.buffers(), None))
    return torch.device("cpu") if found is None else found.device


def points_of(hf: PreTrainedModel) -> Points:
    """The points of a Hugging Face causal model, with or without weights; InputError where TransformerLens knows no
    such architecture, or where not every layer has attention and MLP of one kind (hybrids, state-space models)."""
    try:
        return _points(hf, _component_mapping(hf))
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"The layers of {type(hf).__name__} are not all made of attention and an MLP that write to one stream "
            f"({error}), so rcm cannot find its points; choose another model."
        ) from error


def _points(hf: PreTrainedModel, mapping: Any) -> Points:
    blocks = mapping["blocks"]
    parts = blocks.submodules
    layers = list(_submodule(hf, blocks.name).children())

    def projections(sublayer: str, name: str) -> list[nn.Module]:
        part = parts[sublayer]
        if name not in part.submodules:  # a mixture of experts has no projection of its own
            return [_submodule(layer, part.name) for layer in layers]
        # OPT's MLP is two bare linear layers of the block, and has no name.
        path = ".".join(filter(None, (part.name, part.submodules[name].name)))
        return [_submodule(layer, path) for layer in layers]

    def written(projected: list[nn.Module], norm: str) -> list[nn.Module]:
        return [_submodule(layer, parts[norm].name) for layer in layers] if norm in parts else projected

    head_out, projected, mlp = projections("attn", "o"), projections("mlp", "out"), parts["mlp"]
    return Points(
        layers,
        head_out,
        attention_out=written(head_out, "ln1_post"),
        mlp_in=[_submodule(layer, mlp.name or mlp.submodules["in"].name) for layer in layers],
        mlp_out=written(projected, "ln2_post"),
        down_projection=[module if _input_width(module) else None for module in projected],
    )


def _component_mapping(hf: PreTrainedModel) -> Any:  # TransformerLens leaves its type open
    # Imported here because TransformerLens takes seconds to import, and only runs that load weights need it.
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    architecture = type(hf).__name__
    try:
        config = build_bridge_config_from_hf(hf.config, architecture, architecture, hf.dtype)
        return ArchitectureAdapterFactory.select_architecture_adapter(config).component_mapping
    except ValueError as error:
        raise InputError(
            f"TransformerLens has no adapter for the architecture {architecture}, so rcm cannot find its layers; "
            "choose another model."
        ) from error


def _submodule(root: nn.Module, path: str) -> nn.Module:
    return reduce(getattr, path.split("."), root)
