"""What a check is given, and what it finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.directions.refusal_tokens import Opening, refusal_openings
from rcm.execution.engine import Engine
from rcm.execution.passes import last_logits
from rcm.execution.self_checks import TOLERANCE, overflow
from rcm.models import LoadedModel
from rcm.models.template import PROBES
from rcm.patching import Pairs, engine_for
from rcm.prompts import Part

# What a check comes to. `noted`: nothing is wrong, and something to know; `not_tried`: it cannot be made here.
PASSED, FAILED, NOTED, NOT_TRIED = "passed", "failed", "noted", "not_tried"


class Diagnosis(NamedTuple):
    """`measured`: in words. `figure` and `limit`: what it was and may be, in `unit`; None where there is no number.
    `then`: what to do, in one sentence; empty where nothing need be done."""

    check: str
    measured: str
    verdict: str
    figure: float | None = None
    limit: float | None = None
    unit: str = ""
    then: str = ""

    @property
    def sentence(self) -> str:
        """What was found, and what to do."""
        return f"{self.measured}; {self.then}" if self.then else f"{self.measured}."


@dataclass(frozen=True)
class Patient:
    """A model and the prompts that it is looked at on. `tokens`: those that open refusals, where that is known; else
    they are found, if there are any. `against`: by name, models that are to be compared with it, each with how it would
    end an instruction. `min_gap`, `min_share`: as in patching. `reported`: by name, effects in nats that were reported
    of it. `reply`: how many tokens to let it say."""

    model: LoadedModel
    prompts: Part
    paired: bool
    seed: int
    tokens: tuple[int, ...] = ()
    against: Sequence[tuple[str, Sequence[str]]] = ()
    min_gap: float = 1.0
    min_share: float = 0.02
    reply: int = 24
    reported: Sequence[tuple[str, float]] = ()

    @property
    def name(self) -> str:
        return self.model.identity.get("name") or type(self.model.hf).__name__

    @cached_property
    def harmful(self) -> list[str]:
        return [prompt.text for prompt in self.prompts.harmful]

    @cached_property
    def harmless(self) -> list[str]:
        return [prompt.text for prompt in self.prompts.harmless]

    @cached_property
    def rows(self) -> list[list[int]]:
        """All prompts as tokens, and a short one, so that they differ in length."""
        return [self.model.template.tokens(text) for text in (*self.harmful, *self.harmless, PROBES[2])]

    @property
    def tolerance(self) -> float:
        """The largest error of a logit, as a share of the largest one, that rounding may make."""
        return TOLERANCE[self.model.hf.dtype]

    @cached_property
    def first_logits(self) -> tuple[Float[Tensor, "prompt vocabulary"], Float[Tensor, "prompt vocabulary"]]:
        """Of the first token of the reply: to harmful prompts, and to harmless ones."""
        return last_logits(self.model, self.harmful), last_logits(self.model, self.harmless)

    @cached_property
    def openings(self) -> list[Opening]:
        """The tokens that open refusals, as these prompts show them."""
        harmful, harmless = (logits.double().softmax(-1).mean(0) for logits in self.first_logits)
        return refusal_openings(harmful, harmless)

    @cached_property
    def measured_tokens(self) -> tuple[int, ...]:
        """Those whose log-odds are measured: the ones that open refusals; where there are none, the likeliest token."""
        known = self.tokens or self.model.refusal_tokens or tuple(one.token for one in self.openings)
        return known or (int(self.first_logits[0].softmax(-1).mean(0).argmax()),)

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs.of(self.model, self.prompts, self.paired)

    @cached_property
    def engine(self) -> Engine:
        """How components are exchanged in it."""
        return engine_for(self.model, self.pairs.tokens, self.seed)

    def shown(self, token: int) -> str:
        """A token as readable text."""
        return repr(self.model.template.tokenizer.decode([token]))


Check = Callable[[Patient], Diagnosis]


def off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest value; infinite where either is no number."""
    scale = theirs.float().abs().max().item()
    error = (ours.float() - theirs.float()).abs().max().item()
    found = error / scale if scale else error
    return found if found == found else float("inf")


def of_error(check: str, what: str, error: float, patient: Patient, then: str) -> Diagnosis:
    """Of an error of logits, which must be rounding; an infinite one is of logits that are no numbers."""
    if error == float("inf"):
        then = f"logits are {overflow(patient.model.hf.dtype)}."
    fine = error <= patient.tolerance
    return Diagnosis(
        *(check, what, PASSED if fine else FAILED, error, patient.tolerance),
        unit="of the largest value",
        then="" if fine else then,
    )


@torch.inference_mode()
def plain_logits(
    model: LoadedModel, rows: Sequence[Sequence[int]], hf: torch.nn.Module | None = None
) -> Float[Tensor, "row vocabulary"]:
    """At the last token of rows of tokens that go through the model in one padded batch, by transformers alone."""
    batch = model.template.padded(rows, model.device)
    output = (hf or model.hf)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()
