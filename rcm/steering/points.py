"""Everything measured about one condition: turned over, still language, and the price; each with its interval."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rcm.judges import Verdict
from rcm.prompts import Prompt
from rcm.results import Curve, Line, Table
from rcm.stats import bootstrap, wilson
from rcm.steering.bench import Bench
from rcm.steering.coherence import distinct, longest_repeat, words
from rcm.steering.conditions import Condition, Kind, Row
from rcm.steering.said import Said, hits, invalid

Asked = Mapping[Kind, Sequence[tuple[int, Prompt]]]  # prompts of each kind, with their numbers
Values = Float[np.ndarray, " _"]


class Figure(NamedTuple):
    """A value with its 95 % interval; NaN where there was nothing to measure."""

    value: float
    low: float
    high: float


NOTHING = Figure(np.nan, np.nan, np.nan)
FIGURES = ("turned", "invalid", "distinct", "longest_repeat", "words", "kl", "cross_entropy")


@dataclass(frozen=True)
class Point:
    """A condition, what was said under it by the prompts that had the behaviour to turn over, and the figures."""

    condition: Condition
    said: Sequence[Said]
    turned: Figure
    invalid: Figure
    distinct: Figure
    longest_repeat: Figure
    words: Figure
    kl: Figure
    cross_entropy: Figure


def measured(
    bench: Bench,
    conditions: Sequence[Condition],
    asked: Asked,
    costed: tuple[Sequence[Prompt], Sequence[Prompt]],
    seed: int,
) -> list[Point]:
    """A point for each condition. `asked`: those that have the behaviour to turn over.
    `costed`: the harmless prompts for the KL, and plain texts for the loss."""
    prices = _prices(bench, conditions, *costed)
    return [
        _point(condition, said, *prices[condition], seed)
        for condition, said in zip(conditions, answered(bench, conditions, asked), strict=True)
    ]


def answered(bench: Bench, conditions: Sequence[Condition], asked: Asked) -> list[list[Said]]:
    """What is said under each condition by the prompts of its kind."""
    rows = [[condition.row(i, prompt) for i, prompt in asked[condition.kind]] for condition in conditions]
    said = iter(bench.said([row for own in rows for row in own]))
    return [[next(said) for _ in own] for own in rows]


def judged_again(points: Sequence[Point], verdicts: Iterable[Verdict]) -> Iterator[Point]:
    """The same replies with other verdicts, point by point."""
    rest = iter(verdicts)
    for point in points:
        said = [replace(one, verdict=next(rest)) for one in point.said]
        yield replace(point, said=said, turned=share(hits(said)), invalid=share(invalid(said)))


def _prices(
    bench: Bench, conditions: Sequence[Condition], harmless: Sequence[Prompt], plain: Sequence[Prompt]
) -> dict[Condition, tuple[Values, Values]]:
    """KL by prompt and loss by plain text, one pass for all conditions of an operation."""
    prices: dict[Condition, tuple[Values, Values]] = {}
    for operation in dict.fromkeys(condition.operation for condition in conditions):
        own = [condition for condition in conditions if condition.operation == operation]
        kl = bench.kl(rows_by_prompt(own, harmless))
        # A plain text is no prompt, so there is nothing for a condition to fall on.
        losses = (
            bench.cross_entropy(rows_by_prompt(own, plain)) if operation != "conditional" else np.full_like(kl, np.nan)
        )
        prices |= {condition: (kl[:, i], losses[:, i]) for i, condition in enumerate(own)}
    return prices


def rows_by_prompt(conditions: Sequence[Condition], prompts: Sequence[Prompt]) -> list[list[Row]]:
    """For each prompt its row under each condition."""
    return [[condition.row(i, prompt) for condition in conditions] for i, prompt in enumerate(prompts)]


def _point(condition: Condition, said: Sequence[Said], kl: Values, losses: Values, seed: int) -> Point:
    spoken = [one.completion for one in said]
    return Point(
        condition,
        said,
        turned=share(hits(said)),
        invalid=share(invalid(said)),
        distinct=mean(np.array([distinct(one) for one in spoken]), seed),
        longest_repeat=mean(np.array([longest_repeat(one) for one in spoken], dtype=float), seed),
        words=mean(np.array([len(words(one)) for one in spoken], dtype=float), seed),
        kl=mean(kl, seed),
        cross_entropy=mean(losses, seed),
    )


def share(found: Bool[np.ndarray, " prompt"]) -> Figure:
    """With Wilson's interval."""
    return Figure(float(found.mean()), *wilson(int(found.sum()), len(found))) if len(found) else NOTHING


def mean(values: Values, seed: int) -> Figure:
    """Of those that could be measured, with the percentiles of resampled means."""
    known = values[~np.isnan(values)]
    return Figure(float(known.mean()), *bootstrap(np.mean, known, seed=seed)) if len(known) else NOTHING


def table(name: str, points: Sequence[Point]) -> Table:
    """A row for each point, a column for each end of each interval."""
    condition = ("kind", "operation", "direction", "strength", "equal_kl", "n")
    columns = [*condition, *(f"{figure}{end}" for figure in FIGURES for end in ("", "_low", "_high"))]
    rows = [
        (
            c.kind,
            c.operation,
            c.family,
            c.strength,
            c.equal_kl,
            len(one.said),
            *(x for f in FIGURES for x in getattr(one, f)),
        )
        for one in points
        for c in [one.condition]
    ]
    return Table(name, columns, rows)


def curve(name: str, lines: Mapping[str, Sequence[Point]], figure: str, y_label: str) -> Curve:
    """A figure over strength, a line for each series of points, all of the same strengths."""
    series = {label: sorted(points, key=_strength) for label, points in lines.items() if points}
    x = [_strength(one) for one in next(iter(series.values()))]
    drawn = [
        Line(label, *(list(part) for part in zip(*(getattr(one, figure) for one in points), strict=True)))
        for label, points in series.items()
    ]
    return Curve(name, x, drawn, "strength, in natural norms", y_label)


def _strength(point: Point) -> float:
    return abs(point.condition.strength)
