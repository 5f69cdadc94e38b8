"""The same prompts under many interventions: a figure of the reply's first token under each of them.

A *variant* is one intervention. The rows of a batch are variants times prompts, `batch_size` of them:

1. Prompts go a few of like length at a time, which leaves little padding, with as many variants as fill the batch.
2. What all prompts begin with is read once for each variant, and its keys and values serve all of its prompts.
3. A vector added at the input of a block changes nothing before that block. So the blocks before it are not run: they
   hand on what they do without the vector, which is kept for `batch_size` prompts at a time.

The figures are those of one forward pass for each variant and prompt, up to rounding. Step 3 is exact where a block
takes from earlier ones only what they hand on. A batch is run with all blocks to see whether the model is of that kind;
if not, all of them are run, and the log says so.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache

from rcm.execution.interventions import Ablate, Add, Intervention, applied
from rcm.execution.passes import batch_logits, batches, beginning, repeated, shared_tokens
from rcm.execution.progress import track
from rcm.execution.self_checks import TOLERANCE
from rcm.models import LoadedModel
from rcm.models.template import Batch

log = logging.getLogger(__name__)

LIKE = 8  # prompts of like length in a batch, if there are variants to fill the rest of it
Figure = Callable[[Float[Tensor, "prompt vocabulary"], Sequence[int]], Float[Tensor, " prompt"]]


@torch.inference_mode()
def ablated(
    model: LoadedModel, prompts: Sequence[str], directions: Float[Tensor, "variant *basis d_model"], figure: Figure
) -> Iterator[Float[Tensor, " prompt"]]:
    """A figure of every prompt with a unit direction ablated everywhere, for each in turn; or a subspace, of which the
    directions, at right angles, are the basis (a zero vector counts for nothing).

    `figure` gets logits of some prompts, and which they are. Nothing is run before it is asked for, but a batch's
    variants are run together.
    """
    passes = _Passes.of(model, prompts, len(directions))
    for start in range(0, len(directions), passes.variants):
        some = directions[start : start + passes.variants]
        basis = some.view(len(some), -1, some.shape[-1]).unbind(1)
        yield from passes.figures(_Group(len(some), [Ablate(one) for one in basis]), figure)[:, passes.order.argsort()]


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
    passes, layer = _Passes.of(model, prompts, len(vectors)), torch.tensor(layers, dtype=torch.long)
    by_layer = layer.argsort(stable=True)  # together go those of one layer, or nearly
    together = [by_layer[start : start + passes.variants] for start in range(0, len(vectors), passes.variants)]
    groups = [_adding(vectors[variants], layer[variants]) for variants in together]
    for part in passes.parts() if groups else ():
        kept = part.kept(groups[-1])
        for variants, group in zip(together, track(groups, label), strict=True):
            figures[variants[:, None], part.order] = part.figures(group, figure, kept)
    return figures


@dataclass(frozen=True)
class _Group:
    """Variants that share batches: a row of the interventions for each, and the first block that any changes."""

    variants: int
    interventions: Sequence[Intervention]
    first: int = 0


def _adding(vectors: Float[Tensor, "variant d_model"], layers: Tensor) -> _Group:
    adds = [Add(layer, torch.where(layers[:, None] == layer, vectors, 0)) for layer in layers.unique().tolist()]
    return _Group(len(vectors), adds, adds[0].layer)


@dataclass(frozen=True)
class _Kept:
    """What the first blocks hand on where nothing intervenes: of the beginning, and of each batch."""

    cache: DynamicCache | None = None
    beginning: Sequence[Any] = ()
    batches: Sequence[Sequence[Any]] = ()


NOTHING = _Kept()


@dataclass(frozen=True)
class _Passes:
    """Prompts in batches, without their first `shared` tokens. `variants`: how many go with a batch."""

    model: LoadedModel
    shared: int
    batches: Sequence[tuple[list[int], Batch]]
    variants: int

    @classmethod
    def of(cls, model: LoadedModel, prompts: Sequence[str], variants: int) -> "_Passes":
        at_once = max(1, min(variants, model.batch_size // min(LIKE, len(prompts))))
        shared = shared_tokens(model, prompts)
        return cls(model, shared, list(batches(model, prompts, shared, model.batch_size // at_once)), at_once)

    @property
    def order(self) -> Tensor:
        """Which prompts these are."""
        return torch.tensor([prompt for index, _ in self.batches for prompt in index])

    def parts(self) -> Iterator["_Passes"]:
        """At most `batch_size` prompts each."""
        for start in range(0, len(self.batches), self.variants):
            yield replace(self, batches=self.batches[start : start + self.variants])

    def figures(self, group: _Group, figure: Figure, kept: _Kept = NOTHING) -> Float[Tensor, "variant prompt"]:
        """Of these prompts, in their `order`."""
        columns = [
            torch.stack([figure(one, index) for one in logits]).double().cpu()
            for (index, _), logits in zip(self.batches, self.logits(group, kept), strict=True)
        ]
        return torch.cat(columns, dim=1)

    def logits(self, group: _Group, kept: _Kept = NOTHING) -> Iterator[Float[Tensor, "variant prompt vocabulary"]]:
        """Of each batch at its last token; only the blocks from `group.first` on are run if `kept` has the others."""
        layers, n = self.model.points.layers, group.variants
        with applied(self.model.points, group.interventions), _replayed(layers, kept.beginning[: group.first], n):
            begun = beginning(self.model, self.shared, n)
        if begun is not None and kept.cache is not None:
            # No block that is run reads these, but the first layer's length is taken for that of all.
            begun.layers[: group.first] = kept.cache.layers[: group.first]
        for number, (index, batch) in enumerate(self.batches):
            interventions = [one.rows([v for v in range(n) for _ in index]) for one in group.interventions]
            handed_on = kept.batches[number][: group.first] if kept.batches else ()
            rows = Batch(*(tokens.repeat(n, 1) for tokens in batch))
            with applied(self.model.points, interventions), _replayed(layers, handed_on, n):
                logits = batch_logits(self.model, rows, repeated(begun, len(index)))[:, -1]
            yield logits.float().unflatten(0, (n, -1))

    def kept(self, deepest: _Group) -> _Kept:
        """What the blocks before those that this group changes hand on; nothing where that is not all they do."""
        layers = self.model.points.layers[: deepest.first]
        with _recorded(layers) as of_beginning:
            cache = beginning(self.model, self.shared)
        of_batches = []
        for index, batch in self.batches:
            with _recorded(layers) as of_batch:
                batch_logits(self.model, batch, repeated(cache, len(index)))
            of_batches.append(of_batch)
        kept = _Kept(cache, of_beginning, of_batches)
        whole, resumed = next(self.logits(deepest)), next(self.logits(deepest, kept))
        error, scale = (whole - resumed).abs().max().item(), whole.abs().max().item()
        if error <= TOLERANCE[self.model.hf.dtype] * scale:
            return kept
        log.warning("Added vectors go through all blocks: from theirs on, logits up to %.2g err by %.1e", scale, error)
        return NOTHING


@contextmanager
def _recorded(layers: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """What these blocks hand on in the one pass that is made inside."""
    outputs: list[Any] = []
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(lambda _, __, output: outputs.append(output)).remove)
        yield outputs


@contextmanager
def _replayed(layers: Sequence[nn.Module], outputs: Sequence[Any], times: int) -> Iterator[None]:
    """The first blocks are not run, and hand on these outputs; the last of them has its rows so many times over."""
    tiled = [*outputs[:-1], *(_tiled(last, times) for last in outputs[-1:])]
    with ExitStack() as stack:
        for layer, output in zip(layers, tiled, strict=False):
            vars(layer)["forward"] = lambda *_, output=output, **__: output
            stack.callback(vars(layer).pop, "forward")
        yield


def _tiled(output: Any, times: int) -> Any:
    """What a block hands on, its rows so many times over; in some families the stream is the first of several."""
    return output.repeat(times, 1, 1) if isinstance(output, Tensor) else (_tiled(output[0], times), *output[1:])
