"""Greedy replies under interventions.

Every row of a batch may carry its own prompt, direction and strength: the dose-response of many prompts at many
strengths, with its controls, is one call. Rows share what `rcm.execution.shared_prefix` lets them share,
and one whose turn has ended leaves the batch. The texts are those of transformers' own greedy decoding.
"""

from collections.abc import Sequence

import torch

from rcm.execution.batches import LONGER, in_batches, rows_at_once
from rcm.execution.interventions import Intervention, applied
from rcm.execution.self_checks import may_branch, shared_tokens
from rcm.execution.shared_prefix import Tokens, read, select
from rcm.models import LoadedModel


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
    """The same as token ids, with the one that ends the turn where there was one."""
    encoded = {prompt: tuple(model.template.tokens(prompt)) for prompt in dict.fromkeys(prompts)}
    asked = [encoded[prompt] for prompt in prompts]
    shared = shared_tokens(model, (len(tokens) + max_new_tokens for tokens in asked))
    rows: list[list[int]] = [[]] * len(prompts)
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i]), asked[i]))  # and rows of one prompt together

    def answered(index: list[int]) -> list[list[int]]:
        chosen = [intervention.rows(index) for intervention in interventions]
        return _decoded(model, [asked[i] for i in index], chosen, shared, max_new_tokens)

    for index, answers in in_batches(model, order, rows_at_once(model, LONGER), answered, "replies", label):
        for i, tokens in zip(index, answers, strict=True):
            rows[i] = tokens
    return rows


def _decoded(
    model: LoadedModel, asked: Sequence[Tokens], interventions: Sequence[Intervention], shared: int, most: int
) -> list[list[int]]:
    """The likeliest token again and again. Rows that end leave the cache, the mask and the interventions."""
    ends = stops(model)
    logits, cache, mask = read(model, asked, interventions, shared, branch=may_branch(model))
    replies: list[list[int]] = [[] for _ in asked]
    speaking = list(range(len(asked)))
    with applied(model.points, interventions) as at_work:
        while True:
            tokens = logits[:, -1].float().argmax(-1)
            for row, token in zip(speaking, tokens.tolist(), strict=True):
                replies[row].append(token)
            going = [i for i, row in enumerate(speaking) if replies[row][-1] not in ends]
            if not going or len(replies[speaking[going[0]]]) == most:
                return replies
            if len(going) < len(speaking):
                left = torch.tensor(going, device=tokens.device)
                select(cache, left)
                tokens, mask, speaking = tokens[left], mask[left], [speaking[i] for i in going]
                at_work.narrow(speaking)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = model.hf(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=mask.sum(-1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits


def stops(model: LoadedModel) -> set[int]:
    """Every token that ends the turn."""
    ends: int | list[int] | None = model.hf.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())
