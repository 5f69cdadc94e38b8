"""What interventions do to the prediction of a given text: the two prices of steering.

    KL              mean over the tokens of KL(unsteered || steered), in nats, over the whole vocabulary
    cross-entropy   mean over the tokens of -log p(token), in nats

The KL is taken over the first tokens of the unsteered model's own greedy reply, each predicted from the true ones
before it. The first token alone tells little: often all replies open alike, and the harm comes later (p-e-w/heretic,
threads 75 and 209). Both models read the same text, so a steered reply's own wandering does not count.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.interventions import Intervention
from rcm.execution.self_checks import may_branch
from rcm.execution.shared_prefix import Tokens, read
from rcm.models import LoadedModel


class Text(NamedTuple):
    """Tokens, the last `scored` of which are predicted."""

    tokens: Tokens
    scored: int


class Cell(NamedTuple):
    """One text under one condition."""

    text: int
    condition: int


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

    def departures(cells: list[Cell]) -> list[Tensor]:
        some = [(text, [cell.condition for cell in of_text]) for text, of_text in groupby(cells, lambda one: one.text)]
        rows = [text * conditions + condition for text, compared in some for condition in (0, *compared)]
        logits, scored = _predicted(model, [texts[i // conditions] for i in rows], rows, interventions, shared)
        found, row = list[Tensor](), 0
        # A row at a time: copies in float32 of the logits of all would take several times what the model gives.
        for _, compared in some:
            base = logits[row].float().log_softmax(-1)
            for own in range(row + 1, row + 1 + len(compared)):
                kl = (base.exp() * (base - logits[own].float().log_softmax(-1))).sum(-1)
                found.append(_mean(kl, scored[row]).cpu())
            row += 1 + len(compared)
        return found

    cells = [Cell(text, condition) for text in range(len(texts)) for condition in range(1, conditions)]
    for some, found in in_batches(model, cells, _cells_at_once(model, conditions), departures, "texts", label):
        for cell, kl in zip(some, found, strict=True):
            figures[cell] = kl
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

    def losses(rows: list[int]) -> list[Tensor]:
        chosen = [texts[i // conditions] for i in rows]
        logits, scored = _predicted(model, chosen, rows, interventions)
        tokens = model.template.padded([text.tokens[-text.scored :] for text in chosen], model.device).input_ids
        return [
            _mean(cross_entropy(of_row.float(), wanted, reduction="none"), counts).cpu()
            for of_row, wanted, counts in zip(logits, tokens, scored, strict=True)
        ]

    for rows, found in in_batches(model, range(count), rows_at_once(model), losses, "texts", label):
        figures[rows] = torch.stack(found)
    return figures.view(len(texts), conditions)


def _cells_at_once(model: LoadedModel, conditions: int) -> int:
    """As many as fill a batch with the first condition of each text; all of a text together, where they do not."""
    rows = rows_at_once(model)
    return (conditions - 1) * (rows // conditions) if rows >= conditions else max(1, rows - 1)


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
