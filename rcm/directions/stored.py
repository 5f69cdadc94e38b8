"""The vectors that a run stores: every direction, with the metadata without which it means nothing, and activations."""

import json
from collections.abc import Sequence

import torch

from rcm.directions.fit import Activations
from rcm.directions.readability import Fits, Means
from rcm.models import LoadedModel
from rcm.record.identity import prompt_digest
from rcm.record.results import Tensors


def directions(
    model: LoadedModel,
    positions: Sequence[int],
    scored: Means,
    fits: Fits,
) -> Tensors:
    """`scored`: of the training prompts that directions are intervened with of; `fits` are to every one of them."""
    arrays = {
        "mean_difference": scored.difference,
        "mean_difference_all": fits.mean_difference,
        "principal": fits.principal,
        "probe": fits.probe_directions,
        "shuffled": fits.shuffled,
        "harmful_mean": scored.harmful,
        "harmless_mean": scored.harmless,
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    metadata = {
        "shape": "position, layer, d_model; shuffled: position, layer, draw, d_model",
        "prompts": (
            "mean_difference and the means: the training prompts that were kept (direction/kept); all others: all "
            "training prompts, so that two models' are of the same"
        ),
        "positions": str(list(positions)),
        "hook_point": "resid_pre",
        "layer_convention": "layer l is the input of block l, counted from 0",
        "dtype": model.identity.get("dtype", ""),
        "template": model.template.described,
        "template_hash": model.template.digest,
        "end_of_instruction": str(model.template.end_of_instruction_text),
        "model": model.identity.get("name", ""),
        "model_revision": model.identity.get("revision", ""),
        "adapter": model.identity.get("adapter", ""),
    }
    return Tensors(
        "direction/directions", {name: tensor.float() for name, tensor in tensors.items()}, metadata, "directions"
    )


def harmless_activations(
    model: LoadedModel, prompts: Sequence[str], activations: Activations, position: int, layer: int
) -> Tensors:
    """Activations on harmless training prompts at the place: what a map to a model of another shape is fitted on."""
    metadata = {
        "shape": "prompt, d_model",
        "position": str(position),
        "layer": str(layer),
        "prompts": json.dumps([prompt_digest(prompt) for prompt in prompts]),
        "template_hash": model.template.digest,
    }
    tensors = {"activations": torch.from_numpy(activations)}
    return Tensors("direction/harmless", tensors, metadata, "activations on harmless prompts")
