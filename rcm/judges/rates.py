"""Rates of verdicts, with Wilson's intervals."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from rcm.judges.base import Judge, Verdict
from rcm.record.results import Line, Null, Scalar
from rcm.stats import wilson

Hits = Bool[np.ndarray, " prompt"]


def refusing(verdicts: Sequence[Verdict]) -> Hits:
    """Which of them refuse, in full or in part."""
    return np.array([verdict.refuses for verdict in verdicts], dtype=bool)


def rate(name: str, hits: Hits, null: Null | None = None, target: float | None = None, **meaning: Any) -> Scalar:
    """A share of prompts with Wilson's interval; NaN where there was no prompt to count. `meaning`: label, hint and
    what else a `Scalar` says of itself."""
    n = len(hits)
    value, interval = (float(hits.mean()), wilson(int(hits.sum()), n)) if n else (float("nan"), None)
    return Scalar(name, value, interval, n, null, target, unit="share", **meaning)


def rate_line(label: str, hits: Sequence[Hits]) -> Line:
    """A share of prompts at each point, with Wilson's band."""
    shares = [rate("", at_point) for at_point in hits]
    bands = [share.interval or (float("nan"), float("nan")) for share in shares]
    return Line(label, [share.value for share in shares], [low for low, _ in bands], [high for _, high in bands])


def refusal_rate(
    name: str, verdicts: Sequence[Verdict], judge: Judge, null: Null | None = None, **meaning: Any
) -> Scalar:
    """The share of completions that refuse, in full or in part."""
    share = rate(name, refusing(verdicts), null, **meaning)
    return replace(share, unscored=list(verdicts).count(Verdict.INVALID), kappa=judge.kappa)
