"""Runs trials on a model: rows in, replies with verdicts out, or what the rows cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.directions.fit import random_directions
from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.decoding import replies as decoded
from rcm.execution.decoding import reply_tokens
from rcm.execution.interventions import Ablate, Add, Affine, Clamp, Intervention
from rcm.execution.likelihood import Text, cross_entropies, kl_divergences
from rcm.execution.self_checks import shared_tokens
from rcm.judges import Judge
from rcm.models import LoadedModel
from rcm.prompts import Prompt, texts
from rcm.steering.conditions import OURS, RANDOM, SHUFFLED, UNSTEERED, Operation, Trial
from rcm.steering.gate import Gate
from rcm.steering.replies import SteeredReply


@dataclass(frozen=True)
class SteeringRunner:
    """`directions` are unit vectors by name: the one found, random ones, and as many of shuffled labels. What was said
    is kept, and not generated again where the same is asked again, as of one control beside two directions."""

    model: LoadedModel
    judge: Judge
    found: RefusalDirection
    gate: Gate
    directions: Mapping[str, Float[Tensor, " d_model"]]
    max_new_tokens: int
    kl_tokens: int
    _unsteered: dict[str, str] = field(default_factory=dict)
    _steered: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _continuations: dict[str, Text] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        judge: Judge,
        found: RefusalDirection,
        gate: Gate,
        seed: int,
        max_new_tokens: int,
        kl_tokens: int,
    ) -> "SteeringRunner":
        """With random directions drawn from the seed."""
        randoms = torch.from_numpy(random_directions(len(found.shuffled), len(found.vector), seed)).float()
        named = {OURS: found.vector}
        named |= {f"{RANDOM} {i}": vector for i, vector in enumerate(randoms, start=1)}
        named |= {f"{SHUFFLED} {i}": vector for i, vector in enumerate(found.shuffled, start=1)}
        units = {name: torch.nn.functional.normalize(vector, dim=0) for name, vector in named.items()}
        return cls(model, judge, found, gate, units, max_new_tokens, kl_tokens)

    def shortened(self, max_new_tokens: int) -> "SteeringRunner":
        """One whose replies are no longer than that."""
        return replace(self, max_new_tokens=min(max_new_tokens, self.max_new_tokens), _unsteered={}, _steered={})

    def after(self, before: "SteeringRunner") -> "SteeringRunner":
        """One that knows what the same model said before, in replies as long."""
        if before.model is not self.model or before.max_new_tokens != self.max_new_tokens:
            raise ValueError("What another model said, or in replies of another length, is not what this one says.")
        return replace(self, _unsteered=before._unsteered, _steered=before._steered)

    def replies(self, rows: Sequence[Trial]) -> list[SteeredReply]:
        """One generation for each operation, in the order of the rows. What is not steered is generated once."""
        steered = {self._key(row): row for row in rows if not self._idle(row)}
        new = {key: row for key, row in steered.items() if key not in self._steered}
        for operation in dict.fromkeys(row.operation for row in new.values()):
            batch = {key: row for key, row in new.items() if row.operation == operation}
            asked = [row.prompt.text for row in batch.values()]
            done = [self.intervention(operation, list(batch.values()))]
            replies = decoded(self.model, asked, self.max_new_tokens, done, f"steering: {operation}")
            self._steered.update(zip(batch, replies, strict=True))
        self._say_unsteered([row.prompt.text for row in rows if self._idle(row)])
        spoken = [
            self._unsteered[row.prompt.text] if self._idle(row) else self._steered[self._key(row)] for row in rows
        ]
        verdicts = self.judge.verdicts([row.prompt.text for row in rows], spoken)
        return [SteeredReply(*one) for one in zip(rows, spoken, verdicts, strict=True)]

    def _say_unsteered(self, asked: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(asked) if text not in self._unsteered]
        self._unsteered.update(
            zip(new, decoded(self.model, new, self.max_new_tokens, label="steering: none"), strict=True)
        )

    def _key(self, row: Trial) -> tuple[Any, ...]:
        """What tells apart what is done to a prompt, whatever name its direction goes by."""
        own = row.prompt.text, row.kind, row.operation, self._bytes[row.direction]
        if row.operation == "ablate":  # everywhere, and wholly
            return own
        pushed = self.found.layer, f"{row.strength * float(self.found.vector.norm()):.6g}"
        if row.operation in ("clamp", "affine"):  # from the means of the classes, by how far these lie apart
            return *own, *pushed, self.found.position, self._bytes[OURS]
        return *own, *pushed

    @cached_property
    def _bytes(self) -> dict[str, bytes]:
        return {name: vector.numpy().tobytes() for name, vector in self.directions.items()}

    def _idle(self, row: Trial) -> bool:
        """Whether a row is the unsteered model."""
        if row.operation == "conditional":
            return not self.gate.fires[row.prompt.text]
        return row.strength == UNSTEERED

    def kl(self, rows: Sequence[Sequence[Trial]], label: str = "steering: KL") -> Float[np.ndarray, "prompt row"]:
        """KL in nats per token of each prompt under each of its rows, of one operation, to the unsteered model."""
        beside = [[Trial(own[0].kind, own[0].index, own[0].prompt, own[0].operation, UNSTEERED), *own] for own in rows]
        flat = [row for own in beside for row in own]
        known = self._continued([own[0].prompt for own in rows])
        interventions = [self.intervention(flat[-1].operation, flat)]
        shared = shared_tokens(self.model, (len(text.tokens) for text in known))
        return kl_divergences(self.model, known, len(beside[0]), interventions, shared, label).double().numpy()[:, 1:]

    def _continued(self, prompts: Sequence[Prompt]) -> list[Text]:
        """Prompts with the beginning of their unsteered replies."""
        new = [text for text in dict.fromkeys(texts(prompts)) if text not in self._continuations]
        replies = reply_tokens(self.model, new, self.kl_tokens, label="steering: unsteered replies")
        for text, tokens in zip(new, replies, strict=True):
            self._continuations[text] = Text((*self.model.template.tokens(text), *tokens), len(tokens))
        return [self._continuations[prompt.text] for prompt in prompts]

    def cross_entropy(self, rows: Sequence[Sequence[Trial]]) -> Float[np.ndarray, "text row"]:
        """Nats per token by which the loss on plain text grows under each of its rows, all of one operation."""
        beside = [[Trial(own[0].kind, own[0].index, own[0].prompt, own[0].operation, UNSTEERED), *own] for own in rows]
        flat = [row for own in beside for row in own]
        tokens = [tuple(self.model.template.tokenizer(own[0].prompt.text)["input_ids"]) for own in rows]
        given = [Text(read, len(read) - 1) for read in tokens]
        losses = cross_entropies(self.model, given, len(beside[0]), [self.intervention(flat[-1].operation, flat)])
        return (losses[:, 1:] - losses[:, :1]).double().numpy()

    def intervention(self, operation: Operation, rows: Sequence[Trial]) -> Intervention:
        """All rows of one operation; a row that is not steered has no direction."""
        named = torch.stack([self.directions[row.direction] for row in rows])
        idle = torch.tensor([self._idle(row) for row in rows])
        units, strengths = named.masked_fill(idle[:, None], 0.0), torch.tensor([row.strength for row in rows])
        layer, norm = self.found.layer, self.found.vector.norm()
        if operation == "ablate":
            return Ablate(units)
        if operation in ("add", "conditional"):
            return Add(layer, strengths[:, None] * norm * units)
        means = torch.stack([self.found.harmful if row.kind == "harmful" else self.found.harmless for row in rows])
        start = torch.einsum("rld,rd->rl", means, units)
        if operation == "clamp":
            return Clamp(layer, units, start[:, layer] + strengths * norm)
        return Affine(units, start + strengths[:, None] * self._gaps)

    @property
    def _gaps(self) -> Float[Tensor, " layer"]:
        """How far apart the classes lie along the direction at the input of each layer: the natural norm there."""
        return (self.found.harmful - self.found.harmless) @ self.directions[OURS]
