"""What the direction turns over at the headline conditions, against control directions: does any do as well?

Every control direction meets every prompt that counts, and the direction is the unit: a control has one rate, and the
null is the largest of the controls' rates (of 19 or more; from 100 on, their 95th percentile). Were ours a direction
like those of a family, it would lie above that null in 5 % of runs at most, however many prompts it is measured on, and
however much the prompts differ: they are the same for all. Pooling the replies of all controls instead would make a
large sample of prompts out of a few directions, and take chance differences between directions for findings. (The
strength is the one that suits ours; what controls do at others is in the dose-response.)

Replies, of ours and of controls and of the unsteered model alike, are judged after `control_tokens`. For n prompts that
count, d controls of each family and two conditions that is 2 n (2 d + 1) replies: for 48 prompts of a class and 19
controls 3,744 of 16 tokens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from rcm.judges import Verdict
from rcm.record.results import RANDOM_DIRECTIONS, SHUFFLED_LABELS, Null
from rcm.stats import ENOUGH, FEWEST, reached
from rcm.steering.conditions import FAMILIES, OURS, RANDOM, SHUFFLED, Asked, Kind, Operation, Trial, family_of
from rcm.steering.replies import SteeredReply, flipped
from rcm.steering.runner import SteeringRunner

ALPHA = 0.05
CONTROLS = {RANDOM: RANDOM_DIRECTIONS, SHUFFLED: f"directions of {SHUFFLED_LABELS}"}
Rates = Float[np.ndarray, " control"]


@dataclass(frozen=True)
class Headline:
    """An operation at a strength. `replies`: of every prompt that counts under each direction, ours among them."""

    kind: Kind
    operation: Operation
    strength: float
    replies: Mapping[str, Sequence[SteeredReply]]

    @property
    def ours(self) -> Sequence[SteeredReply]:
        return self.replies[OURS]

    @property
    def rate(self) -> float:
        """Of ours; NaN where no prompt counts."""
        return _rate(self.ours)

    @property
    def controls(self) -> dict[str, Rates]:
        """For each family that has any, the rate of each of its directions."""
        names = {family: [name for name in self.replies if family_of(name) == family] for family in FAMILIES[1:]}
        return {of: np.array([_rate(self.replies[name]) for name in some]) for of, some in names.items() if some}

    @property
    def nulls(self) -> dict[str, Null]:
        """Of each family."""
        drawn = {of: Null.of_draws(rates, CONTROLS[of], figure=self.rate) for of, rates in self.controls.items()}
        return {of: null for of, null in drawn.items() if null is not None}

    @property
    def null(self) -> Null | None:
        """That of the family that does better."""
        return max(self.nulls.values(), key=lambda null: null.value, default=None)

    @property
    def tested(self) -> bool:
        """Whether enough prompts count for a conclusion."""
        return len(self.ours) >= FEWEST

    @property
    def enough_controls(self) -> bool:
        """Whether ours could lie above both nulls by less than chance allows."""
        return len(self.controls) == len(CONTROLS) and min(map(len, self.controls.values())) >= ENOUGH

    @property
    def beaten(self) -> bool:
        """Whether no family does as well as ours, at 5 %."""
        return beats(self.rate, self.controls)

    def judged_again(self, verdicts: Iterator[Verdict]) -> "Headline":
        """The same replies, direction by direction, with other verdicts."""
        again = {name: [replace(one, verdict=next(verdicts)) for one in some] for name, some in self.replies.items()}
        return replace(self, replies=again)


def headline(runner: SteeringRunner, kind: Kind, operation: Operation, strength: float, asked: Asked) -> Headline:
    """Every direction of the runner on every prompt of the kind that counts."""
    rows = {
        name: [Trial(kind, i, prompt, operation, strength, name) for i, prompt in asked[kind]]
        for name in runner.directions
    }
    replies = iter(runner.replies([row for own in rows.values() for row in own]))
    return Headline(kind, operation, strength, {name: [next(replies) for _ in own] for name, own in rows.items()})


def beats(rate: float, controls: Mapping[str, Rates]) -> bool:
    """Whether a rate lies above what each family of controls reaches, at 5 %: never with fewer than 19 of a family."""
    found = [reached(rates, figure=rate) for rates in controls.values()]
    return bool(found) and all(one is not None and one.p is not None and one.p <= ALPHA for one in found)


def replies_of(headlines: Iterable[Headline]) -> list[SteeredReply]:
    """All, in the order in which `judged_again` takes verdicts."""
    return [one for of in headlines for some in of.replies.values() for one in some]


def _rate(replies: Sequence[SteeredReply]) -> float:
    return float(flipped(replies).mean()) if replies else float("nan")
