"""What a model computes on prompts: logits at the last token, residual streams at the end of the instruction.

Prompts go in batches of like length, so that little is spent on padding, and what every prompt of a template begins
with (a system prompt is half of a short one) is read once for a batch. Results come back in the order given.

Of the logits of many prompts only what is needed is kept: they are as many as the vocabulary has tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution import self_checks
from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.interventions import Intervention, Site
from rcm.execution.shared_prefix import Tokens, read
from rcm.models import LoadedModel
from rcm.models.points import Points

# Of logits of some prompts, and which they are.
Figure = Callable[[Float[Tensor, "prompt vocabulary"], Sequence[int]], Float[Tensor, " prompt"]]
Figures = Callable[[Float[Tensor, "prompt vocabulary"], Sequence[int]], Float[Tensor, "prompt figure"]]
SOME = 32  # prompts, of whose logits probabilities are taken at once
Result = TypeVar("Result")


class Residuals(NamedTuple):
    """Residual streams at the input of some blocks, float32 on the CPU; and figures of each prompt's logits, where they
    were asked for."""

    prompts: list[str]
    layers: range
    residuals: Float[Tensor, "prompt position layer d_model"]
    figures: Float[Tensor, "prompt figure"] | None

    def at(self, row: int, layer: int) -> Float[np.ndarray, "prompt d_model"]:
        """Activations at one position (by its row) and layer."""
        return self.residuals[:, row, self.layers.index(layer)].numpy()


@torch.inference_mode()
def last_logits(
    model: LoadedModel, prompts: Sequence[str], interventions: Sequence[Intervention] = ()
) -> Float[Tensor, "prompt vocabulary"]:
    """Logits of the first token of the reply, float32 on the CPU. The interventions hold one row, for all prompts."""
    rows: list[Tensor] = [torch.empty(0)] * len(prompts)
    asked = _Asked.of(model, prompts)
    for index, logits in asked.each(lambda index: asked.logits(index, interventions).cpu()):
        for row, i in enumerate(index):
            rows[i] = logits[row]
    return torch.stack(rows)


@torch.inference_mode()
def mean_probabilities(model: LoadedModel, prompts: Sequence[str], label: str) -> Float[Tensor, " vocabulary"]:
    """How likely each token is the first of the reply, in the mean over prompts; float64 on the CPU."""
    asked = _Asked.of(model, prompts)
    sums = [some for _, some in asked.each(lambda index: _summed_probability(asked.logits(index)), label)]
    return torch.stack(sums).sum(0) / len(prompts)


def mean_probability(logits: Float[Tensor, "prompt vocabulary"]) -> Float[Tensor, " vocabulary"]:
    """Of all prompts; float64 on the CPU."""
    return torch.stack([_summed_probability(some) for some in logits.split(SOME)]).sum(0) / len(logits)


def _summed_probability(logits: Float[Tensor, "prompt vocabulary"]) -> Float[Tensor, " vocabulary"]:
    return logits.softmax(-1).sum(0, dtype=torch.float64).cpu()


@torch.inference_mode()
def first_token(
    model: LoadedModel, prompts: Sequence[str], figure: Figure, label: str | None = None
) -> Float[Tensor, " prompt"]:
    """A figure of the logits of each prompt, on the CPU."""
    figures = torch.empty(len(prompts), dtype=torch.float64)
    asked = _Asked.of(model, prompts)
    for index, some in asked.each(lambda index: figure(asked.logits(index), index).double().cpu(), label):
        figures[index] = some
    return figures


@torch.inference_mode()
def read_residuals(
    model: LoadedModel,
    prompts: Sequence[str],
    positions: Sequence[int],
    label: str,
    layers: range | None = None,
    figures: Figures | None = None,
) -> Residuals:
    """Residual streams (`resid_pre`) at the inputs of these blocks; of all, where none are named.

    `positions` are negative: -1 is the last token of the prompt, where the reply begins. Takes prompts x positions x
    layers x d_model x 4 bytes.
    """
    layers = range(model.n_layers) if layers is None else layers
    residuals = torch.empty(len(prompts), len(positions), len(layers), model.d_model)
    found: Tensor | None = None
    asked = _Asked.of(model, prompts)

    def read_some(index: list[int]) -> tuple[list[Tensor], Tensor | None]:
        recorders = [_Recorder(layer, list(positions)) for layer in layers]
        logits = asked.logits(index, watching=recorders)
        return [one.seen.pop().cpu() for one in recorders], figures(logits, index).cpu() if figures else None

    for index, (streams, some) in asked.each(read_some, label):
        for column, stream in enumerate(streams):
            residuals[index, :, column] = stream
        if some is not None:
            found = torch.empty(len(prompts), *some.shape[1:], dtype=some.dtype) if found is None else found
            found[index] = some
    return Residuals(list(prompts), layers, residuals, found)


class _Asked(NamedTuple):
    """Prompts as tokens, of which the first `shared` are the same."""

    model: LoadedModel
    tokens: Sequence[Tokens]
    shared: int

    @classmethod
    def of(cls, model: LoadedModel, prompts: Sequence[str]) -> "_Asked":
        return cls(model, [tuple(model.template.tokens(one)) for one in prompts], shared_tokens(model, prompts))

    def each(self, work: Callable[[list[int]], Result], label: str | None = None) -> Iterator[tuple[list[int], Result]]:
        """Some prompts, of like length, and what comes of them."""
        order = sorted(range(len(self.tokens)), key=lambda index: len(self.tokens[index]))
        return in_batches(self.model, order, rows_at_once(self.model), work, "prompts", label)

    def logits(
        self,
        index: Sequence[int],
        interventions: Sequence[Intervention] = (),
        watching: Sequence[Intervention] = (),
    ) -> Float[Tensor, "row vocabulary"]:
        """Of some prompts, at the last token."""
        rows, branch = [self.tokens[i] for i in index], self_checks.may_branch(self.model)
        found = read(self.model, rows, interventions, self.shared, branch=branch, watching=watching)
        return found.logits[:, -1].float()


class _Recorder:
    """An intervention that changes nothing and keeps what it sees at the input of one block."""

    def __init__(self, layer: int, positions: list[int]) -> None:
        self.layer, self.positions = layer, positions
        self.seen: list[Float[Tensor, "row position d_model"]] = []

    def rows(self, index: Sequence[int]) -> "_Recorder":
        return self

    def sites(self, points: Points) -> Iterator[Site]:
        yield points.layers[self.layer], "input", self._keep

    def _keep(self, x: Tensor) -> Tensor:
        self.seen.append(x[:, self.positions].float())
        return x


def shared_tokens(model: LoadedModel, prompts: Sequence[str]) -> int:
    """How many tokens to read once for all prompts."""
    return self_checks.shared_tokens(model, (len(model.template.tokens(prompt)) for prompt in prompts))
