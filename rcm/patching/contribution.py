"""What each head writes along a direction: its direct contribution, without running anything again.

A head's output goes through its slice of the output projection, and in models that normalise after attention through
that norm, whose scale is taken as it was on the prompt. Biases belong to no head.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcm.models import LoadedModel
from rcm.patching.recording import Values


@torch.inference_mode()
def contributions(
    model: LoadedModel, values: Values, direction: Float[Tensor, " d_model"]
) -> Float[Tensor, "layer prompt head"]:
    """Projection of what each head writes to the residual stream on a unit direction, in units of activation."""
    return torch.stack([_of_layer(model, values, direction, layer) for layer in range(model.n_layers)])


def _of_layer(
    model: LoadedModel, values: Values, direction: Float[Tensor, " d_model"], layer: int
) -> Float[Tensor, "prompt head"]:
    projection, heads = model.points.head_out[layer], values.head[layer]
    weight = cast(Tensor, projection.weight)
    weight = weight if isinstance(projection, nn.Linear) else weight.T  # GPT-2's lies transposed
    projected, written = projection(heads.flatten(1)), values.attention[layer]
    scale = torch.where(projected.isclose(written), 1.0, written / projected)  # of the norm between, if there is one
    read = (direction.to(heads) * scale) @ weight
    return (read.unflatten(-1, heads.shape[1:]) * heads).sum(-1).float()
