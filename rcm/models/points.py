"""The named points of a model at which activations are read and changed.

`layers[l]` is a block; its input is the residual stream before it (`resid_pre`). The input of `head_out[l]`, the output
projection of attention, is what the heads put out, side by side (`z`). `attention_out[l]` and `mlp_out[l]` are the
modules whose outputs are *written to the residual stream*: the last module before the addition, which in models that
normalise after a sublayer (Gemma 2 and 3) is that norm. Paths come from TransformerLens' architecture adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from rcm.errors import InputError


@dataclass(frozen=True)
class Points:
    """Modules of one model, one entry for each layer."""

    layers: Sequence[nn.Module]
    head_out: Sequence[nn.Module]
    attention_out: Sequence[nn.Module]
    mlp_out: Sequence[nn.Module]


def points_of(hf: PreTrainedModel) -> Points:
    """The points of a Hugging Face causal model; InputError where TransformerLens knows no such architecture."""
    mapping = _component_mapping(hf)
    blocks = mapping["blocks"]
    parts = blocks.submodules
    layers = list(_submodule(hf, blocks.name).children())

    def written_by(sublayer: str, norm: str) -> list[nn.Module]:
        part = parts.get(norm) or parts[sublayer]
        path = part.name or part.submodules["out"].name  # OPT's MLP is two bare linear layers of the block
        return [_submodule(layer, path) for layer in layers]

    attention = parts["attn"]
    projection = f"{attention.name}.{attention.submodules['o'].name}"
    head_out = [_submodule(layer, projection) for layer in layers]
    return Points(layers, head_out, written_by("attn", "ln1_post"), written_by("mlp", "ln2_post"))


def _component_mapping(hf: PreTrainedModel) -> Any:  # TransformerLens leaves its type open
    # Imported here because TransformerLens takes seconds to import, and only runs that load weights need it.
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    architecture = type(hf).__name__
    config = build_bridge_config_from_hf(hf.config, architecture, architecture, hf.dtype)
    try:
        return ArchitectureAdapterFactory.select_architecture_adapter(config).component_mapping
    except ValueError as error:
        raise InputError(
            f"TransformerLens has no adapter for the architecture {architecture}, so rcm cannot find its layers; "
            "choose another model."
        ) from error


def _submodule(root: nn.Module, path: str) -> nn.Module:
    return reduce(getattr, path.split("."), root)
