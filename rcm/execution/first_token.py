"""A figure of the first token of the reply, of every prompt under many interventions.

A *variant* is one intervention. The rows of a pass are variants times prompts of like length; what they have in common
is read once (`rcm.execution.shared_prefix`). The figures are those of one forward pass for each variant and prompt, up
to rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.interventions import Ablate, Add, Intervention
from rcm.execution.passes import Figure, shared_tokens
from rcm.execution.self_checks import may_branch
from rcm.execution.shared_prefix import Tokens, beginning, distinct, read
from rcm.models import LoadedModel

LIKE = 8  # prompts of like length in a pass, if there are variants to fill the rest of it
MORE = 3  # times as many rows as a batch has prompts: on a CPU a seventh faster; twice that is slower again


@torch.inference_mode()
def ablated(
    model: LoadedModel, prompts: Sequence[str], directions: Float[Tensor, "variant *basis d_model"], figure: Figure
) -> Iterator[Float[Tensor, " prompt"]]:
    """A figure of every prompt with a unit direction ablated everywhere, for each in turn; or a subspace, of which the
    directions, at right angles, are the basis (a zero vector counts for nothing).

    `figure` gets logits of some prompts, and which they are. Nothing is run before it is asked for, but the variants of
    a pass are run together.
    """
    asked = _Asked.of(model, prompts)

    def figures(variants: list[int]) -> Float[Tensor, "variant prompt"]:
        basis = directions[variants].view(len(variants), -1, directions.shape[-1]).unbind(1)
        return asked.figures([Ablate(one) for one in basis], len(variants), figure)

    at_once = asked.variants(len(directions))
    for _, some in in_batches(model, range(len(directions)), at_once, figures, "directions"):
        yield from some


@torch.inference_mode()
def added(
    model: LoadedModel,
    prompts: Sequence[str],
    vectors: Float[Tensor, "variant d_model"],
    layers: Sequence[int],
    figure: Figure,
    label: str,
) -> Float[Tensor, "variant prompt"]:
    """A figure of every prompt with a vector added at the input of its layer's block, for each of them."""
    figures = torch.empty(len(vectors), len(prompts), dtype=torch.float64)
    asked, layer = _Asked.of(model, prompts), torch.tensor(layers, dtype=torch.long)
    # Together go those of two layers: of more, most would begin long before their own; of fewer than four vectors, what
    # lies before would be computed too often.
    two_layers = max(4, 2 * int(layer.bincount().max())) if layers else 1

    def of(variants: list[int]) -> Float[Tensor, "variant prompt"]:
        adds = [
            Add(at, torch.where(layer[variants, None] == at, vectors[variants], 0))
            for at in layer[variants].unique().tolist()
        ]
        return asked.figures(adds, len(variants), figure)

    order = layer.argsort(stable=True).tolist()
    for variants, some in in_batches(model, order, asked.variants(two_layers), of, "vectors", label):
        figures[variants] = some
    return figures


@dataclass(frozen=True)
class _Asked:
    """Prompts as tokens, of which the first `shared` are the same."""

    model: LoadedModel
    tokens: Sequence[Tokens]
    shared: int

    @classmethod
    def of(cls, model: LoadedModel, prompts: Sequence[str]) -> "_Asked":
        return cls(model, [tuple(model.template.tokens(one)) for one in prompts], shared_tokens(model, prompts))

    def variants(self, of: int) -> int:
        """How many go through the model together."""
        return max(1, min(of, self._rows // max(1, min(LIKE, len(self.tokens)))))

    @property
    def _rows(self) -> int:
        return rows_at_once(self.model, MORE)

    def figures(
        self, interventions: Sequence[Intervention], variants: int, figure: Figure
    ) -> Float[Tensor, "variant prompt"]:
        """The interventions hold a row for each variant."""
        figures = torch.empty(variants, len(self.tokens), dtype=torch.float64)
        firsts, _ = distinct(interventions, variants)
        branch, begun = may_branch(self.model), None
        if self.shared and branch:
            begun = beginning(self.model, self.tokens[0][: self.shared], [one.rows(firsts) for one in interventions])

        def of(index: list[int]) -> Float[Tensor, "variant prompt"]:
            chosen = [one.rows([v for v in range(variants) for _ in index]) for one in interventions]
            rows = [self.tokens[i] for i in index] * variants
            logits = read(self.model, rows, chosen, self.shared, branch=branch, begun=begun).logits[:, -1].float()
            of_variants = [figure(one, index) for one in logits.unflatten(0, (variants, -1))]
            return torch.stack(of_variants).double().cpu()

        by_length = sorted(range(len(self.tokens)), key=lambda i: len(self.tokens[i]))
        at_once = max(1, self._rows // variants)
        for index, some in in_batches(self.model, by_length, at_once, of, "prompts under several vectors"):
            figures[:, index] = some
        return figures
