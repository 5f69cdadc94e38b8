"""Scores of all neurons of a model's MLPs, from ordinary passes: which of them to patch, and which others would choose.

A neuron is an input of a down projection (`rcm.execution.components`). Of a pair of prompts, with `a` what it puts out
at the last token of the harmful one, `a'` of the harmless one, and `m` the metric:

    attribution     (a - a') (dm/da + dm/da') / 2
    contrastive     |mean a - mean a'| over pairs; neurons of the first two layers, and universal ones, left out
    twin contrast   sqrt(mean of (a_tuned - a_base)^2) over the tokens of the tuned twin's replies; last layer left out

Attribution patching (Nanda 2023; Kramar et al. 2024, arXiv:2403.00745) takes gradient and difference at one site, the
input of the down projection: here at both prompts, so that it is to first order the mean of what the neuron does either
way, and prompts of a pair may differ in length. Contrastive neuron attribution (CNA) is arXiv:2605.12290, section 3;
twin contrast is how arXiv:2406.14144, section 3, finds safety neurons, over as many tokens of a reply as are asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rcm.circuits.attribution import graph_bytes, graph_of_row
from rcm.errors import InputError
from rcm.execution.batches import at_most, in_batches, rows_at_once
from rcm.execution.components import Component
from rcm.execution.decoding import reply_tokens
from rcm.execution.interventions import Edit, Site, applied, by_row
from rcm.execution.metric import Metric
from rcm.execution.recording import cache_components
from rcm.execution.work import PairLengths, Scope, Work
from rcm.models import LoadedModel
from rcm.models.points import Points
from rcm.stats import wilson

Pair = tuple[Sequence[int], Sequence[int]]  # a harmful prompt and a harmless one, as tokens
Scores = Float[np.ndarray, " neuron"]  # NaN where a neuron may not be chosen
Chosen = Int[np.ndarray, " _"]  # places among all neurons; those of one way are not as many as those of another
CONTRASTED_FROM = 2  # the layer with which CNA begins
UNIVERSAL_TOP, UNIVERSAL_IN = 50, 0.8  # of a layer, in this share of unrelated prompts
UNIVERSAL_SHARE = 0.1  # of a layer, at most, are its first: the layers that CNA was published for have 8,192 and more


@dataclass(frozen=True)
class AllNeurons:
    """All neurons of a model, one after the other, by layer and number. `widths`: how many each layer has."""

    widths: tuple[int, ...]

    @cached_property
    def layer(self) -> Int[np.ndarray, " neuron"]:
        return np.repeat(np.arange(len(self.widths)), self.widths)

    @cached_property
    def number(self) -> Int[np.ndarray, " neuron"]:
        return np.concatenate([np.arange(width) for width in self.widths])

    def __len__(self) -> int:
        return sum(self.widths)

    def components(self, chosen: Chosen) -> list[Component]:
        return [Component("neuron", int(self.layer[place]), int(self.number[place])) for place in chosen]

    def places(self, components: Sequence[Component]) -> Chosen:
        first = np.cumsum([0, *self.widths])
        return np.array([first[one.layer] + one.number for one in components], dtype=int)

    def in_line(self, values: Float[Tensor, "layer prompt d_mlp"]) -> Float[Tensor, "prompt neuron"]:
        """What layers, filled up to the widest, hold of each neuron."""
        return torch.cat([of_layer[:, :width] for of_layer, width in zip(values, self.widths, strict=True)], dim=1)

    def of_layers(self, chosen: Chosen) -> Int[np.ndarray, " layer"]:
        """How many of these each layer has."""
        return np.bincount(self.layer[chosen], minlength=len(self.widths))


@dataclass(frozen=True)
class NeuronAttribution:
    """Of every pair: `gap`, by how much the metric is higher on the harmful prompt; `difference`, what each neuron puts
    out there less what it does on the harmless one; `scores` in units of the metric. float64 on the CPU."""

    gap: Float[Tensor, " pair"]
    difference: Float[Tensor, "pair neuron"]
    scores: Float[Tensor, "pair neuron"]

    @property
    def shares(self) -> Float[np.ndarray, "pair neuron"]:
        """Scores in gaps of each pair, as `rcm.patching.Interchange.shares` has the exact effects."""
        return (self.scores / self.gap.abs()[:, None]).numpy()

    def where(self, chosen: Bool[Tensor, " pair"]) -> "NeuronAttribution":
        return NeuronAttribution(self.gap[chosen], self.difference[chosen], self.scores[chosen])


@torch.inference_mode(False)
def attribute_neurons(
    model: LoadedModel, pairs: Sequence[Pair], metric: Metric, label: str = "attribution"
) -> NeuronAttribution:
    """Of all neurons at the last token, from one forward and one backward pass for each prompt.

    `metric`: of logits at the last token, the same for both prompts of a pair. In memory lies the graph of a pass over
    as many prompts as there is room for, and pairs x neurons x 24 bytes.
    """
    every = AllNeurons(model.points.neurons)
    gap = torch.zeros(len(pairs), dtype=torch.float64)
    difference, scores = (torch.zeros(len(pairs), len(every), dtype=torch.float64) for _ in range(2))
    order = sorted(range(len(pairs)), key=lambda i: max(map(len, pairs[i])))

    def of_both(index: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        # Each pair's two, side by side; all patched at the last token, which has one place whatever their lengths.
        probe = _Probe(2 * len(index))
        batch = model.template.padded([prompt for i in index for prompt in pairs[i]], model.device)
        with torch.enable_grad(), applied(model.points, [probe]):
            output = model.hf(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
                logits_to_keep=metric.keep,
            )
            value = metric.of([i for i in index for _ in range(2)])(cast(Tensor, output.logits)[:, None].float())[:, 0]
        found = torch.autograd.grad(value.sum(), list(probe.added.values()))
        value, gradient = (x.detach().cpu().double().unflatten(0, (-1, 2)) for x in (value, probe.in_line(found)))
        return value, gradient, probe.in_line(list(probe.out.values())).double().unflatten(0, (-1, 2))

    longest = max((len(prompt) for pair in pairs for prompt in pair), default=0)
    at_once = max(1, int(min(rows_at_once(model), at_most(model, graph_of_row(model, longest))) // 2))
    for index, (value, gradient, out) in in_batches(model, order, at_once, of_both, "attributed pairs", label):
        gap[index], difference[index] = value[:, 0] - value[:, 1], out[:, 0] - out[:, 1]
        scores[index] = difference[index] * gradient.mean(1)
    return NeuronAttribution(gap, difference, scores)


def work(scope: Scope, pairs: PairLengths) -> Work:
    """Of `attribute_neurons`, counted before there is a model."""
    ordered, at_once = sorted(pairs, key=max), max(1, scope.batch_size // 2)
    batches = [ordered[start : start + at_once] for start in range(0, len(ordered), at_once)]
    tokens = [2 * len(some) * max(map(max, some)) for some in batches]
    graph = graph_bytes(max(tokens, default=0), scope.layers, scope.d_model, scope.neurons)
    held = graph + 24 * len(pairs) * scope.layers * scope.neurons
    back = float(sum(tokens))
    return Work("attribution", 2 * len(pairs), len(batches), logits=2 * len(pairs), gradients=back, held=held)


class _Probe:
    """An intervention that adds nothing to the neurons at the last token, with a gradient, and keeps what they put
    out."""

    def __init__(self, prompts: int) -> None:
        self.prompts = prompts
        self.out: dict[int, Float[Tensor, "prompt d_mlp"]] = {}
        self.added: dict[int, Float[Tensor, "prompt d_mlp"]] = {}

    def rows(self, index: Sequence[int]) -> "_Probe":
        raise NotImplementedError("a pass is for all of its prompts")

    def sites(self, points: Points) -> Iterator[Site]:
        for layer, down in enumerate(points.down_projection):
            if down is not None:
                yield down, "input", self._probed(layer)

    def _probed(self, layer: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            tokens = by_row(x, self.prompts)
            self.out[layer] = tokens[:, -1].detach()
            self.added[layer] = torch.zeros_like(self.out[layer], requires_grad=True)
            return torch.cat([tokens[:, :-1], (tokens[:, -1] + self.added[layer])[:, None]], dim=1).view_as(x)

        return edit

    def in_line(self, layers: Sequence[Float[Tensor, "prompt _"]]) -> Float[Tensor, "prompt neuron"]:
        return torch.cat([layer.cpu() for layer in layers], dim=1)


def universal(model: LoadedModel, prompts: Sequence[Sequence[int]]) -> Bool[np.ndarray, " neuron"]:
    """Which neurons answer to anything: among the 50 of their layer that put out most, by size, at the last token of at
    least four in five of prompts that have nothing to do with each other. Of a layer of fewer than 500 neurons its
    first tenth stands in for the 50."""
    every = AllNeurons(model.points.neurons)
    firsts = np.zeros(len(every))

    def largest(some: list[Sequence[int]]) -> list[Int[np.ndarray, "prompt _"]]:
        recorded = cache_components(model, some, neurons=True).at(-1).neuron
        tops = [min(UNIVERSAL_TOP, int(UNIVERSAL_SHARE * width)) for width in every.widths]
        sizes = (of_layer[:, :width].abs() for of_layer, width in zip(recorded, every.widths, strict=True))
        return [size.topk(top).indices.cpu().numpy() for size, top in zip(sizes, tops, strict=True)]

    for _, by_layer in in_batches(model, prompts, rows_at_once(model), largest, "prompts"):
        for of_layer, found in enumerate(by_layer):
            np.add.at(firsts, sum(every.widths[:of_layer]) + found, 1)
    return firsts >= UNIVERSAL_IN * len(prompts)


def contrastive(
    every: AllNeurons, difference: Float[Tensor, "pair neuron"], everywhere: Bool[np.ndarray, " neuron"]
) -> Scores:
    """CNA's score, in units of activation; `everywhere`: the universal ones. Raw, as published, so that layers whose
    neurons put out more have more of the first."""
    left_out = everywhere | (every.layer < CONTRASTED_FROM)
    return np.where(left_out, np.nan, difference.mean(0).abs().numpy())


@torch.inference_mode()
def twin_contrast(tuned: LoadedModel, base: LoadedModel, prompts: Sequence[str], reply: int) -> Scores:
    """How far the twins' neurons lie apart on the tuned one's replies of at most so many tokens, root mean square over
    these tokens, in units of activation; NaN in the last layer, and everywhere where it says nothing."""
    every = AllNeurons(tuned.points.neurons)
    if base.points.neurons != every.widths:
        raise InputError(
            f"The twins' layers have {every.widths} and {base.points.neurons} neurons, which cannot be set against "
            "each other; give two models of one shape."
        )
    total, tokens = torch.zeros(len(every), dtype=torch.float64), 0
    replies = reply_tokens(tuned, prompts, reply, label="neurons: replies")
    for prompt, said in zip(prompts, replies, strict=True):
        if said:
            rows = [[*tuned.template.tokens(prompt), *said]]
            ours, theirs = (
                cache_components(one, rows, len(said), neurons=True).tail["neuron"] for one in (tuned, base)
            )
            apart = every.in_line((ours - theirs.to(ours))[:, 0])  # of a layer, its tokens
            total += apart.cpu().double().square().sum(0)
            tokens += len(said)
    scores = (total / max(tokens, 1)).sqrt().numpy()
    return np.where((every.layer == len(every.widths) - 1) | (tokens == 0), np.nan, scores)


def highest(scores: Scores, k: int) -> Chosen:
    """The first `k` by score, the highest first; fewer where fewer have one."""
    order = np.argsort(-scores, kind="stable")  # NaN comes last
    return order[: min(k, int((~np.isnan(scores)).sum()))]


def of_same_layers(every: AllNeurons, like: Chosen, n: int, seed: int) -> Chosen:
    """`n` other neurons, as many in each layer as `like` has, in proportion; fewer where a layer has no more."""
    draw = np.random.default_rng(seed)
    wanted = np.bincount(np.resize(every.layer[draw.permutation(like)], n), minlength=len(every.widths))
    others = np.setdiff1d(np.arange(len(every)), like)
    by_layer = [others[every.layer[others] == layer] for layer in range(len(every.widths))]
    return np.concatenate(
        [draw.choice(those, min(many, len(those)), replace=False) for those, many in zip(by_layer, wanted, strict=True)]
    )


class Found(NamedTuple):
    """How much of what is strongest a preselection has found: `share` with its 95 % interval. `candidates` and `drawn`:
    how many of the strongest are preselected, and how many were drawn at random from the others."""

    share: float
    low: float
    high: float
    candidates: int
    drawn: int


def found_by(every: AllNeurons, candidates: Chosen, drawn: Chosen, strongest: Chosen) -> Found:
    """The share of the strongest neurons that are candidates, with those that nobody measured estimated from those that
    were drawn at random from the others of the same layers: each stands for as many as its layer has of each.

    `strongest`: of candidates and drawn ones together. Of layers without candidates it says nothing.
    """
    others, of_drawn = np.array(every.widths) - every.of_layers(candidates), every.of_layers(drawn)
    stands_for = np.divide(others, of_drawn, out=np.zeros(len(others)), where=of_drawn > 0)
    weights = stands_for[every.layer[drawn]]
    hits = np.isin(drawn, strongest)
    seen, hit, total = int(np.isin(candidates, strongest).sum()), float(weights[hits].sum()), float(weights.sum())
    if not total:  # nothing but candidates
        return Found(1.0, 1.0, 1.0, seen, 0)
    # Kish's effective number, of draws that stand for unlike many.
    low, high = wilson(hit / total * (n := total**2 / float((weights**2).sum())), n)
    share, least, most = (seen / max(seen + missed, 1e-12) for missed in (hit, high * total, low * total))
    return Found(share, least, most, seen, int(hits.sum()))


def jaccard(one: Chosen, other: Chosen) -> float:
    """Of two sets; NaN of two empty ones."""
    both = len(np.intersect1d(one, other))
    either = len(one) + len(other) - both
    return both / either if either else float("nan")


def random_jaccard(every: AllNeurons, one: Chosen, other: Chosen, draws: int, seed: int) -> Float[np.ndarray, " draw"]:
    """The same when `one` has as many neurons of each layer as it has, but any of them."""
    draw = np.random.default_rng(seed)
    mine, theirs, widths = every.of_layers(one), every.of_layers(other), np.array(every.widths)
    both = draw.hypergeometric(theirs, widths - theirs, mine, (draws, len(widths))).sum(1)
    return both / np.maximum(len(one) + len(other) - both, 1)
