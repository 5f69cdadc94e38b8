"""All that a method may report: plain, frozen data. Disk, trackers and the page decide how each kind is shown.

Names are paths such as `direction/separation`; the part before the slash is the method that reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scalar:
    """One figure. A rate is a fraction in [0, 1].

    `interval`: the 95 % confidence interval. `n`: how many prompts stand behind the figure. `null`: the value that the
    null reaches (its 95th percentile, or its 5th where low is good). `target`: what a good analysis shows. A rate of
    verdicts also tells how many completions were left `unscored`, being no language or unclear to the judge (they count
    in n, and on neither side), and the judge's `kappa` with people.
    """

    name: str
    value: int | float
    interval: tuple[float, float] | None = None
    n: int | None = None
    null: float | None = None
    target: float | None = None
    unscored: int | None = None
    kappa: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What was concluded, in one word that programs can test, and why, in one sentence for people."""

    name: str
    value: str
    because: str


@dataclass(frozen=True)
class Heatmap:
    """A grid of figures; NaN where a cell was not computed. `marked` cells (row, column) are the ones to look at.
    `value_label`: what the figures are, for the colour bar."""

    name: str
    values: Float[np.ndarray, "row column"]
    rows: Sequence[str]
    columns: Sequence[str]
    row_label: str
    column_label: str
    marked: Sequence[tuple[int, int]] = ()
    center: float | None = 0.0
    value_label: str = ""


@dataclass(frozen=True)
class Line:
    """One line of a curve, with a 95 % band where there is one."""

    label: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis, such as refusal rate over steering strength."""

    name: str
    x: Sequence[float]
    lines: Sequence[Line]
    x_label: str
    y_label: str


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; stored as CSV."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Transcripts:
    """What the model said: rows with `prompt`, `completion`, `verdict` and what tells the conditions apart.

    Completions are redacted before they get here (`rcm.judges.redaction`).
    """

    name: str
    rows: Sequence[Mapping[str, str | float]]


@dataclass(frozen=True)
class Tensors:
    """Named tensors with the metadata without which they mean nothing; stored as safetensors."""

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in peft's layout, and the card of its making."""

    name: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])


Result = Scalar | Outcome | Heatmap | Curve | Table | Transcripts | Tensors | Adapter
