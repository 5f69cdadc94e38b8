"""What a model computes on prompts: logits at the last token, residual streams at the end of the instruction.

Prompts go in batches of like length, so that little is spent on padding, and what every prompt of a template begins
with (a system prompt is half of a short one) is read once for each batch. Results come back in the order given.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from rcm.interventions import Intervention, Site, applied
from rcm.models import LoadedModel
from rcm.models.points import Points
from rcm.models.template import Batch
from rcm.progress import track


class Recording(NamedTuple):
    """What one pass over prompts saw, float32 on the CPU. `residuals` are at the input of every block."""

    prompts: list[str]
    logits: Float[Tensor, "prompt vocabulary"]
    residuals: Float[Tensor, "prompt position layer d_model"]

    def where(self, mask: Bool[Tensor, " prompt"]) -> "Recording":
        """Only the prompts where the mask is true."""
        chosen = [prompt for prompt, keep in zip(self.prompts, mask.tolist(), strict=True) if keep]
        return Recording(chosen, self.logits[mask], self.residuals[mask])

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
        for index, batch in batches(model, prompts, skip=shared):
            _scatter(batch_logits(model, batch, shared)[:, -1].float(), rows, index)
    return torch.stack(rows)


@torch.inference_mode()
def record(model: LoadedModel, prompts: Sequence[str], positions: Sequence[int], label: str) -> Recording:
    """Logits and residual streams (`resid_pre`) in one pass.

    `positions` are negative: -1 is the last token of the prompt, where the reply begins.
    """
    logits: list[Tensor] = [torch.empty(0)] * len(prompts)
    streams: list[Tensor] = [torch.empty(0)] * len(prompts)
    shared = shared_tokens(model, prompts)
    recorders = [_Recorder(layer, list(positions)) for layer in range(model.n_layers)]
    with applied(model.points, recorders):
        for index, batch in track(list(batches(model, prompts, skip=shared)), label):
            _scatter(batch_logits(model, batch, shared)[:, -1].float(), logits, index)
            _scatter(torch.stack([recorder.stream for recorder in recorders], dim=2), streams, index)
    return Recording(list(prompts), torch.stack(logits), torch.stack(streams))


def batches(model: LoadedModel, prompts: Sequence[str], skip: int = 0) -> Iterator[tuple[list[int], Batch]]:
    """Indices into `prompts`, and their tokens without the first `skip`, on the model's device."""
    order = sorted(range(len(prompts)), key=lambda index: len(model.template.tokens(prompts[index])))
    for start in range(0, len(order), model.batch_size):
        index = order[start : start + model.batch_size]
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
        if x.shape[1] >= -min(self.positions):  # the pass over the shared beginning may be shorter
            self.stream = x[:, self.positions].float()
        return x


def shared_tokens(model: LoadedModel, prompts: Sequence[str]) -> int:
    """How many tokens to read once for all prompts.

    None where a prompt outgrows a sliding window: the padding between the beginning and a shorter prompt would count.
    """
    window = getattr(model.hf.config, "sliding_window", None)
    if window and any(len(model.template.tokens(prompt)) > window for prompt in prompts):
        return 0
    return len(model.template.beginning)


def batch_logits(
    model: LoadedModel, batch: Batch, shared: int, keep: int = 1
) -> Float[Tensor, "row {keep} vocabulary"]:
    """Logits at the last `keep` tokens of rows that lack their first `shared` tokens, which are read once for all.

    Logits of all tokens would cost a fifth of a small model's pass, and most memory.
    """
    mask, positions, cache = batch.attention_mask, batch.position_ids, None
    if shared:
        cache = DynamicCache(config=model.hf.config)
        beginning = torch.tensor([model.template.beginning], device=model.device)
        model.hf(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
        rows = len(batch.input_ids)
        cache.batch_repeat_interleave(rows)
        mask, positions = torch.cat([mask.new_ones(rows, shared), mask], dim=1), shared + positions
    output = model.hf(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=keep,
    )
    return cast(Tensor, output.logits)


def _scatter(values: Float[Tensor, "row ..."], into: list[Tensor], index: Sequence[int]) -> None:
    for row, i in enumerate(index):
        into[i] = values[row].cpu()
