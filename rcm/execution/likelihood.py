"""What interventions do to the prediction of a given text: the two prices of steering.

    KL              mean over the tokens of KL(unsteered || steered), in nats, over the whole vocabulary
    cross-entropy   mean over the tokens of -log p(token), in nats

The KL is taken over the first tokens of the unsteered model's own greedy reply, each predicted from the true ones
before it. The first token alone tells little: often all replies open alike, and the harm comes later (p-e-w/heretic,
threads 75 and 209). Both models read the same text, so a steered reply's own wandering does not count.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rcm.execution.interventions import Intervention
from rcm.execution.progress import track
from rcm.execution.self_checks import may_branch
from rcm.execution.shared_prefix import Tokens, read
from rcm.models import LoadedModel


class Text(NamedTuple):
    """Tokens, the last `scored` of which are predicted."""

    tokens: Tokens
    scored: int


@torch.inference_mode()
def kl_divergences(
    model: LoadedModel,
    texts: Sequence[Text],
    conditions: int,
    interventions: Sequence[Intervention],
    shared: int = 0,
    label: str = "KL",
) -> Float[Tensor, "text condition"]:
    """Nats per token by which each condition departs from the first.

    The interventions hold `conditions` rows for each text, text by text, the first of them the one to compare with.
    """
    figures = torch.zeros(len(texts), conditions)
    for some, columns in track(list(_passes(model, len(texts), conditions)), label):
        rows = [text * conditions + column for text in some for column in (0, *columns)]
        logits, scored = _predicted(model, [texts[i // conditions] for i in rows], rows, interventions, shared)
        counts = scored.unflatten(0, (len(some), -1))[:, 0]
        # A row at a time: copies in float32 of the logits of all would take several times what the model gives.
        for text, of_text, count in zip(some, logits.unflatten(0, (len(some), -1)), counts, strict=True):
            base = of_text[0].float().log_softmax(-1)
            for column, of_condition in zip(columns, of_text[1:], strict=True):
                kl = (base.exp() * (base - of_condition.float().log_softmax(-1))).sum(-1)
                figures[text, column] = _mean(kl, count).cpu()
    return figures


@torch.inference_mode()
def cross_entropies(
    model: LoadedModel,
    texts: Sequence[Text],
    conditions: int,
    interventions: Sequence[Intervention],
    label: str = "cross-entropy",
) -> Float[Tensor, "text condition"]:
    """Nats per token of each text under each condition; rows of the interventions as for `kl_divergences`."""
    count = len(texts) * conditions
    figures = torch.zeros(count)
    for start in track(range(0, count, model.batch_size), label):
        rows = list(range(start, min(start + model.batch_size, count)))
        chosen = [texts[i // conditions] for i in rows]
        logits, scored = _predicted(model, chosen, rows, interventions)
        tokens = model.template.padded([text.tokens[-text.scored :] for text in chosen], model.device).input_ids
        for row, of_row, wanted, counts in zip(rows, logits, tokens, scored, strict=True):
            losses = torch.nn.functional.cross_entropy(of_row.float(), wanted, reduction="none")
            figures[row] = _mean(losses, counts).cpu()
    return figures.view(len(texts), conditions)


def _passes(model: LoadedModel, texts: int, conditions: int) -> Iterator[tuple[list[int], list[int]]]:
    """Texts and conditions (but the first, which is in every pass) that go through the model together."""
    at_once = max(1, min(conditions, model.batch_size) - 1)
    together = max(1, model.batch_size // (at_once + 1))
    for first in range(0, texts, together):
        for column in range(1, conditions, at_once):
            yield (
                list(range(first, min(first + together, texts))),
                list(range(column, min(column + at_once, conditions))),
            )


def _predicted(
    model: LoadedModel,
    texts: Sequence[Text],
    rows: Sequence[int],
    interventions: Sequence[Intervention],
    shared: int = 0,
) -> tuple[Float[Tensor, "row token vocabulary"], Bool[Tensor, "row token"]]:
    """Logits that predict the scored tokens, aligned at the end, and which of them count."""
    most = max(text.scored for text in texts)
    chosen = [intervention.rows(rows) for intervention in interventions]
    rows_read = read(model, [text.tokens for text in texts], chosen, shared, keep=most + 1, branch=may_branch(model))
    logits = rows_read.logits[:, :-1]
    scored = torch.arange(most, 0, -1) <= torch.tensor([text.scored for text in texts])[:, None]
    return logits, scored.to(model.device)


def _mean(values: Float[Tensor, " token"], scored: Bool[Tensor, " token"]) -> Float[Tensor, ""]:
    return (values * scored).sum(-1) / scored.sum(-1)
