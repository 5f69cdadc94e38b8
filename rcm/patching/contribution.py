"""What each head writes along a direction: its direct contribution, without running anything again.

A head's output goes through its slice of the output projection, and in models that normalise after attention through
that norm (an RMS norm in all of them), whose scale is taken as it was on the prompt. Biases belong to no head.

Only what stands before a place can write what is read there: a direction read at the input of layer l, at one token, is
written by heads of earlier layers at that token.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.recording import Values, cache_components, of_width, shape_of
from rcm.models import LoadedModel
from rcm.models.points import output_weight
from rcm.patching.interchange import Pair, by_length


def written_shares(
    model: LoadedModel, pairs: Sequence[Pair], vector: Float[Tensor, " d_model"], layer: int, position: int
) -> Float[Tensor, "pair layer head"]:
    """What each head writes along a direction more on the harmful prompt of a pair than on the harmless one, as a share
    of the direction's natural length; NaN for heads that cannot write it where it is read."""
    written = torch.full((len(pairs), model.n_layers, shape_of(model).heads), torch.nan)

    def of(index: list[int]) -> Float[Tensor, "pair layer head"]:
        prompts = [pairs[i][side] for side in (0, 1) for i in index]
        values = cache_components(model, prompts, tail=-position).at(position)
        harmful, harmless = contributions(model, values, vector).tensor_split(2, dim=1)
        return ((harmful - harmless)[:layer] / vector.cpu().square().sum()).transpose(0, 1)

    at_once, label = max(1, rows_at_once(model) // 2), "patching: what heads write"
    for index, shares in in_batches(model, by_length(pairs), at_once, of, "pairs", label):
        written[index, :layer] = shares
    return written


@torch.inference_mode()
def contributions(
    model: LoadedModel, values: Values, direction: Float[Tensor, " d_model"]
) -> Float[Tensor, "layer prompt head"]:
    """Inner product of a direction and what each head writes to the residual stream; on the CPU."""
    scale = getattr(model.config, "residual_multiplier", 1.0)  # Granite's, of all that is written
    return scale * torch.stack([_of_layer(model, values, direction, layer) for layer in range(model.n_layers)])


def _of_layer(
    model: LoadedModel, values: Values, direction: Float[Tensor, " d_model"], layer: int
) -> Float[Tensor, "prompt head"]:
    projection = model.points.head_out[layer]
    weight = output_weight(projection)
    heads = of_width(values.head[layer].to(weight.device), weight.shape[1])
    writer = model.points.attention_out[layer]
    read = direction.to(heads).expand(len(heads), -1)
    if projection not in set(writer.modules()):  # but the norm after attention
        # It scales every vector of one length alike; its output over its input would be noise where both are near zero.
        length = projection(heads.flatten(1)).square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
        read = read * writer(length.expand_as(read)) / length
    return ((read @ weight).unflatten(-1, heads.shape[1:]) * heads).sum(-1).float().cpu()
