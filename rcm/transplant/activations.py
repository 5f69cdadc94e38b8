"""What another model's components put out on the same prompts, patched into this one.

    share = (m(this, component from the other) - m(this)) / (m(other) - m(this))

with m the log-odds of refusing: 1 for what makes this model refuse as the other does. Patched at the last token of the
prompt; whatever else the model computes stays its own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.components import Component, DenseKind, Rows
from rcm.execution.engine import engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.passes import first_token
from rcm.execution.recording import Values, cache_components
from rcm.models import LoadedModel
from rcm.patching import by_length
from rcm.patching.effects import ShareEstimates, estimate
from rcm.record.identity import prompt_digest
from rcm.record.results import Tensors
from rcm.stats import label_swap_max_t
from rcm.stats.metrics import refusal_log_odds
from rcm.transplant.source import rows_of

NAME = "patching/activations"
WRITTEN_KINDS: tuple[DenseKind, ...] = (
    "head",
    "attention",
    "mlp",
)  # together they are all that is written after the embedding


def kept_activations(model: LoadedModel, prompts: Sequence[str], refusal_tokens: tuple[int, ...]) -> Tensors:
    """What the components put out at the last token, for other checkpoints to be patched with."""
    tokens = [model.template.tokens(prompt) for prompt in prompts]
    read = in_batches(model, tokens, rows_at_once(model), lambda some: cache_components(model, some).at(-1), "prompts")
    values = [some for _, some in read]
    tensors: dict[str, Tensor] = {
        kind: torch.cat([getattr(some, kind) for some in values], dim=1).float() for kind in WRITTEN_KINDS
    }
    tensors["log_odds"] = first_token(model, prompts, lambda logits, _: refusal_log_odds(logits, refusal_tokens))
    metadata = {
        "shape": "layer, prompt, ...; log_odds: prompt",
        "prompts": json.dumps([prompt_digest(prompt) for prompt in prompts]),
        "refusal_tokens": json.dumps(refusal_tokens),
        "template_hash": model.template.digest,
    }
    return Tensors(NAME, tensors, metadata, "what the components put out on harmful prompts")


@dataclass(frozen=True)
class Patched:
    """Log-odds of refusing on every prompt: of this model, of the other, and of this one under every row; float64."""

    own: Float[Tensor, " prompt"]
    other: Float[Tensor, " prompt"]
    under: Float[Tensor, "prompt row"]

    @property
    def effects(self) -> Float[np.ndarray, "prompt row"]:
        return (self.under - self.own[:, None]).numpy()

    @property
    def gap(self) -> Float[np.ndarray, " prompt"]:
        return (self.other - self.own).numpy()

    def shares(self, min_gap: float) -> Float[np.ndarray, "kept row"]:
        """Of the gap, on the prompts that have one."""
        kept = self.gap >= min_gap
        return self.effects[kept] / self.gap[kept, None]

    def rows(self, start: int, end: int) -> "Patched":
        return Patched(self.own, self.other, self.under[:, start:end])

    def estimate(self, min_gap: float, seed: int) -> ShareEstimates:
        """Shares by cell; p-values over all cells together, from effects whose signs are drawn anew for each prompt."""
        p, _ = label_swap_max_t(self.effects, self.effects, seed)
        return estimate(self.shares(min_gap), p)


@dataclass(frozen=True)
class Donor:
    """Another model's recording on prompts that this model is asked, too."""

    recorded: Tensors
    index: Sequence[int]
    prompts: Sequence[str]

    @classmethod
    def of(cls, recorded: Tensors, prompts: Sequence[str]) -> "Donor":
        """With those of the prompts that were recorded."""
        index, common = rows_of(recorded, [prompt_digest(prompt) for prompt in prompts])
        return cls(recorded, index, [prompts[i] for i in common])

    @cached_property
    def refusal_tokens(self) -> tuple[int, ...]:
        return tuple(json.loads(self.recorded.metadata["refusal_tokens"]))

    def fits(self, model: LoadedModel) -> bool:
        """Whether its components are of the same shapes, and of the same template's last token."""
        own = cache_components(model, [model.template.tokens(self.prompts[0])]).at(-1)
        same = all(self._values([0], own)[i].shape == part.shape for i, part in enumerate(own))
        return same and self.recorded.metadata["template_hash"] == model.template.digest

    def into(self, model: LoadedModel, patches: Rows, seed: int) -> Patched:
        """Patch every prompt with its own recording."""
        tokens = [model.template.tokens(prompt) for prompt in self.prompts]
        ends = sorted(tokens, key=len)[:: max(1, len(tokens) - 1)]
        engine = engine_of(
            model, cache_components(model, ends, tail=2), cache_components(model, ends[::-1], tail=2), seed
        )
        everything = Rows.concat([patches, Rows.of([[]], engine.shape)])
        metric = LogOdds(self.refusal_tokens)
        figures = torch.empty(len(tokens), len(everything), dtype=torch.float64)
        pairs = [(prompt, prompt) for prompt in tokens]

        def patched(some: list[int]) -> Float[Tensor, "prompt row"]:
            base = cache_components(model, [tokens[i] for i in some])
            own = base.at(-1)
            return engine.measure(base, [own, self._values(some, own)], everything, metric)

        at_once = engine.prompts_at_once(len(everything))
        for some, found in in_batches(model, by_length(pairs), at_once, patched, "prompts", "transplant: components"):
            figures[some] = found
        other = self.recorded.tensors["log_odds"][list(self.index)].double()
        return Patched(figures[:, -1], other, figures[:, :-1])

    def _values(self, prompts: Sequence[int], own: Values) -> Values:
        """The recording as what patches take; what no row takes from it, is this model's."""
        rows = [self.index[i] for i in prompts]
        given = {kind: self.recorded.tensors[kind][:, rows].to(own.residual) for kind in WRITTEN_KINDS}
        return own._replace(**given)


def everything_written(layers: int) -> list[Component]:
    """All that attention and MLPs write: with equal embeddings, the other model's final residual stream."""
    return [Component(kind, layer) for kind in ("attention", "mlp") for layer in range(layers)]
