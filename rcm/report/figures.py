"""A figure as a row of the table: for each run a cell.

A cell says the value, its 95 % interval, what the null reaches and how many prompts stand behind it; where a figure
was not measured it says why. Whether a target is met was decided by the run (`map/summary`), not here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rcm.comparison.reading import NOT_REPORTED, Reading
from rcm.record.results import Scalar
from rcm.record.units import TIED, Unit, interval, known, percent

Verdict = Literal["met", "not met", "not measured", ""]


@dataclass(frozen=True)
class Figure:
    """A scalar that a run may have reported. `absent`: what it means that there is none although its step was run;
    `counted`: what n counts, where it is not prompts."""

    name: str
    label: str
    hint: str = ""
    unit: Unit = percent
    absent: str = NOT_REPORTED
    counted: str = ""


@dataclass(frozen=True)
class Cell:
    """What one run says in one row. `detail` stands beneath; `drawn` is the scalar to draw as an interval."""

    text: str
    detail: str = ""
    verdict: Verdict = ""
    drawn: Scalar | None = None


@dataclass(frozen=True)
class Row:
    """`scale`: the common ends of what is drawn in the row's cells."""

    label: str
    hint: str
    cells: Sequence[Cell]
    scale: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Told:
    """A table of one run: `said` goes before it, and says where to find the rest."""

    said: str
    rows: Sequence[Sequence[Cell]]


def rows(figures: Sequence[Figure], readings: Sequence[Reading]) -> Iterator[Row]:
    """A row for each figure that any of the runs reported."""
    for figure in figures:
        scalars = [reading.scalar(figure.name) for reading in readings]
        if any(scalars):
            cells = [_cell(figure, reading) for reading in readings]
            yield Row(_label(figure, scalars), figure.hint, cells, _scale(figure, scalars))


def together(label: str, hint: str, figures: Sequence[Figure], readings: Sequence[Reading]) -> Iterator[Row]:
    """One row for several figures, each in a few words, if any of the runs reported one."""
    if any(reading.scalar(figure.name) for reading in readings for figure in figures):
        yield Row(label, hint, [_cell_of(figures, reading) for reading in readings])


def _cell_of(figures: Sequence[Figure], reading: Reading) -> Cell:
    scalars = [(figure, reading.scalar(figure.name)) for figure in figures]
    told = [f"{figure.label} {_brief(scalar, figure.unit)}" for figure, scalar in scalars if scalar]
    return Cell("", "; ".join(told)) if told else Cell("–", missing(figures[0], reading), "not measured")


def _brief(scalar: Scalar, unit: Unit) -> str:
    """The value, with its interval in brackets."""
    if not known(scalar.value):
        return "–"
    ends = interval(scalar.interval, unit)
    return f"{unit(scalar.value)} ({ends})" if ends else unit(scalar.value)


def _label(figure: Figure, scalars: Sequence[Scalar | None]) -> str:
    """With the target, where there is one: it is the same in all runs."""
    target = next((scalar.target for scalar in scalars if scalar and scalar.target is not None), None)
    if target is None:
        return figure.label
    return f"{figure.label} > {target:.0%}" if figure.unit is percent else f"{figure.label} > {figure.unit(target)}"


def _scale(figure: Figure, scalars: Sequence[Scalar | None]) -> tuple[float, float]:
    ends = [end for scalar in scalars if scalar for end in (scalar.value, scalar.target, *(scalar.interval or ()))]
    known_ends = [end for end in ends if end is not None and math.isfinite(end)]
    if figure.unit is percent:  # a share of the gap may lie outside
        return min([0.0, *known_ends]), max([1.0, *known_ends])
    return 0.0, 1.1 * max(known_ends, default=1.0) or 1.0


def _cell(figure: Figure, reading: Reading) -> Cell:
    scalar = reading.scalar(figure.name)
    if scalar is None or not known(scalar.value):
        return Cell("–", missing(figure, reading), "not measured")
    drawn = scalar if figure.unit is percent or scalar.target is not None else None
    beneath = detail(scalar, figure.unit, figure.counted)
    return Cell(figure.unit(scalar.value), beneath, _verdict(scalar, reading), drawn)


def missing(figure: Figure, reading: Reading) -> str:
    """Why a run has no such figure: what it concluded, in short, or that there was nothing to count."""
    scalar, because = reading.scalar(figure.name), reading.why_without(figure.name)
    if because:
        return "No direction was selected." if figure.name.startswith("direction/") else because
    return "There was no prompt to count." if scalar is not None and scalar.n == 0 else figure.absent


def detail(scalar: Scalar, unit: Unit, counted: str = "") -> str:
    """Interval, null, number of prompts or of what else is counted, and of those left unscored, as far as known."""
    parts = [interval(scalar.interval, unit)]
    if scalar.null is not None and known(scalar.null):
        parts.append(f"null{TIED}{unit(scalar.null)}")
    if scalar.n is not None:
        parts.append(f"n{TIED}={TIED}{scalar.n} {counted}".rstrip())
    if scalar.unscored:
        parts.append(f"{scalar.unscored}{TIED}unscored")
    return " · ".join(filter(None, parts))


def _verdict(scalar: Scalar, reading: Reading) -> Verdict:
    """The run's own, out of its summary."""
    summary = reading.table("map/summary")
    if scalar.target is None or summary is None:
        return ""
    verdicts = {row[0]: row[-1] for row in summary.rows}
    return "met" if verdicts.get(scalar.name) else "not met"


def outcomes(name: str, readings: Sequence[Reading], label: str = "outcome", hint: str = "") -> Row:
    """What each run concluded, and why."""
    return Row(label, hint, [_conclusion(name, reading) for reading in readings])


def _conclusion(name: str, reading: Reading) -> Cell:
    outcome = reading.outcome(name)
    if outcome is None:
        return Cell("–", reading.why_without(name))
    return Cell(outcome.value.replace("_", " "), outcome.because)
