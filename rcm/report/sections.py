"""The table that stands first: what a good analysis shows, then all figures and outcomes of each method.

Runs say which figures there are, what they are called, in what order they come and which share a row; a figure that any
of them has makes a row.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rcm.comparison import Comparison
from rcm.comparison.names import SUMMARY
from rcm.comparison.reading import Reading, method_of
from rcm.record.results import Outcome, Scalar
from rcm.record.units import in_unit
from rcm.report import cells
from rcm.report.cells import Cell

TARGETS = "What a good analysis shows"
CONCLUSION = "outcome"  # the last part of the name of an outcome that concludes a method; the label where none is given


@dataclass(frozen=True)
class Row:
    """A figure, or several that share a row: for each run a cell. `scale`: the common ends of what is drawn there."""

    label: str
    hint: str
    cells: Sequence[Cell]
    scale: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Section:
    title: str
    rows: Sequence[Row]


def sections(readings: Sequence[Reading]) -> list[Section]:
    """Figures with a target first, then the rest, method by method."""
    scalars, outcomes = _names(Scalar, readings), _names(Outcome, readings)
    targets = [name for name in scalars if any(one.target is not None for one in _all(name, readings))]
    summed_up = [name for name in outcomes if method_of(name) == SUMMARY]
    found = [Section(TARGETS, [*_rows(targets, readings), *_outcome_rows(summed_up, readings)])]
    for method in _merged([[method_of(result.name) for result in reading.results] for reading in readings]):
        if method != SUMMARY:
            own = [name for name in scalars if method_of(name) == method and name not in targets]
            concluded = [name for name in outcomes if method_of(name) == method]
            rows = [*_outcome_rows(concluded, readings), *_shared_rows(own, readings)]
            found.append(Section(spoken(method), rows))
    return [section for section in found if section.rows]


def in_short(comparison: Comparison) -> list[tuple[Reading, str]]:
    """What each run that stands in a table concluded."""
    shown = [*comparison.compared, *(reading for group in comparison.others for reading in group.readings)]
    return [(reading, " ".join(because)) for reading in shown if (because := conclusions(reading))]


def conclusions(reading: Reading) -> list[str]:
    """What the run concluded, method by method; a reason that holds for two stands once. Outcomes under other names
    (by which engine, say) are no conclusions."""
    outcomes = [one for one in reading.every(Outcome) if one.name.partition("/")[2].startswith(CONCLUSION)]
    return list(dict.fromkeys(outcome.because for outcome in outcomes if outcome.because))


def spoken(method: str) -> str:
    """The name of a method as a title."""
    text = method.replace("_", " ")
    return text[:1].upper() + text[1:]


def _names(kind: type[Scalar] | type[Outcome], readings: Sequence[Reading]) -> list[str]:
    return _merged([[result.name for result in reading.every(kind)] for reading in readings])


def _merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """Every name once: a name that earlier runs lack comes after the one that it follows in its own."""
    found: list[str] = []
    for names in orders:
        place = 0
        for name in dict.fromkeys(names):
            if name not in found:
                found.insert(place, name)
            place = found.index(name) + 1
    return found


def _all(name: str, readings: Sequence[Reading]) -> list[Scalar]:
    return [scalar for reading in readings if (scalar := reading.scalar(name))]


def _rows(names: Sequence[str], readings: Sequence[Reading]) -> Iterator[Row]:
    """A row for each figure."""
    for name in names:
        scalars = _all(name, readings)
        absent = _first(one.absent for one in scalars)
        found = [cells.of_scalar(reading.scalar(name), reading, name, absent) for reading in readings]
        yield Row(_label(scalars), _hint(scalars), found, _scale(scalars))


def _shared_rows(names: Sequence[str], readings: Sequence[Reading]) -> Iterator[Row]:
    """As the figures say: those with a common row in one, where the first of them would stand."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name in names:
        title = _first(one.row for one in _all(name, readings))
        rows.setdefault((title, "" if title else name), []).append(name)
    for (title, _), own in rows.items():
        if not title:
            yield from _rows(own, readings)
            continue
        scalars = [scalar for name in own for scalar in _all(name, readings)]
        absent = _first(one.absent for one in scalars)
        of_each = [[scalar for name in own if (scalar := reading.scalar(name))] for reading in readings]
        found = [
            cells.of_scalars(some, reading, own[0], absent) for some, reading in zip(of_each, readings, strict=True)
        ]
        yield Row(title, _hint(scalars), found)


def _outcome_rows(names: Sequence[str], readings: Sequence[Reading]) -> Iterator[Row]:
    """Those that conclude a method first."""
    for name in sorted(names, key=lambda name: not name.endswith(f"/{CONCLUSION}")):
        outcomes = [reading.outcome(name) for reading in readings]
        label = _first(one.label for one in outcomes if one)
        if label == CONCLUSION and not name.endswith(CONCLUSION):  # nobody gave it one
            label = name
        hint = _first(one.hint for one in outcomes if one)
        found = [cells.of_outcome(outcome, reading, name) for outcome, reading in zip(outcomes, readings, strict=True)]
        yield Row(label or name, hint, found)


def _label(scalars: Sequence[Scalar]) -> str:
    """With the target, where there is one: it is the same in all runs."""
    label = _first(one.label for one in scalars) or scalars[0].name
    aimed = next((one for one in scalars if one.target is not None), None)
    if aimed is None or aimed.target is None:
        return label
    return (
        f"{label} > {aimed.target:.0%}" if aimed.unit == "share" else f"{label} > {in_unit(aimed.unit)(aimed.target)}"
    )


def _hint(scalars: Sequence[Scalar]) -> str:
    """How to read the figures; a target says by itself that high is good."""
    hints = [one.hint for one in scalars if one.hint]
    good = [f"{one.good} is good" for one in scalars if one.good and one.target is None]
    every = dict.fromkeys([*hints, *good])
    return "; ".join(hint for hint in every if not any(hint in other for other in every if other != hint))


def _scale(scalars: Sequence[Scalar]) -> tuple[float, float]:
    """Shares from nothing to the whole, or beyond where they lie beyond; else from zero."""
    ends = [end for one in scalars for end in (one.value, one.target, *(one.interval or ())) if end is not None]
    finite = list(filter(math.isfinite, ends))
    if all(one.unit == "share" for one in scalars):
        return min([0.0, *finite]), max([1.0, *finite])
    low, high = 1.1 * min([0.0, *finite]), 1.1 * max([0.0, *finite])
    return (low, high) if low < high else (0.0, 1.0)


def _first(values: Iterable[str]) -> str:
    """The first that says anything; runs that say nothing are older than labels."""
    return next(filter(None, values), "")
