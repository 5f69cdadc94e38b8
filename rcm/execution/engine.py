"""The way to patch a given model: by rows where that is exact, else by the slow loop, and how it was found out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rcm.errors import InputError, first_sentence
from rcm.execution import loop, rows
from rcm.execution.batches import in_batches, is_out_of_memory, rows_at_once
from rcm.execution.components import COMPONENT_KINDS, Component, Rows, Shape
from rcm.execution.metric import Metric
from rcm.execution.recording import ComponentCache, Values, shape_of
from rcm.execution.self_checks import BROKEN, TOLERANCE
from rcm.models import LoadedModel

log = logging.getLogger(__name__)

CHECKED = 3  # random sets of components, and as many of neurons where they were recorded
NEURONS = 64  # of each layer in such a set, at most
TOKENS_PER_PROMPT = 32  # a pass over rows is cut to hold about as many tokens as a batch of prompts does


class CannotShareError(Exception):
    """Why rows cannot share a prompt in this model; the slow loop can still patch it."""


@dataclass(frozen=True)
class Engine:
    """`path` was taken for `reason`; `error` is the largest difference of a logit from the slow loop's, None where rows
    could not be tried."""

    model: LoadedModel
    path: Literal["rows", "loop"]
    reason: str
    error: float | None

    @property
    def shape(self) -> Shape:
        return shape_of(self.model)

    def prompts_at_once(self, tokens: int) -> int:
        """How many prompts to give `measure` at once, if each has rows of this many tokens in all."""
        return max(1, TOKENS_PER_PROMPT * rows_at_once(self.model) // tokens)

    def measure(
        self, base: ComponentCache, donors: Sequence[Values], patches: Rows, metric: Metric, tail: int = 1
    ) -> Float[Tensor, "prompt row"]:
        """The metric of each prompt under each row, patched at the first of the last `tail` tokens; on the CPU."""
        patched = rows.patched_logits if self.path == "rows" else loop.patched_logits
        figures = torch.empty(len(base), len(patches), dtype=torch.float64)

        def of(some: list[int]) -> Float[Tensor, "prompt row"]:
            logits = patched(self.model, base, donors, patches[torch.tensor(some)], tail, metric.keep)
            return metric(logits).double().cpu()

        order, at_once = patches.first_layer.argsort(stable=True).tolist(), self.prompts_at_once(len(base) * tail)
        for some, found in in_batches(self.model, order, at_once, of, "patched rows"):
            figures[:, some] = found
        return figures


def engine_of(model: LoadedModel, base: ComponentCache, source: ComponentCache, seed: int) -> Engine:
    """Compare rows with the slow loop on random sets of components; say which way it went, and why."""
    try:
        _require_shared_attention(model, base)
        error, scale = _compared(model, base, source, seed)
    except CannotShareError as obstacle:
        return _told(Engine(model, "loop", str(obstacle), None))
    except InputError:  # of whoever asked, not of the model
        raise
    except BROKEN as broken:
        if is_out_of_memory(broken):
            raise
        why = f"rows do not go through its layers ({type(broken).__name__}: {first_sentence(broken)})"
        return _told(Engine(model, "loop", why, None))
    if error <= TOLERANCE[model.hf.dtype] * scale:
        return _told(Engine(model, "rows", f"exact to {error:.1e} where logits reach {scale:.2g}", error))
    return _told(Engine(model, "loop", f"rows are wrong by {error:.1e} where logits reach {scale:.2g}", error))


def _told(engine: Engine) -> Engine:
    way = "All components in one pass" if engine.path == "rows" else "One forward pass for each component"
    log.log(logging.INFO if engine.path == "rows" else logging.WARNING, "%s: %s", way, engine.reason)
    return engine


def _require_shared_attention(model: LoadedModel, base: ComponentCache) -> None:
    """Raise CannotShareError unless every layer takes its attention from transformers' interface, over cached keys."""
    layers: list[Any] = []
    shapes: list[tuple[int, ...]] = []
    tokens = base.batch.input_ids.shape[1]

    def listed(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **extra: Any) -> Any:
        if sinks := [name for name in ("s_aux", "position_bias") if extra.get(name) is not None]:
            raise CannotShareError(f"its attention adds {sinks[0]} to the scores")
        layers.append(getattr(module, "layer_idx", None))
        shapes.append((key.shape[1], tokens, query.shape[3]))
        return query.new_zeros(*query.shape[:-1], value.shape[-1]).transpose(1, 2), None

    # Under the name that it has, so that models which need a mask get one.
    with rows.attention(model.hf, listed, model.hf.config._attn_implementation), torch.inference_mode():
        model.hf(input_ids=base.batch.input_ids[:, -1:], use_cache=False)
    if layers != list(range(model.n_layers)):
        raise CannotShareError(
            f"{len(layers)} of {model.n_layers} layers take their attention from transformers' interface"
        )
    if any([x.shape[1:] for x in part] != shapes for part in zip(*base.cache, strict=True)) or not base.cache:
        raise CannotShareError("its cache does not hold the keys and values of every token as attention reads them")


def _compared(model: LoadedModel, base: ComponentCache, source: ComponentCache, seed: int) -> tuple[float, float]:
    """The largest difference of a logit between rows and loop, and the largest logit."""
    components = base.shape.components(COMPONENT_KINDS)
    draw = np.random.default_rng(seed)
    half = [draw.choice(len(components), len(components) // 2, replace=False) for _ in range(CHECKED)]
    neurons = [_random_neurons(model, draw) for _ in range(CHECKED if base.tail["neuron"].shape[-1] else 0)]
    sets = Rows.of([*([components[i] for i in chosen] for chosen in half), *neurons], base.shape)
    sets = sets[sets.first_layer.argsort(stable=True)]
    errors, scales = [], []
    for tail in {1, base.length_of_tail}:
        donors = [base.at(-tail), source.at(-tail)]
        slow = loop.patched_logits(model, base, donors, sets, tail)
        errors.append((slow - rows.patched_logits(model, base, donors, sets, tail)).abs().max().item())
        scales.append(slow.abs().max().item())
    return float(np.max(errors)), float(np.max(scales))  # which, unlike max, cannot overlook a NaN


def _random_neurons(model: LoadedModel, draw: np.random.Generator) -> list[Component]:
    return [
        Component("neuron", layer, int(number))
        for layer, width in enumerate(model.points.neurons)
        for number in draw.choice(width, min(width // 2, NEURONS), replace=False)
    ]
