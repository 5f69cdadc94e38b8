"""The vectors that a run stores: every direction, with the metadata without which it means nothing, and activations."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from rcm.directions.fit import shuffled_differences
from rcm.directions.readability import Fits
from rcm.directions.recorded import Recorded
from rcm.execution.passes import Residuals
from rcm.models import LoadedModel
from rcm.record.identity import prompt_digest
from rcm.record.results import Tensors

DRAWN = 20  # mean differences of shuffled labels that are kept for every place


def directions(
    model: LoadedModel,
    positions: Sequence[int],
    every: Recorded,
    kept: Recorded,
    mean_difference: Float[np.ndarray, "position layer d_model"],
    fits: Fits,
    seed: int,
) -> Tensors:
    """`kept`: the training prompts that `mean_difference` is of; `fits` are to `every` one of them."""
    means = {f"{name}_mean": side.residuals.mean(0, dtype=torch.float64) for name, side in kept._asdict().items()}
    arrays = {
        "mean_difference": mean_difference,
        "mean_difference_all": fits.mean_difference,
        "principal": fits.principal,
        "probe": fits.probe_directions,
        "shuffled": _shuffled(every, seed),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()} | means
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


def _shuffled(train: Recorded, seed: int) -> Float[np.ndarray, "position layer draw d_model"]:
    """Mean differences of labels that tell nothing, the same labels everywhere: the null of cosines between models."""
    rows, layers = train.harmful.residuals.shape[1:3]
    return np.stack(
        [[shuffled_differences(*train.at(row, layer), DRAWN, seed) for layer in range(layers)] for row in range(rows)]
    )


def harmless_activations(model: LoadedModel, harmless: Residuals, row: int, position: int, layer: int) -> Tensors:
    """Activations on harmless training prompts at the place: what a map to a model of another shape is fitted on."""
    metadata = {
        "shape": "prompt, d_model",
        "position": str(position),
        "layer": str(layer),
        "prompts": json.dumps([prompt_digest(prompt) for prompt in harmless.prompts]),
        "template_hash": model.template.digest,
    }
    activations = harmless.residuals[:, row, layer].float()
    return Tensors("direction/harmless", {"activations": activations}, metadata, "activations on harmless prompts")
