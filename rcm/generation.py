"""Greedy replies under interventions.

Every row of a batch may carry its own prompt, direction and strength: the dose-response of many prompts at many
strengths, with its controls, is one call. Decoding is transformers' own, with its cache; it stops at every token that
ends the turn.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from rcm.forward import batches
from rcm.interventions import Intervention, applied
from rcm.models import LoadedModel
from rcm.progress import track


def replies(
    model: LoadedModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    interventions: Sequence[Intervention] = (),
    label: str = "replies",
) -> list[str]:
    """What the model answers, at most `max_new_tokens` long. Rows of the interventions are rows of `prompts`."""
    return [model.template.reply(row) for row in reply_tokens(model, prompts, max_new_tokens, interventions, label)]


@torch.inference_mode()
def reply_tokens(
    model: LoadedModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    interventions: Sequence[Intervention] = (),
    label: str = "replies",
) -> list[list[int]]:
    """The same as token ids, with the one that ends the turn where there was one, and padding after it."""
    rows: list[list[int]] = [[]] * len(prompts)
    for index, batch in track(list(batches(model, prompts)), label):
        with applied(model.points, [intervention.rows(index) for intervention in interventions]):
            generate = cast(Callable[..., Tensor], model.hf.generate)
            tokens = generate(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=max_new_tokens
            )
        for row, i in enumerate(index):
            rows[i] = tokens[row, batch.input_ids.shape[1] :].tolist()
    return rows
