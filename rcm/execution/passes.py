"""What a model computes on prompts: logits at the last token, residual streams at the end of the instruction.

Prompts go in batches of like length, so that little is spent on padding, and what every prompt of a template begins
with (a system prompt is half of a short one) is read once for a batch. Results come back in the order given.

Of the logits of many prompts only what is needed is kept: they are as many as the vocabulary has tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution import self_checks
from rcm.execution.interventions import Intervention, Site
from rcm.execution.progress import track
from rcm.execution.shared_prefix import read
from rcm.models import LoadedModel
from rcm.models.points import Points

# Of logits of some prompts, and which they are.
Figure = Callable[[Float[Tensor, "prompt vocabulary"], Sequence[int]], Float[Tensor, " prompt"]]
Figures = Callable[[Float[Tensor, "prompt vocabulary"], Sequence[int]], Float[Tensor, "prompt figure"]]
LONGER = 8  # times as many rows in a pass on a CPU, which multiplies 256 rows 1.6 times as fast as 32


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
    for index, logits in _passes(model, prompts, interventions):
        for row, i in enumerate(index):
            rows[i] = logits[row].cpu()
    return torch.stack(rows)


@torch.inference_mode()
def mean_probabilities(model: LoadedModel, prompts: Sequence[str], label: str) -> Float[Tensor, " vocabulary"]:
    """How likely each token is the first of the reply, in the mean over prompts; float64 on the CPU."""
    return mean_probability(logits for _, logits in _passes(model, prompts, label=label))


def mean_probability(logits: Iterable[Float[Tensor, "_ vocabulary"]]) -> Float[Tensor, " vocabulary"]:
    """Of all prompts, whose logits come some at a time; float64 on the CPU."""
    sums, n = [], 0
    for some in logits:
        sums.append(some.softmax(-1).sum(0, dtype=torch.float64).cpu())
        n += len(some)
    return torch.stack(sums).sum(0) / n


@torch.inference_mode()
def first_token(
    model: LoadedModel, prompts: Sequence[str], figure: Figure, label: str | None = None
) -> Float[Tensor, " prompt"]:
    """A figure of the logits of each prompt, on the CPU."""
    figures = torch.empty(len(prompts), dtype=torch.float64)
    for index, logits in _passes(model, prompts, label=label):
        figures[index] = figure(logits, index).double().cpu()
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
    recorders = [_Recorder(layer, list(positions)) for layer in layers]
    for index, logits in _passes(model, prompts, watching=recorders, label=label):
        for column, recorder in enumerate(recorders):
            residuals[index, :, column] = recorder.seen.pop().cpu()
        if figures is not None:
            some = figures(logits, index)
            found = torch.empty(len(prompts), *some.shape[1:], dtype=some.dtype) if found is None else found
            found[index] = some.cpu()
    return Residuals(list(prompts), layers, residuals, found)


def _passes(
    model: LoadedModel,
    prompts: Sequence[str],
    interventions: Sequence[Intervention] = (),
    watching: Sequence[Intervention] = (),
    label: str | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "row vocabulary"]]]:
    """Some prompts, and their logits at the last token."""
    tokens = [tuple(model.template.tokens(prompt)) for prompt in prompts]
    shared = shared_tokens(model, prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(tokens[index]))
    together = [order[start : start + model.batch_size] for start in range(0, len(order), model.batch_size)]
    for index in together if label is None else track(together, label):
        rows, branch = [tokens[i] for i in index], self_checks.may_branch(model)
        yield index, read(model, rows, interventions, shared, branch=branch, watching=watching).logits[:, -1].float()


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


def rows_at_once(model: LoadedModel, longer: int = LONGER) -> int:
    """How many rows of one prompt or of few, under several interventions, go through the model together."""
    return model.batch_size * (longer if model.device.type == "cpu" else 1)
