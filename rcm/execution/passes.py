"""What a model computes on prompts: logits at the last token, residual streams at the end of the instruction.

Prompts go in batches of like length, so that little is spent on padding, and what every prompt of a template begins
with (a system prompt is half of a short one) is read once for all. Results come back in the order given.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from rcm.execution import self_checks
from rcm.execution.interventions import Intervention, Site, applied
from rcm.execution.progress import track
from rcm.models import LoadedModel
from rcm.models.points import Points
from rcm.models.template import Batch


class Residuals(NamedTuple):
    """What one pass over prompts saw, float32 on the CPU. `residuals` are at the input of every block."""

    prompts: list[str]
    logits: Float[Tensor, "prompt vocabulary"]
    residuals: Float[Tensor, "prompt position layer d_model"]

    def where(self, mask: Bool[Tensor, " prompt"]) -> "Residuals":
        """Only the prompts where the mask is true."""
        chosen = [prompt for prompt, keep in zip(self.prompts, mask.tolist(), strict=True) if keep]
        return Residuals(chosen, self.logits[mask], self.residuals[mask])

    def at(self, row: int, layer: int) -> Float[np.ndarray, "prompt d_model"]:
        """Activations at one position (by its row) and layer."""
        return self.residuals[:, row, layer].numpy()


@torch.inference_mode()
def last_logits(
    model: LoadedModel, prompts: Sequence[str], interventions: Sequence[Intervention] = ()
) -> Float[Tensor, "prompt vocabulary"]:
    """Logits of the first token of the reply, float32 on the CPU. The interventions hold one row, for all prompts."""
    rows: list[Tensor] = [torch.empty(0)] * len(prompts)
    shared = shared_tokens(model, prompts)
    with applied(model.points, interventions):
        begun = beginning(model, shared)
        for index, batch in batches(model, prompts, skip=shared):
            _scatter(batch_logits(model, batch, repeated(begun, len(index)))[:, -1].float(), rows, index)
    return torch.stack(rows)


@torch.inference_mode()
def read_residuals(model: LoadedModel, prompts: Sequence[str], positions: Sequence[int], label: str) -> Residuals:
    """Logits and residual streams (`resid_pre`) in one pass.

    `positions` are negative: -1 is the last token of the prompt, where the reply begins.
    """
    logits: list[Tensor] = [torch.empty(0)] * len(prompts)
    streams: list[Tensor] = [torch.empty(0)] * len(prompts)
    shared = shared_tokens(model, prompts)
    begun = beginning(model, shared)
    recorders = [_Recorder(layer, list(positions)) for layer in range(model.n_layers)]
    with applied(model.points, recorders):
        for index, batch in track(list(batches(model, prompts, skip=shared)), label):
            _scatter(batch_logits(model, batch, repeated(begun, len(index)))[:, -1].float(), logits, index)
            _scatter(torch.stack([recorder.stream for recorder in recorders], dim=2), streams, index)
    return Residuals(list(prompts), torch.stack(logits), torch.stack(streams))


def batches(
    model: LoadedModel, prompts: Sequence[str], skip: int = 0, size: int | None = None
) -> Iterator[tuple[list[int], Batch]]:
    """Indices into `prompts`, and their tokens without the first `skip`, on the model's device; `batch_size` at once,
    or `size`."""
    size = size or model.batch_size
    order = sorted(range(len(prompts)), key=lambda index: len(model.template.tokens(prompts[index])))
    for start in range(0, len(order), size):
        index = order[start : start + size]
        yield index, model.template.batch([prompts[i] for i in index], model.device, skip)


class _Recorder:
    """An intervention that changes nothing and keeps what it saw last at the input of one block."""

    def __init__(self, layer: int, positions: list[int]) -> None:
        self.layer, self.positions = layer, positions
        self.stream: Float[Tensor, "row position d_model"] = torch.empty(0)

    def rows(self, index: Sequence[int]) -> "_Recorder":
        return self

    def sites(self, points: Points) -> Iterator[Site]:
        yield points.layers[self.layer], "input", self._keep

    def _keep(self, x: Tensor) -> Tensor:
        self.stream = x[:, self.positions].float()
        return x


def shared_tokens(model: LoadedModel, prompts: Sequence[str]) -> int:
    """How many tokens to read once for all prompts."""
    return self_checks.shared_tokens(model, (len(model.template.tokens(prompt)) for prompt in prompts))


def beginning(model: LoadedModel, shared: int, rows: int = 1) -> DynamicCache | None:
    """Keys and values of the `shared` tokens, if there are any, in rows that differ only where interventions do."""
    if not shared:
        return None
    cache = DynamicCache(config=model.hf.config)
    ids = torch.tensor([model.template.beginning] * rows, device=model.device)
    model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def repeated(begun: DynamicCache | None, times: int) -> DynamicCache | None:
    """A copy with each row so many times over, for a pass to append to."""
    if begun is None:
        return None
    cache = copy.copy(begun)
    cache.layers = [copy.copy(layer) for layer in begun.layers]
    cache.batch_repeat_interleave(times)
    return cache


def batch_logits(
    model: LoadedModel, batch: Batch, begun: DynamicCache | None, keep: int = 1
) -> Float[Tensor, "row {keep} vocabulary"]:
    """Logits at the last `keep` tokens of rows that lack their beginning; `begun` has a row for each, and is used up.

    Logits of all tokens would cost a fifth of a small model's pass, and most memory.
    """
    mask, positions = batch.attention_mask, batch.position_ids
    if begun is not None:
        shared = begun.get_seq_length()
        mask, positions = torch.cat([mask.new_ones(len(mask), shared), mask], dim=1), shared + positions
    output = model.hf(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=begun,
        use_cache=begun is not None,
        logits_to_keep=keep,
    )
    return cast(Tensor, output.logits)


def _scatter(values: Float[Tensor, "row ..."], into: list[Tensor], index: Sequence[int]) -> None:
    for row, i in enumerate(index):
        into[i] = values[row].cpu()
