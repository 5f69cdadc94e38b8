"""Everything measured about one condition: turned over, still language, and the price; each with its interval, where
there are prompts enough for one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from rcm.judges import Verdict
from rcm.packaged import PACKAGED, located
from rcm.prompts import Part, Prompt
from rcm.record.results import Column, Curve, Line, Table
from rcm.stats import Estimate, mean_interval, rate_interval
from rcm.steering.coherence import distinct, longest_repeat, words
from rcm.steering.conditions import UNSTEERED, Asked, Condition, Kind, Trial
from rcm.steering.replies import SteeredReply, categories, flipped, invalid
from rcm.steering.runner import SteeringRunner

PLAIN = f"{PACKAGED}plain.txt"
PROMPT_KINDS: tuple[Kind, Kind] = ("harmless", "harmful")
Values = Float[np.ndarray, " _"]


NOTHING = Estimate(np.nan, np.nan, np.nan)
MEASURED = ("flipped", "invalid", "distinct", "longest_repeat", "words", "kl", "cross_entropy")


@dataclass(frozen=True)
class Measurement:
    """A condition, what was said under it by the prompts that had the behaviour to turn over, and the figures."""

    condition: Condition
    replies: Sequence[SteeredReply]
    flipped: Estimate
    invalid: Estimate
    distinct: Estimate
    longest_repeat: Estimate
    words: Estimate
    kl: Estimate
    cross_entropy: Estimate


def measured(
    runner: SteeringRunner,
    conditions: Sequence[Condition],
    asked: Asked,
    costed: tuple[Sequence[Prompt], Sequence[Prompt]],
) -> list[Measurement]:
    """A point for each condition. `asked`: those that have the behaviour to turn over.
    `costed`: the harmless prompts for the KL, and plain texts for the loss."""
    prices = _prices(runner, conditions, *costed)
    return [
        _point(condition, replies, *prices[condition])
        for condition, replies in zip(conditions, answered(runner, conditions, asked), strict=True)
    ]


def answered(runner: SteeringRunner, conditions: Sequence[Condition], asked: Asked) -> list[list[SteeredReply]]:
    """What is said under each condition by the prompts of its kind."""
    rows = [[condition.trial(i, prompt) for i, prompt in asked[condition.kind]] for condition in conditions]
    replies = iter(runner.replies([row for own in rows for row in own]))
    return [[next(replies) for _ in own] for own in rows]


def judged_again(points: Sequence[Measurement], verdicts: Iterable[Verdict]) -> Iterator[Measurement]:
    """The same replies with other verdicts, point by point."""
    rest = iter(verdicts)
    for point in points:
        replies = [replace(one, verdict=next(rest)) for one in point.replies]
        of = categories(replies)
        yield replace(point, replies=replies, flipped=share(flipped(replies), of), invalid=share(invalid(replies), of))


def _prices(
    runner: SteeringRunner, conditions: Sequence[Condition], harmless: Sequence[Prompt], plain: Sequence[Prompt]
) -> dict[Condition, tuple[Values, Values]]:
    """KL by prompt and loss by plain text, one pass for all conditions of an operation."""
    prices: dict[Condition, tuple[Values, Values]] = {}
    for operation in dict.fromkeys(condition.operation for condition in conditions):
        own = [condition for condition in conditions if condition.operation == operation]
        kl = runner.kl(rows_by_prompt(own, harmless))
        # A plain text is no prompt, so there is nothing for a condition to fall on.
        losses = (
            runner.cross_entropy(rows_by_prompt(own, plain)) if operation != "conditional" else np.full_like(kl, np.nan)
        )
        prices |= {condition: (kl[:, i], losses[:, i]) for i, condition in enumerate(own)}
    return prices


def rows_by_prompt(conditions: Sequence[Condition], prompts: Sequence[Prompt]) -> list[list[Trial]]:
    """For each prompt its row under each condition."""
    return [[condition.trial(i, prompt) for condition in conditions] for i, prompt in enumerate(prompts)]


def _point(condition: Condition, replies: Sequence[SteeredReply], kl: Values, losses: Values) -> Measurement:
    spoken, of = [one.completion for one in replies], categories(replies)
    return Measurement(
        condition,
        replies,
        flipped=share(flipped(replies), of),
        invalid=share(invalid(replies), of),
        distinct=mean(np.array([distinct(one) for one in spoken])),
        longest_repeat=mean(np.array([longest_repeat(one) for one in spoken], dtype=float)),
        words=mean(np.array([len(words(one)) for one in spoken], dtype=float)),
        kl=mean(kl),
        cross_entropy=mean(losses),
    )


def share(found: Bool[np.ndarray, " prompt"], clusters: Sequence[str] = ()) -> Estimate:
    """With its interval; `clusters`: the category of each prompt."""
    return Estimate(float(found.mean()), *rate_interval(found, clusters)) if len(found) else NOTHING


def mean(values: Values) -> Estimate:
    """Of those that could be measured, with t's interval; its ends are NaN where too few were measured for one."""
    known = values[~np.isnan(values)]
    if not len(known):
        return NOTHING
    return Estimate(float(known.mean()), *(mean_interval(known) or (np.nan, np.nan)))


SHOWN = (
    Column("operation"),
    Column("kind", "prompts"),
    Column("direction"),
    Column("flipped", "flipped", "share", "harmless ones refused, harmful ones answered"),
    Column("strength", "strength", "", "natural norms"),
    Column("budget", "KL budget"),
    Column("kl", "KL", "nats", "per token"),
    Column("cross_entropy", "loss", "nats", "growth, per token"),
    Column("invalid", "no language", "share"),
)


def table(name: str, points: Sequence[Measurement], label: str, hint: str) -> Table:
    """A row for each point, a column for each end of each interval; pages show those at equal KL."""
    condition = ("kind", "operation", "direction", "strength", "equal_kl", "budget", "n")
    columns = [*condition, *(f"{figure}{end}" for figure in MEASURED for end in ("", "_low", "_high"))]
    rows = [
        (
            c.kind,
            c.operation,
            c.family,
            c.strength,
            c.equal_kl,
            c.budget,
            len(one.replies),
            *(x for f in MEASURED for x in getattr(one, f)),
        )
        for one in points
        for c in [one.condition]
    ]
    return Table(name, columns, rows, label, hint, SHOWN, only="equal_kl")


def curve(
    name: str, lines: Mapping[str, Sequence[Measurement]], figure: str, y_label: str, label: str, hint: str
) -> Curve:
    """A figure over strength, a line for each series of points, all of the same strengths."""
    series = {label: sorted(points, key=_strength) for label, points in lines.items() if points}
    x = [_strength(one) for one in next(iter(series.values()))]
    drawn = [
        Line(label, *(list(part) for part in zip(*(getattr(one, figure) for one in points), strict=True)))
        for label, points in series.items()
    ]
    return Curve(name, x, drawn, "strength, in natural norms", y_label, label, hint)


def _strength(point: Measurement) -> float:
    return abs(point.condition.strength)


def plain_prompts(n: int | None) -> list[Prompt]:
    """The first plain texts, as what no model was asked."""
    lines = located(PLAIN).read_text(encoding="utf-8").splitlines()
    return [Prompt(line, "") for line in lines[:n]]


def unsteered(runner: SteeringRunner, part: Part) -> tuple[list[SteeredReply], Asked]:
    """What the model says by itself; and of each kind the prompts that have the behaviour to turn over."""
    rows = [Trial(kind, i, p, "none", UNSTEERED) for kind in PROMPT_KINDS for i, p in enumerate(getattr(part, kind))]
    replies = runner.replies(rows)
    asked: Asked = {
        kind: [(s.trial.index, s.trial.prompt) for s in replies if s.trial.kind == kind and s.can_flip]
        for kind in PROMPT_KINDS
    }
    return replies, asked
