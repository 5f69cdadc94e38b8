"""How much each component, and each edge between two, carries of a metric: gradients instead of patches.

A *writer* puts something into the residual stream: the embedding, an attention head, an MLP. A *reader* takes from it:
a query, key or value head, an MLP, the logits. Of a pair of prompts, clean and corrupt, token for token as long:

    node score of u         sum over positions of  (what u writes on one prompt less on the other) . dm/du
    edge score of u -> v    sum over positions of  (the same difference) . dm/d(what v reads)

(attribution patching: Nanda 2023; EAP: Syed et al. 2023, arXiv:2310.10348). The gradient is taken at one of the
prompts, or in the mean over steps between their embeddings (EAP-IG with inputs: Hanna et al. 2024, arXiv:2403.17806).
Signs:

    noising      corrupt less clean: what the metric gains, to first order, when the corrupt value is put in (EAP-IG's)
    denoising    clean less corrupt (TransformerLens')

The stream is not forked for each reader. One backward pass gives gradients at queries, keys and values as attention
gets them, which are in as many heads as there are (keys and values of grouped queries are readers of their own); from
each the way back to the stream is short (rotation, projection, norm), and of an MLP the norm alone. All writers and
readers of a batch meet in one matrix product. In a model that normalises what a sublayer writes, a head writes what
that norm makes of it, to first order. So the edges of a writer sum up to its node score, which is checked in every run.

In memory lie the graph of the pass, and what every writer writes: pairs x positions x writers x d_model x 4 bytes
(`Cost`), of which as many positions at a time as `HELD` takes.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rcm.errors import InputError
from rcm.execution.batches import at_most, in_batches, rows_at_once
from rcm.execution.interventions import Edit, Site, applied, by_row
from rcm.execution.metric import Metric
from rcm.execution.recording import shape_of
from rcm.execution.rows import attention
from rcm.execution.self_checks import TOLERANCE
from rcm.execution.work import Scope, Work, together
from rcm.models import LoadedModel
from rcm.models.points import Points, output_weight

log = logging.getLogger(__name__)

Pair = tuple[Sequence[int], Sequence[int]]  # clean and corrupt, as tokens
Sign = Literal["noising", "denoising"]
Path = Literal["midpoint", "right", "clean", "corrupt"]
STEPS = 5  # between the two prompts, unless somebody says otherwise
HELD = 256 * 2**20  # bytes: what writers write, at as many positions as fit
WIDTHS = 14  # of d_model that the graph keeps of a token in a layer, and of d_mlp 4: as measured, rounded up
FORWARD_AND_BACK = 3  # forward passes that one with its backward takes as long as
MAPS = 7  # of tokens by tokens that eager attention keeps of a head, with soft capping; without 4


class Writer(NamedTuple):
    kind: Literal["embedding", "head", "mlp"]
    layer: int
    head: int = 0


class Reader(NamedTuple):
    """`head` of keys and values counts the heads that they have: fewer than queries have where these are grouped."""

    kind: Literal["query", "key", "value", "mlp", "logits"]
    layer: int
    head: int = 0


@dataclass(frozen=True)
class Attribution:
    """Scores in units of the metric. `edges` are means over the pairs; `connected` says which edges there are (zero
    elsewhere). `off_by`: the most by which a writer's edges miss its node score, as a share of the largest node."""

    writers: list[Writer]
    readers: list[Reader]
    nodes: Float[Tensor, "pair writer"]
    edges: Float[Tensor, "writer reader"]
    connected: Bool[Tensor, "writer reader"]
    off_by: float


class Cost(NamedTuple):
    """Of the whole work: forward passes of one prompt with a backward, and about how many bytes the largest batch
    takes."""

    passes: int
    bytes: int


def steps_of(path: Path, steps: int) -> Float[Tensor, " step"]:
    """Where the gradient is taken, from 0 (corrupt) to 1 (clean). `midpoint`: the middles of so many equal parts, whose
    error falls with their square; `right`: their ends, as EAP-IG does; else one prompt alone."""
    match path:
        case "midpoint":
            return (torch.arange(steps) + 0.5) / steps
        case "right":
            return (torch.arange(steps) + 1.0) / steps
        case "clean" | "corrupt":
            return torch.tensor([float(path == "clean")])


def cost(model: LoadedModel, pairs: Sequence[Pair], steps: int) -> Cost:
    """What attributing these pairs takes."""
    longest = max((len(clean) for clean, _ in pairs), default=0)
    at_once = _pairs_at_once(model, pairs, steps)
    writers = 1 + model.n_layers * (shape_of(model).heads + 1)
    graph = at_once * steps * graph_of_row(model, longest)
    return Cost(len(pairs) * (2 + steps), graph + min(HELD, at_once * longest * writers * model.d_model * 4))


def graph_of_row(model: LoadedModel, tokens: int) -> int:
    """About how many bytes a pass keeps of a row of so many tokens for its way back."""
    d_mlp = int(getattr(model.config, "intermediate_size", None) or 4 * model.d_model)
    graph = graph_bytes(tokens, model.n_layers, model.d_model, d_mlp)
    if model.hf.config._attn_implementation == "eager":  # which keeps what every token looks at
        graph += tokens**2 * model.n_layers * shape_of(model).heads * MAPS * 4
    return graph


def graph_bytes(tokens: int, layers: int, d_model: int, d_mlp: int) -> int:
    """About how many a pass over so many tokens keeps for its way back, where attention is fused."""
    return tokens * layers * (WIDTHS * d_model + 4 * d_mlp) * 4


def work(scope: Scope, lengths: Mapping[int, int], steps: int = STEPS) -> Work:
    """Counted before there is a model. `lengths`: how many pairs there are of each length. Two passes forward, and one
    with its graph for all steps."""
    at_once, parts = max(1, scope.batch_size // steps), list[Work]()
    for length, pairs in lengths.items():
        forward, back = float(2 * pairs * length), float(steps * pairs * length)
        graph = graph_bytes(min(pairs, at_once) * steps * length, scope.layers, scope.d_model, scope.neurons)
        passes, logits = 3 * -(-pairs // at_once), (2 + steps) * pairs
        parts.append(Work("", pairs, passes, forward, logits=logits, gradients=back, held=graph + HELD))
    return together("attribution", parts)


@torch.inference_mode(False)
def attribute(
    model: LoadedModel,
    pairs: Sequence[Pair],
    metric: Metric,
    *,
    path: Path = "midpoint",
    steps: int = STEPS,
    sign: Sign = "noising",
    last: bool = False,
    label: str = "attribution",
) -> Attribution:
    """Node and edge scores over all positions; `last`: of the last token alone, where writers write and readers read.

    `metric`: of logits at the last tokens (`rcm.execution.metric`). Raises InputError where the prompts of a pair
    differ in length, or where attention or the stream of the model cannot be seen.
    """
    for i, (a, b) in enumerate((len(clean), len(corrupt)) for clean, corrupt in pairs):
        if a != b:
            raise InputError(
                f"Pair {i} has prompts of {a} and {b} tokens, whose positions cannot be set against each other; keep "
                "only pairs of one length."
            )
    if not pairs or steps < 1:
        raise InputError(f"{len(pairs)} pairs and {steps} steps are nothing to attribute; give at least one of each.")
    at = steps_of(path, steps)
    _told(cost(model, pairs, len(at)), len(pairs) * (2 + FORWARD_AND_BACK * len(at)) * _seconds(model, pairs))
    shape = shape_of(model)
    nodes = torch.zeros(len(pairs), 1 + shape.layers * (shape.heads + 1), dtype=torch.float64)
    total, connected, readers, off_by = torch.zeros(0), torch.zeros(0), list[Reader](), 0.0

    def scored(index: list[int]) -> tuple[Tensor, _Edges]:
        with _Batch(model, [pairs[i] for i in index], at, sign, metric.of([i for i in index for _ in at]), last) as one:
            of_nodes, of_edges = one.node_scores().double().cpu(), one.edge_scores()
        return of_nodes, of_edges._replace(scores=of_edges.scores.double().cpu())

    def length(i: int) -> int:
        return len(pairs[i][0])

    order, at_once = sorted(range(len(pairs)), key=length), _pairs_at_once(model, pairs, len(at))
    # Pairs of one length together, so that nothing is padded.
    for index, (of_nodes, found) in in_batches(model, order, at_once, scored, "attributed pairs", label, alike=length):
        nodes[index] = of_nodes
        edges = found.scores
        total = edges if not readers else total + edges
        connected, readers = found.connected, found.readers
        # As a share of what does not cancel: pairs given both ways round sum up to nothing.
        largest = nodes[index].abs().sum(0).max().clamp(min=1e-30)
        off = float((edges.sum(1) - nodes[index].sum(0)).abs().max() / largest)
        off_by = float(np.maximum(off_by, off))  # which, unlike max, cannot overlook a NaN
    if not off_by <= 10 * TOLERANCE[model.hf.dtype]:
        raise InputError(
            f"The edges of a component of {type(model.hf).__name__} do not sum up to what it does (off by "
            f"{off_by:.1g} of the largest), so something reads the residual stream unseen; choose another model."
        )
    return Attribution(_writers(model), readers, nodes, total / len(pairs), connected, off_by)


def _told(needed: Cost, seconds: float) -> None:
    log.info(
        "Attribution takes %d passes of one prompt, about %.1f GiB at once, and %.1f minutes",
        needed.passes,
        needed.bytes / 2**30,
        seconds / 60,
    )


def _seconds(model: LoadedModel, pairs: Sequence[Pair]) -> float:
    """Of one forward pass over the longest prompt; several at once take less for each."""
    ids = torch.tensor([max((list(clean) for clean, _ in pairs), key=len)], device=model.device)
    with torch.inference_mode():
        model.hf(input_ids=ids, use_cache=False, logits_to_keep=1)  # the first of a length takes longer
        start = time.perf_counter()
        model.hf(input_ids=ids, use_cache=False, logits_to_keep=1)[0].sum().item()
    return time.perf_counter() - start


def _pairs_at_once(model: LoadedModel, pairs: Sequence[Pair], steps: int) -> int:
    longest = max((len(clean) for clean, _ in pairs), default=0)
    return max(1, int(min(rows_at_once(model) // steps, at_most(model, steps * graph_of_row(model, longest)))))


def _writers(model: LoadedModel) -> list[Writer]:
    shape = shape_of(model)
    return [
        Writer("embedding", 0),
        *(
            writer
            for layer in range(shape.layers)
            for writer in (*(Writer("head", layer, head) for head in range(shape.heads)), Writer("mlp", layer))
        ),
    ]


class _Edges(NamedTuple):
    scores: Float[Tensor, "writer reader"]
    connected: Bool[Tensor, "writer reader"]
    readers: list[Reader]


class _Seen:
    """An intervention that changes nothing, and sees what is written and read. `embedded`: what the first block gets in
    place of its input."""

    def __init__(self, embedded: Tensor | None = None) -> None:
        self.embedded = embedded
        self.stream: dict[int, Tensor] = {}
        self.z: dict[int, Tensor] = {}
        self.projected: dict[int, Tensor] = {}
        self.attention: dict[int, Tensor] = {}
        self.mlp_reads: dict[int, Tensor] = {}
        self.mlp: dict[int, Tensor] = {}

    def rows(self, index: Sequence[int]) -> "_Seen":
        raise NotImplementedError("a pass is for all of its prompts")

    def sites(self, points: Points) -> Iterator[Site]:
        for layer, module in enumerate(points.layers):
            yield module, "input", self._noted(self.stream, layer)
            yield points.head_out[layer], "input", self._noted(self.z, layer)
            yield points.head_out[layer], "output", self._noted(self.projected, layer)
            if points.attention_out[layer] is not points.head_out[layer]:
                yield points.attention_out[layer], "output", self._noted(self.attention, layer)
            yield points.mlp_in[layer], "input", self._noted(self.mlp_reads, layer)
            yield points.mlp_out[layer], "output", self._noted(self.mlp, layer)

    def _noted(self, where: dict[int, Tensor], layer: int) -> Edit:
        def note(x: Tensor) -> Tensor:
            first = self.embedded is not None and where is self.stream and layer == 0
            # A name of its own for what is read here: parallel blocks give attention and MLP the very same tensor.
            where[layer] = cast(Tensor, self.embedded) if first else x.view_as(x)
            return where[layer]

        return note

    def written_by_attention(self, layer: int) -> Tensor:
        return self.attention.get(layer, self.projected[layer])


class _Batch:
    """Pairs of one length, and the graph of one pass over them at every step."""

    def __init__(
        self,
        model: LoadedModel,
        pairs: Sequence[Pair],
        at: Float[Tensor, " step"],
        sign: Sign,
        metric: Metric,
        last: bool,
    ) -> None:
        self.first = len(pairs[0][0]) - 1 if last else 0  # the position from which on scores are summed
        self.model, self.points, self.metric, self.steps = model, model.points, metric, len(at)
        self.layers, self.heads = shape_of(model)
        self.scale = float(getattr(model.config, "residual_multiplier", 1.0))  # Granite's, of all that is written
        with torch.inference_mode():
            clean, corrupt = (self._seen([pair[side] for pair in pairs]) for side in (0, 1))
        self._require_sums(clean)
        # Copies, because what inference mode made can take no part in a graph.
        ends = (corrupt.stream[0].clone(), clean.stream[0].clone())
        steps = at.to(ends[0])[None, :, None, None]
        self.embedded = torch.lerp(ends[0][:, None], ends[1][:, None], steps).flatten(0, 1).requires_grad_()
        self.minuend, self.subtrahend = (corrupt, clean) if sign == "noising" else (clean, corrupt)
        self.ids = torch.tensor([pair[0] for pair in pairs for _ in at], device=model.device)

    def __enter__(self) -> "_Batch":
        self.seen = _Seen(self.embedded)
        self.read: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.enable_grad(), self._attention_seen():
            logits = self._run(self.ids, self.seen, self.metric.keep)
            value = self.metric(logits[:, None].float()).sum()
        if len(self.read) != self.layers:
            raise InputError(
                f"Attention of {type(self.model.hf).__name__} is seen in {len(self.read)} of {self.layers} layers, as "
                "the others do not take it from transformers' interface; choose another model for attribution."
            )
        at_layers = [by_layer for group in self.read for by_layer in group]
        places = self.seen.mlp_reads, self.seen.mlp, self.seen.z
        mlp_reads, mlp, z = ([where[layer] for layer in range(self.layers)] for where in places)
        gradients = torch.autograd.grad(value, [*at_layers, *mlp_reads, *mlp, *z, self.embedded], retain_graph=True)
        self.at_attention = [gradients[3 * layer : 3 * layer + 3] for layer in range(self.layers)]
        self.at_mlp_reads, self.at_mlp, self.at_z = (
            gradients[start * self.layers : (start + 1) * self.layers] for start in (3, 4, 5)
        )
        self.at_embedding = gradients[-1]
        return self

    def __exit__(self, *_: object) -> None:
        del self.seen, self.read  # and with them the graph

    def _run(self, ids: Tensor, seen: _Seen, keep: int) -> Tensor:
        with applied(self.points, [seen]):
            output = self.model.hf(
                input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=keep
            )
        return cast(Tensor, output.logits)

    def _seen(self, prompts: Sequence[Sequence[int]]) -> _Seen:
        seen = _Seen()
        self._run(torch.tensor([list(prompt) for prompt in prompts], device=self.model.device), seen, 1)
        return seen

    def _require_sums(self, seen: _Seen) -> None:
        """The stream is the sum of what was written, or nobody can say what a reader got from whom."""
        for layer in range(self.layers - 1):
            before, after = seen.stream[layer], seen.stream[layer + 1]
            written = seen.written_by_attention(layer).view_as(before) + seen.mlp[layer].view_as(before)
            after = after.to(before.device)  # of a model that is spread over several
            off = (before + self.scale * written - after).abs().max() / after.abs().max()
            if not off <= TOLERANCE[self.model.hf.dtype]:
                raise InputError(
                    f"The residual stream of {type(self.model.hf).__name__} is not the sum of what attention and MLPs "
                    f"write to it (off by {off:.1g} of the largest), so no edge can be told from another; choose "
                    "another model for attribution."
                )

    @contextmanager
    def _attention_seen(self) -> Iterator[None]:
        """Note queries, keys and values as attention gets them, which it then takes as ever."""
        name = self.model.hf.config._attn_implementation
        live: Callable[..., Any] | None = ALL_ATTENTION_FUNCTIONS.get(name)

        def noted(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
            self.read.append((query, key, value))
            own = live or vars(sys.modules[type(module).__module__])["eager_attention_forward"]
            return own(module, query, key, value, *rest, **named)

        with attention(self.model.hf, noted, name):
            yield

    def node_scores(self) -> Float[Tensor, "pair writer"]:
        """Of each pair, in the mean over its steps."""
        scores = [self._times(self._difference("stream", 0), self.at_embedding, 1)]
        for layer in range(self.layers):
            z = self._difference("z", layer)
            mlp = self._difference("mlp", layer)
            scores += [self._times(z, self.at_z[layer], self.heads), self._times(mlp, self.at_mlp[layer], 1)]
        return torch.cat(scores, dim=1)

    def edge_scores(self) -> _Edges:
        """Summed over the pairs, in the mean over their steps."""
        writers = 1 + self.layers * (self.heads + 1)
        rows = len(self.embedded) // self.steps * self._repeats
        positions, at_once = self.embedded.shape[1], max(1, HELD // (rows * writers * self.model.d_model * 4))
        total = torch.zeros(0)
        for start in range(self.first, positions, at_once):
            written = self._written(slice(start, start + at_once))
            columns, connected, readers = list[Tensor](), list[Tensor](), list[Reader]()
            for names, gradients, before in self._readers():
                read = self._mean_of_steps(gradients[:, :, start : start + at_once]).to(written.device)
                scores = read.new_zeros(writers, len(names))
                scores[:before] = written[:before].flatten(1) @ read.flatten(1).T
                columns.append(scores)
                connected.append((torch.arange(writers) < before)[:, None].expand(-1, len(names)))
                readers += names
            scores = torch.cat(columns, dim=1)
            total = total + scores if start > self.first else scores
        return _Edges(total / self._repeats, torch.cat(connected, dim=1), readers)

    @property
    def _linear(self) -> bool:
        """Whether what heads write is the same at every step: no norm comes after attention."""
        return not self.seen.attention

    @property
    def _repeats(self) -> int:
        return 1 if self._linear else self.steps

    def _mean_of_steps(self, gradients: Float[Tensor, "reader row token d_model"]) -> Tensor:
        """Where what is written is the same at every step, one product does for the mean of all."""
        return gradients.unflatten(1, (-1, self.steps)).mean(2) if self._linear else gradients

    def _readers(self) -> Iterator[tuple[list[Reader], Float[Tensor, "reader row token d_model"], int]]:
        """Some readers, the gradients of the metric at the stream through each alone, and how many writers lie before
        them."""
        for layer in range(self.layers):
            before = 1 + layer * (self.heads + 1)
            for kind, read, gradient in zip(KINDS, self.read[layer], self.at_attention[layer], strict=True):
                heads = range(read.shape[1])
                through = [self._back(read, _only(gradient, head), self.seen.stream[layer]) for head in heads]
                yield [Reader(kind, layer, head) for head in heads], torch.stack(through), before
            given = self.seen.mlp_reads[layer], self.at_mlp_reads[layer]
            attention = self.seen.written_by_attention(layer)
            behind = torch.autograd.grad(given[0], attention, given[1], retain_graph=True, allow_unused=True)[0]
            # In a parallel block the MLP reads what attention reads, and nothing of what it writes.
            through_mlp = self._back(*given, self.seen.stream[layer]) if behind is None else behind / self.scale
            yield [Reader("mlp", layer)], self._tokens(through_mlp)[None], before + self.heads * (behind is not None)
        last = self.at_mlp[self.layers - 1] / self.scale
        yield [Reader("logits", self.layers)], self._tokens(last)[None], 1 + self.layers * (self.heads + 1)

    def _back(self, read: Tensor, gradient: Tensor, stream: Tensor) -> Float[Tensor, "row token d_model"]:
        return self._tokens(torch.autograd.grad(read, stream, gradient, retain_graph=True)[0])

    def _written(self, some: slice) -> Float[Tensor, "writer pair token d_model"]:
        """What each writes on one prompt less on the other, at some positions; of each step, where it differs."""
        written = [self._repeated(self._difference("stream", 0))[None, :, some]]
        for layer in range(self.layers):
            z = self._difference("z", layer)
            weight = output_weight(self.points.head_out[layer]).to(z)
            by_head = torch.einsum("pthd,mhd->hptm", *(x.unflatten(-1, (self.heads, -1)) for x in (z, weight)))
            if not self._linear:
                normed = [self._after_norm(self._repeated(one), layer) for one in by_head]
                by_head = torch.stack(normed)
            mlp = self._repeated(self._difference("mlp", layer))
            written += [self.scale * by_head[:, :, some], self.scale * mlp[None, :, some]]
        return torch.cat([one.to(self.ids.device) for one in written])

    def _after_norm(self, change: Float[Tensor, "row token d_model"], layer: int) -> Tensor:
        """What the norm after attention makes of a change of its input, to first order: the product of its Jacobian,
        as the gradient of the gradient."""
        into, out = self.seen.projected[layer], self.seen.attention[layer]
        direction = torch.zeros_like(out, requires_grad=True)
        (back,) = torch.autograd.grad(out, into, direction, create_graph=True, retain_graph=True)
        return self._tokens(torch.autograd.grad(back, direction, change.view_as(into))[0])

    def _difference(self, what: str, layer: int) -> Float[Tensor, "pair token width"]:
        of_minuend, of_subtrahend = (getattr(seen, what)[layer] for seen in (self.minuend, self.subtrahend))
        return (of_minuend - of_subtrahend).view(len(self.ids) // self.steps, self.ids.shape[1], -1)

    def _repeated(self, of_pairs: Float[Tensor, "pair token width"]) -> Tensor:
        return of_pairs if self._linear else of_pairs.repeat_interleave(self.steps, 0)

    def _times(
        self, difference: Float[Tensor, "pair token width"], gradient: Tensor, heads: int
    ) -> Float[Tensor, "pair head"]:
        gradients = gradient.reshape(len(difference), self.steps, *difference.shape[1:]).mean(1)
        products = (difference * gradients)[:, self.first :].float()
        return products.unflatten(-1, (heads, -1)).sum((1, 3)).to(self.ids.device)

    def _tokens(self, x: Tensor) -> Float[Tensor, "row token width"]:
        """OPT's MLP has all tokens of all rows in one dimension."""
        return by_row(x, len(self.ids))


KINDS: tuple[Literal["query", "key", "value"], ...] = ("query", "key", "value")


def _only(gradient: Float[Tensor, "row head token d_head"], head: int) -> Tensor:
    """Of one head, and nothing of the others."""
    alone = torch.zeros_like(gradient)
    alone[:, head] = gradient[:, head]
    return alone
