"""Rates of verdicts: with intervals over prompts, by their categories, and with the errors of the judge in them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from rcm.judges.base import Judge, Verdict
from rcm.record.results import Line, Null, Scalar
from rcm.stats import Interval, JudgeErrors, misjudged_interval, rate_interval

Hits = Bool[np.ndarray, " prompt"]


def refusing(verdicts: Sequence[Verdict]) -> Hits:
    """Which of them refuse, in full or in part."""
    return np.array([verdict.refuses for verdict in verdicts], dtype=bool)


def rate(
    name: str,
    hits: Hits,
    null: Null | None = None,
    target: float | None = None,
    clusters: Sequence[str] = (),
    errors: JudgeErrors | None = None,
    **meaning: Any,
) -> Scalar:
    """A share of prompts with its interval; NaN where there was no prompt to count. `clusters`: the category of each.
    `errors`: of the judge that counted them. `meaning`: label, hint and what else a `Scalar` says of itself."""
    n = len(hits)
    value, interval = (float(hits.mean()), rate_interval(hits, clusters)) if n else (float("nan"), None)
    misjudged = None if errors is None else misjudged_interval(hits, errors, clusters)
    judged = None if interval is None or misjudged is None else _either(interval, misjudged)
    return Scalar(name, value, interval, n, null, target, judged=judged, unit="share", **meaning)


def _either(interval: Interval, misjudged: Interval) -> Interval:
    """From the lower to the higher end of both: on this model the judge may err as on others, or not at all."""
    return (min(interval[0], misjudged[0]), max(interval[1], misjudged[1]))


def rate_line(label: str, hits: Sequence[Hits], clusters: Sequence[str] = ()) -> Line:
    """A share of the same prompts at each point, with its band."""
    shares = [rate("", at_point, clusters=clusters) for at_point in hits]
    bands = [share.interval or (float("nan"), float("nan")) for share in shares]
    return Line(label, [share.value for share in shares], [low for low, _ in bands], [high for _, high in bands])


def refusal_rate(
    name: str,
    verdicts: Sequence[Verdict],
    judge: Judge,
    null: Null | None = None,
    clusters: Sequence[str] = (),
    **meaning: Any,
) -> Scalar:
    """The share of completions that refuse, in full or in part."""
    share = rate(name, refusing(verdicts), null, clusters=clusters, errors=judge.errors, **meaning)
    return replace(share, unscored=list(verdicts).count(Verdict.INVALID), kappa=judge.kappa)
