"""The refusal direction in a model: its vector, and what forcing and suppressing by it makes the model say.

As in the method `steering`: adding `strength` times the mean difference forces refusal, ablating the direction
everywhere suppresses it, each beside a random direction of the same length. The same gate: in a model that does not
refuse, or where no direction was selected, nothing is steered. The same redaction: of every reply to a harmful prompt
only the opening words leave this file, and whatever one asks to suppress counts as harmful. Interventions last for one
call; weights stay as they are.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.api.findings import Finding
from rcm.api.shown import table
from rcm.directions.fit import random_directions
from rcm.directions.refusal_direction import RefusalDirection
from rcm.errors import InputError
from rcm.execution.seeding import seed_generators
from rcm.judges.behaviour import RefusalBehaviour
from rcm.judges.redaction import kept
from rcm.methods.steering import Steering, tested_behaviour
from rcm.models.loaded import longest_prompt, vocabulary
from rcm.prompts import Prompt, texts
from rcm.record.results import Outcome
from rcm.report.svg import element
from rcm.running.composed import composed, with_needs
from rcm.steering.conditions import OURS, RANDOM, UNSTEERED, Kind, Trial
from rcm.steering.gate import Gate
from rcm.steering.measurements import unsteered
from rcm.steering.replies import SteeredReply
from rcm.steering.runner import SteeringRunner

log = logging.getLogger(__name__)
LONGEST = 64  # tokens of a reply: as many as tell whether it refuses
BESIDE = f"{RANDOM} direction"


class Direction(Finding):
    """What the method `direction` found."""

    map_first: ClassVar[str] = "map_separation"  # the causal maps have gaps where a score could not change the choice

    @property
    def vector(self) -> Float[Tensor, " d_model"]:
        """The mean difference at its place, in its natural length; float32 on the CPU."""
        return self._found.vector

    @property
    def layer(self) -> int:
        """It is read at the input of this block, counted from 0."""
        return self._found.layer

    @property
    def position(self) -> int:
        """The token at which it is read, from the end of the prompt, -1."""
        return self._found.position

    def force(
        self, prompts: str | Sequence[str], *, strength: float | int = 1.0, max_new_tokens: int = 24
    ) -> "Replies":
        """Replies with the direction added, at `strength` times its length, beside those without it and those with a
        random direction of the same length. Raises InputError for a strength that is not above zero, and for more than
        64 tokens."""
        if not isinstance(strength, int | float) or isinstance(strength, bool) or not 0 < strength < float("inf"):
            raise InputError(f"strength={strength!r}: give a number above 0; direction.suppress takes refusing away.")
        return self._steered("harmless", "add", prompts, float(strength), max_new_tokens)

    def suppress(self, prompts: str | Sequence[str], *, max_new_tokens: int = 24) -> "Replies":
        """The opening words of replies with the direction ablated everywhere, beside those with nothing and with a
        random direction ablated. Raises InputError for more than 64 tokens."""
        return self._steered("harmful", "ablate", prompts, 1.0, max_new_tokens)

    @property
    def _found(self) -> RefusalDirection:
        return cast(RefusalDirection, self.finding)

    def _in_short(self) -> list[str]:
        return [f"layer {self.layer}, position {self.position}", *super()._in_short()]

    def _steered(
        self, kind: Kind, operation: Literal["add", "ablate"], prompts: Any, strength: float, max_new_tokens: int
    ) -> "Replies":
        asked = self._asked(prompts, max_new_tokens)
        done = f"force, strength {strength:g}" if operation == "add" else "suppress"
        if not self._found.chosen:
            why, outcome = "No direction was selected, so there is none to steer by.", self._found.outcome
            return Replies(done, kind, Outcome("steering/outcome", outcome.value, why, words=outcome.words), ())
        if not self._behaviour.refuses:
            outcome = self._behaviour.outcome
            stopped = Outcome("steering/outcome", outcome.value, outcome.because, words=outcome.words)
            return Replies(done, kind, stopped, ())
        seed_generators(self.study.seed)
        runner = self._runner(max_new_tokens)
        trials = [
            Trial(kind, i, Prompt(text, ""), *how)
            for i, text in enumerate(asked)
            for how in (("none", UNSTEERED, OURS), (operation, strength, OURS), (operation, strength, BESIDE))
        ]
        replies = runner.replies(trials)
        rows = tuple(self._row(replies[start : start + 3]) for start in range(0, len(replies), 3))
        return Replies(done, kind, None, rows, "nearest miss" if self._found.outcome.value == "nearest_miss" else "")

    def _asked(self, prompts: Any, max_new_tokens: int) -> list[str]:
        asked = [prompts] if isinstance(prompts, str) else prompts
        only_texts = isinstance(asked, list | tuple) and all(isinstance(one, str) and one.strip() for one in asked)
        if not only_texts or not asked:
            raise InputError(f"{str(prompts)[:40]!r} is no prompt: give a text, or a list of texts.")
        if type(max_new_tokens) is not int or not 1 <= max_new_tokens <= LONGEST:
            raise InputError(f"max_new_tokens={max_new_tokens!r}: give 1 to {LONGEST}; that tells whether it refuses.")
        model = self.model.loaded
        config = model.hf.config
        model.template.check(asked, longest_prompt(config), max_new_tokens, vocabulary(config))
        return list(asked)

    def _runner(self, max_new_tokens: int) -> SteeringRunner:
        vector = self.vector
        random = torch.from_numpy(random_directions(1, len(vector), self.study.seed)[0]).float()
        units = {OURS: torch.nn.functional.normalize(vector, dim=0), BESIDE: random}
        return SteeringRunner(
            self.model.loaded, self.study.judge, self._found, Gate(float("inf"), {}), units, max_new_tokens, kl_tokens=1
        )

    @cached_property
    def _behaviour(self) -> RefusalBehaviour:
        """Whether the model refuses: by the method `behaviour` where the direction was found after it, else tested as
        `steering` does."""
        if "behaviour" in self.before:
            return cast(RefusalBehaviour, self.before["behaviour"].finding)
        steering = cast(Steering, composed({"method": with_needs("steering")}, {}).methods["steering"])
        test = self.study.prompts.test.first(steering.prompts)
        log.info("Asking %d test prompts first whether the model refuses", len(test.harmful) + len(test.harmless))
        seed_generators(self.study.seed)
        before, _ = unsteered(self._runner(steering.control_tokens), test)
        return tested_behaviour(before, steering.floor, self.study.seed)

    @cached_property
    def _harmful(self) -> frozenset[str]:
        prompts = self.study.prompts
        parts = (prompts.train, prompts.validation, prompts.test)
        return frozenset(text for part in parts for text in texts(part.harmful))

    def _row(self, replies: Sequence[SteeredReply]) -> "Reply":
        before, steered, random = replies
        prompt, kind = before.trial.prompt.text, before.trial.kind
        # What the model refuses may be harmful, and so may what its data set calls harmful, whoever asks to force it.
        harmful = kind == "harmful" or prompt in self._harmful or before.verdict.refuses

        def judged(one: SteeredReply) -> Judged:
            return Judged(kept(one.completion, harmful=harmful, redact=True), one.verdict.value)

        flips = (one.flipped if before.can_flip else None for one in (steered, random))
        return Reply(prompt, judged(before), judged(steered), judged(random), *flips)


@dataclass(frozen=True)
class Judged:
    """What may be kept of a completion, and the judge's verdict on the whole."""

    completion: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.completion}"


@dataclass(frozen=True)
class Reply:
    """Replies to one prompt. `flipped`, `random_flipped`: whether it was forced, or suppressed; None where it was so to
    begin with, and there was nothing to turn."""

    prompt: str
    unsteered: Judged
    steered: Judged
    random: Judged
    flipped: bool | None
    random_flipped: bool | None


@dataclass(frozen=True, repr=False)
class Replies(Sequence[Reply]):
    """What was said. `outcome`: why nothing was steered, or None. `caveat`: that the direction is a nearest miss."""

    done: str
    kind: Kind
    outcome: Outcome | None
    rows: tuple[Reply, ...]
    caveat: str = ""

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def summary(self) -> str:
        """How many were flipped, of those that could be."""
        if self.outcome is not None:
            return f"{self.done}: nothing is steered: {self.outcome.value} ({self.outcome.because})"
        could = [one for one in self.rows if one.flipped is not None]
        word, before = ("refused", "answered") if self.kind == "harmless" else ("answered", "refused")
        counts = [sum(bool(getattr(one, name)) for one in could) for name in ("flipped", "random_flipped")]
        caveat = f" ({self.caveat})" if self.caveat else ""
        return (
            f"{self.done}{caveat}: {counts[0]} of {len(could)} prompts that were {before} are {word}; "
            f"with a random direction {counts[1]}"
        )

    def __repr__(self) -> str:
        lines = [self.summary]
        for one in self.rows:
            lines.append(f"  {one.prompt!r}")
            lines += [f"    {name:9} {said.verdict}: {said.completion!r}" for name, said in _conditions(one).items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows: list[Mapping[str, str]] = [
            {"prompt": one.prompt, **{name: str(said) for name, said in _conditions(one).items()}} for one in self.rows
        ]
        return str(element("p", self.summary)) + (table(rows) if rows else "")


def _conditions(reply: Reply) -> dict[str, Judged]:
    return {"unsteered": reply.unsteered, "steered": reply.steered, "random": reply.random}
