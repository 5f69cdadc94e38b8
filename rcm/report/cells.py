"""What one run says in one place of a table.

A cell says the value in its unit, its 95 % interval, what the null reaches and how many there are behind it. Everything
comes from the result; what there is no figure for says why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rcm.comparison.reading import NOT_REPORTED, Reading
from rcm.record.results import Column, Null, Outcome, Scalar
from rcm.record.units import TIED, Format, in_unit, interval, known, plain

NOTHING = "–"  # in the place of a figure that there is none of
FOLDED = ("low", "high", "n", "null", "p")  # what stands in the cells of the column that it is of
CONCLUSION = "outcome"  # the last part of the name of an outcome that concludes a method; the label where none is given
Standing = Literal["met", "not met", "not measured", ""]


@dataclass(frozen=True)
class Cell:
    """`details` stand beneath, one to a line, and the `caveat` right beside. `drawn` is the scalar to draw as an
    interval."""

    text: str
    details: Sequence[str] = ()
    standing: Standing = ""
    drawn: Scalar | None = None
    caveat: str = ""

    @property
    def detail(self) -> str:
        """Caveat and details in one line."""
        return "; ".join(lines(self.caveat, *self.details))


def lines(*parts: str) -> tuple[str, ...]:
    """Those that say anything."""
    return tuple(filter(None, parts))


def of_scalar(scalar: Scalar | None, reading: Reading, name: str, absent: str) -> Cell:
    """Of a scalar that has a row to itself; `absent` is what its absence means in any run."""
    if scalar is None or not known(scalar.value):
        return Cell(NOTHING, (_why_missing(scalar, reading, name, absent),), "not measured")
    standing: Standing = "" if scalar.met is None else "met" if scalar.met else "not met"
    drawn = scalar if scalar.unit == "share" or scalar.target is not None else None
    return Cell(in_unit(scalar.unit)(scalar.value), lines(behind(scalar)), standing, drawn, scalar.caveat)


def of_scalars(scalars: Sequence[Scalar], reading: Reading, name: str, absent: str) -> Cell:
    """Of scalars that share a row: a line for each. `name` is that of the first one that any run has."""
    if not any(known(scalar.value) for scalar in scalars):
        first = scalars[0] if scalars else None
        return Cell(NOTHING, (_why_missing(first, reading, name, absent),), "not measured")
    values = [
        f"{in_unit(one.unit)(one.value)} ({about})".removesuffix(" ()")
        if known(one.value)
        else f"{NOTHING} ({_why_missing(one, reading, one.name, absent)})"
        for one in scalars
        for about in [_joined(behind(one), one.caveat)]
    ]
    return Cell("", [f"{one.label or one.name} {value}" for one, value in zip(scalars, values, strict=True)])


def _why_missing(scalar: Scalar | None, reading: Reading, name: str, absent: str) -> str:
    """What the run concluded instead, or else what it says of the absence, or what that means in any run."""
    nothing = f"There were no {scalar.counts} to count." if scalar and scalar.n == 0 else NOT_REPORTED
    own = scalar.absent if scalar else ""
    return reading.why_without(name) or own or absent or nothing


def of_outcome(outcome: Outcome | None, reading: Reading, name: str) -> Cell:
    """The word, with spaces, and the reason beneath."""
    if outcome is None:
        return Cell(NOTHING, lines(reading.why_without(name) or NOT_REPORTED))
    return Cell(worded(outcome.value), lines(outcome.because), caveat=outcome.caveat)


def worded(value: str) -> str:
    """The word of an outcome as people read it."""
    return value.replace("_", " ")


def titled(title: str, caveat: str) -> str:
    """A title with its caveat."""
    return f"{title} ({caveat})" if caveat else title


def behind(scalar: Scalar) -> str:
    """Interval, the same with the judge's errors, null, how many there are of what is counted, and how many of them
    were left unscored."""
    in_its_unit = in_unit(scalar.unit)
    return _joined(
        interval(scalar.interval, in_its_unit),
        f"judge{TIED}may{TIED}err:{TIED}{misjudged}" if (misjudged := interval(scalar.judged, in_its_unit)) else "",
        null_of(scalar.null, in_its_unit),
        "" if scalar.n is None else f"n{TIED}={TIED}{scalar.n}{TIED}{scalar.counts}",
        f"{scalar.unscored}{TIED}unscored" if scalar.unscored else "",
    )


def null_of(null: Null | None, in_its_unit: Format) -> str:
    """What chance reaches; in brackets how many draws of what, and how often they do as well as the figure."""
    if null is None or not known(null.value):
        return ""
    draws = null.of if null.draws is None else f"{null.draws} {null.of}"
    p = f"p{TIED}={TIED}{plain(null.p)}" if null.p is not None and known(null.p) else ""
    about = ", ".join(lines(draws, p))
    return f"null{TIED}{in_its_unit(null.value)}" + (f" ({about})" if about else "")


def of_column(column: Column, row: Mapping[str, Any]) -> Cell:
    """The cell of a row of a stored table: the value, and what its other columns say of it beneath."""
    value = row.get(column.name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        words = ("yes" if value else "no") if isinstance(value, bool) else "" if value is None else str(value)
        return Cell(words or NOTHING)
    if math.isnan(value):
        return Cell(NOTHING)
    in_its_unit = in_unit(column.unit)
    low, high, n, null, p = (_number(row.get(f"{column.name}_{part}")) for part in FOLDED)
    details = _joined(
        interval((low, high), in_its_unit),
        f"null{TIED}{in_its_unit(null)}" if known(null) else "",
        f"n{TIED}={TIED}{n:g}" if known(n) else "",
        f"p{TIED}={TIED}{plain(p)}" if known(p) else "",
    )
    return Cell(in_its_unit(float(value)), lines(details))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _joined(*parts: str) -> str:
    return " · ".join(lines(*parts))
