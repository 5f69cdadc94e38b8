"""From which tokens heads read at the last token, and whether by where they look or by what they find there.

What a head puts out at the last token is a sum over the tokens of the prompt, z = sum of a(t) v(t): attention (QK)
times values (OV; Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). Of a pair of prompts,
patched exactly into the harmful one at the last token, head by head:

    whole      z is the harmless twin's
    a source   the part of z that comes from some tokens is the twin's: the template's beginning, words of the
               instruction that both prompts share, words in which they differ, the template's end. The parts of all
               sources sum up to the whole change of z, their effects need not
    QK         the twin's attention on the prompt's own values
    OV         the prompt's own attention on the twin's values; both in pairs of one length alone

The weights are computed anew from queries and keys as attention gets them, and checked: they must give z.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rcm.errors import InputError
from rcm.execution.components import Component, Rows, Shape
from rcm.execution.engine import Engine
from rcm.execution.metric import Metric
from rcm.execution.progress import track
from rcm.execution.recording import ComponentCache, Values, cache_components
from rcm.execution.rows import attention
from rcm.execution.self_checks import TOLERANCE
from rcm.models import LoadedModel
from rcm.patching import Pair

SOURCES = ("template's beginning", "shared words", "differing words", "template's end")
Parts = Float[Tensor, "layer head token d_head"]


@dataclass(frozen=True)
class Reading:
    """`attention`: from the last token, of the harmful and the harmless prompt. Effects in units of the metric: what
    the harmful prompt loses; `gaps`: by which it exceeds its twin. `alike`: which pairs have prompts of one length."""

    heads: Sequence[Component]
    attention: Float[np.ndarray, "2 pair head source"]
    whole: Float[np.ndarray, "pair head"]
    by_source: Float[np.ndarray, "pair head source"]
    alike: Sequence[int]
    gaps: Float[np.ndarray, " pair"]
    by_attention: Float[np.ndarray, "alike head"]
    by_values: Float[np.ndarray, "alike head"]

    @property
    def gap(self) -> float:
        """Mean of the pairs' gaps, of which effects are shares."""
        return float(self.gaps.mean())


class _Seen(NamedTuple):
    """Of one prompt: attention from the last token, and the values that it finds."""

    weights: Float[Tensor, "layer head token"]
    values: Parts
    recorded: ComponentCache

    @property
    def parts(self) -> Parts:
        return self.weights[..., None] * self.values


def reading(engine: Engine, pairs: Sequence[Pair], heads: Sequence[Component], metric: Metric) -> Reading:
    """Raises InputError where the attention of a model cannot be seen, or is not what it puts out."""
    shape, n = engine.shape, len(heads)
    alike = [i for i, (harmful, harmless) in enumerate(pairs) if len(harmful) == len(harmless)]
    attended = np.zeros((2, len(pairs), n, len(SOURCES)))
    gaps = np.zeros(len(pairs))
    whole, by_source = np.zeros((len(pairs), n)), np.zeros((len(pairs), n, len(SOURCES)))
    split = np.zeros((2, len(alike), n))
    layers, numbers = [head.layer for head in heads], [head.number for head in heads]
    for i in track(range(len(pairs)), "where heads read"):
        pair = pairs[i]
        own, twin = (_seen(engine.model, prompt) for prompt in pair)
        sources = [_sources(engine.model, *pair), _sources(engine.model, *reversed(pair))]
        for side, (one, masks) in enumerate(zip((own, twin), sources, strict=True)):
            of_heads = one.weights[layers, numbers].double()
            attended[side, i] = torch.stack([of_heads[:, mask].sum(-1) for mask in masks], dim=1).cpu().numpy()
        z = [own.parts.sum(2), twin.parts.sum(2)]
        changed = [z[1]]
        for mine, theirs in zip(*sources, strict=True):
            changed.append(z[0] - own.parts[:, :, mine].sum(2) + twin.parts[:, :, theirs].sum(2))
        if i in alike:
            changed += [
                (twin.weights[..., None] * own.values).sum(2),
                (own.weights[..., None] * twin.values).sum(2),
            ]
        lost = _lost(engine, own.recorded, heads, changed, metric.of([i]), shape)
        ends = [engine.measure(one.recorded, [], Rows.of([[]], shape), metric.of([i])).item() for one in (own, twin)]
        gaps[i] = ends[0] - ends[1]
        whole[i], by_source[i] = lost[0], lost[1 : 1 + len(SOURCES)].T
        if i in alike:
            split[:, alike.index(i)] = lost[-2:]
    return Reading(heads, attended, whole, by_source, alike, gaps, *split)


def _lost(
    engine: Engine,
    base: ComponentCache,
    heads: Sequence[Component],
    changed: Sequence[Float[Tensor, "layer head d_head"]],
    metric: Metric,
    shape: Shape,
) -> Float[np.ndarray, "donor asked"]:
    """What a prompt loses when one head puts out what it does in each of the changed runs."""
    own = base.at(-1)
    donors = [own, *(Values(z[:, None].to(own.head), *own[1:]) for z in changed)]
    rows = [Rows.of([[head] for head in heads], shape, donor) for donor in range(1, len(donors))]
    found = engine.measure(base, donors, Rows.concat([*rows, Rows.of([[]], shape)]), metric)[0].numpy()
    return (found[-1] - found[:-1]).reshape(len(changed), len(heads))


def _sources(model: LoadedModel, prompt: Sequence[int], twin: Sequence[int]) -> list[Bool[Tensor, " token"]]:
    """Which tokens of the prompt are of which source."""
    begin, end = len(model.template.beginning), len(model.template.end_of_instruction)
    inner, other = prompt[begin : len(prompt) - end], twin[begin : len(twin) - end]
    masks = torch.zeros(len(SOURCES), len(prompt), dtype=torch.bool)
    masks[0, :begin] = True
    masks[2, begin : len(prompt) - end] = True
    for start, _, size in SequenceMatcher(None, inner, other, autojunk=False).get_matching_blocks():
        masks[1, begin + start : begin + start + size] = True
    masks[2] &= ~masks[1]
    masks[3, len(prompt) - end :] = True
    return list(masks.to(model.device))


@torch.inference_mode()
def _seen(model: LoadedModel, prompt: Sequence[int]) -> _Seen:
    recorded = cache_components(model, [prompt])
    heads = recorded.at(-1).head[:, 0]
    ids = recorded.batch.input_ids
    with _attention_noted(model) as noted:
        model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    if len(noted) != model.n_layers:
        raise InputError(
            f"Attention of {type(model.hf).__name__} is seen in {len(noted)} of {model.n_layers} layers, so nobody can "
            "say from which tokens heads read; choose another model."
        )
    weights, values = zip(*noted, strict=True)
    width = heads.shape[-1]
    padded = torch.stack([torch.nn.functional.pad(one, (0, width - one.shape[-1])) for one in values])
    found = _Seen(torch.stack(list(weights)), padded, recorded)
    off = (found.parts.sum(2) - heads).abs().max() / heads.abs().max()
    if not off <= 10 * TOLERANCE[model.hf.dtype]:
        raise InputError(
            f"What heads of {type(model.hf).__name__} put out is not their attention times their values (off by "
            f"{off:.1g} of the largest), so nobody can say from which tokens they read; choose another model."
        )
    return found


@contextmanager
def _attention_noted(model: LoadedModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Of every layer the weights of the last token and the values, head by head, where keys are shared as well."""
    noted: list[tuple[Tensor, Tensor]] = []
    name = model.hf.config._attn_implementation
    live: Callable[..., Any] | None = ALL_ATTENTION_FUNCTIONS.get(name)

    def note(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
        group = query.shape[1] // key.shape[1]
        keys, values = (one[0].float().repeat_interleave(group, 0) for one in (key, value))
        scaling = named.get("scaling")
        scores = (keys @ query[0, :, -1].float()[..., None])[..., 0]
        scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        if (cap := named.get("softcap")) is not None:
            scores = cap * torch.tanh(scores / cap)
        if window := named.get("sliding_window"):
            scores[:, : max(0, scores.shape[-1] - window)] = float("-inf")
        noted.append((scores.softmax(-1).to(model.device), values.to(model.device)))
        own = live or vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        return own(module, query, key, value, *rest, **named)

    with attention(model.hf, note, name):
        yield noted
