"""The table that stands first: what a good analysis shows, then all figures and outcomes of each method.

Runs say which figures there are, what they are called, in what order they come and which share a row; a figure that any
of them has makes a row.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rcm.comparison import Comparison
from rcm.comparison.names import SUMMARY
from rcm.comparison.reading import Reading, method_of
from rcm.comparison.warnings import Warned, doubted
from rcm.record.results import Outcome, Scalar
from rcm.record.units import in_unit, known
from rcm.report import cells
from rcm.report.cells import CONCLUSION, Cell
from rcm.report.formatting import first_sentence
from rcm.report.pictures import merged

TARGETS = "What a good analysis shows"


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

    @property
    def measured(self) -> list[Row]:
        """The rows in which any run has something."""
        return [row for row in self.rows if any(map(_says, row.cells))]

    @property
    def missing(self) -> str:
        """The others, in one sentence, with all reasons; empty where there are none."""
        rest = [row for row in self.rows if not any(map(_says, row.cells))]
        if not rest:
            return ""
        reasons = dict.fromkeys(cell.detail for row in rest for cell in row.cells if cell.detail)
        return f"Not measured: {', '.join(row.label for row in rest)}. {' '.join(reasons)}".rstrip()


def _says(cell: Cell) -> bool:
    return cell.text != cells.NOTHING


def sections(readings: Sequence[Reading], warnings: Sequence[Warned] = ()) -> list[Section]:
    """Figures with a target first, then the rest, method by method. What a warning puts in doubt says so."""
    scalars, outcomes = _names(Scalar, readings), _names(Outcome, readings)
    targets = [name for name in scalars if any(one.target is not None for one in _all(name, readings))]
    summed_up = [name for name in outcomes if method_of(name) == SUMMARY]
    found = [Section(TARGETS, [*_rows(targets, readings, warnings), *_outcome_rows(summed_up, readings, warnings)])]
    for method in merged([[method_of(result.name) for result in reading.results] for reading in readings]):
        if method != SUMMARY:
            own = [name for name in scalars if method_of(name) == method and name not in targets]
            concluded = [name for name in outcomes if method_of(name) == method]
            rows = [*_outcome_rows(concluded, readings, warnings), *_shared_rows(own, readings, warnings)]
            found.append(Section(spoken(method), rows))
    return [section for section in found if section.rows]


@dataclass(frozen=True)
class Concluded:
    """`what`: a method and the word that it concluded; `why`: the first sentence of why."""

    what: str
    why: str


@dataclass(frozen=True)
class Short:
    """What a run concluded, method by method (`first`), and all that it says about it (`every`)."""

    reading: Reading
    first: Sequence[Concluded]
    every: Sequence[str]

    @property
    def more(self) -> bool:
        return [said.why for said in self.first] != list(self.every)


def in_short(comparison: Comparison) -> list[Short]:
    """What each run that stands in a table concluded."""
    shown = [*comparison.compared, *(reading for group in comparison.others for reading in group.readings)]
    return [_short(reading, found) for reading in shown if (found := _concluding(reading))]


def _short(reading: Reading, found: Sequence[Outcome]) -> Short:
    said = [Concluded(f"{_what(one)}: {cells.worded(one.value)}", first_sentence(one.because)) for one in found]
    return Short(reading, said, [one.because for one in found])


def _what(outcome: Outcome) -> str:
    """Its method, or its own label where that says more."""
    method = method_of(outcome.name)
    return spoken("targets" if method == SUMMARY else method if outcome.label in ("", CONCLUSION) else outcome.label)


def _concluding(reading: Reading) -> list[Outcome]:
    """What the run concluded, method by method; a reason that holds for two stands once. Outcomes under other names
    (by which engine, say) are no conclusions."""
    outcomes = [one for one in reading.every(Outcome) if one.name.partition("/")[2].startswith(CONCLUSION)]
    return list({one.because: one for one in reversed(outcomes) if one.because}.values())[::-1]


def conclusions(reading: Reading) -> list[str]:
    """Why, of each."""
    return [one.because for one in _concluding(reading)]


def spoken(method: str) -> str:
    """The name of a method as a title."""
    text = method.replace("_", " ")
    return text[:1].upper() + text[1:]


def _names(kind: type[Scalar] | type[Outcome], readings: Sequence[Reading]) -> list[str]:
    return merged([[result.name for result in reading.every(kind)] for reading in readings])


def _all(name: str, readings: Sequence[Reading]) -> list[Scalar]:
    return [scalar for reading in readings if (scalar := reading.scalar(name))]


def _rows(names: Sequence[str], readings: Sequence[Reading], warnings: Sequence[Warned]) -> Iterator[Row]:
    """A row for each figure."""
    for name in names:
        scalars = _all(name, readings)
        found = [
            _doubted(cells.of_scalar(one, r, name, _absent(scalars)), one, r, warnings)
            for r in readings
            for one in [r.scalar(name)]
        ]
        yield Row(_label(scalars), _hint(scalars), found, _scale(scalars))


def _shared_rows(names: Sequence[str], readings: Sequence[Reading], warnings: Sequence[Warned]) -> Iterator[Row]:
    """As the figures say: those with a common row in one, where the first of them would stand."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name in names:
        title = _first(one.row for one in _all(name, readings))
        rows.setdefault((title, "" if title else name), []).append(name)
    for (title, _), own in rows.items():
        if not title:
            yield from _rows(own, readings, warnings)
            continue
        scalars = [scalar for name in own for scalar in _all(name, readings)]
        of_each = [[scalar for name in own if (scalar := reading.scalar(name))] for reading in readings]
        found = [
            _doubted(
                cells.of_scalars(some, reading, own[0], _absent(scalars)), next(iter(some), None), reading, warnings
            )
            for some, reading in zip(of_each, readings, strict=True)
        ]
        yield Row(title, _hint(scalars), found)


def _outcome_rows(names: Sequence[str], readings: Sequence[Reading], warnings: Sequence[Warned]) -> Iterator[Row]:
    """Those that conclude a method first."""
    for name in sorted(names, key=lambda name: not name.endswith(f"/{CONCLUSION}")):
        outcomes = [reading.outcome(name) for reading in readings]
        label = _first(one.label for one in outcomes if one)
        if label == CONCLUSION and not name.endswith(CONCLUSION):  # nobody gave it one
            label = name
        hint = _first(one.hint for one in outcomes if one)
        found = [
            _doubted(cells.of_outcome(outcome, reading, name), outcome, reading, warnings)
            for outcome, reading in zip(outcomes, readings, strict=True)
        ]
        yield Row(label or name, hint, found)


def _doubted(cell: Cell, result: Scalar | Outcome | None, reading: Reading, warnings: Sequence[Warned]) -> Cell:
    """With what puts in doubt what it says, if it says anything."""
    if result is None or not _says(cell):
        return cell
    return replace(cell, caveat="; ".join(cells.lines(cell.caveat, *doubted(warnings, reading, result))))


def _absent(scalars: Sequence[Scalar]) -> str:
    """What the absence of the figure means in any run: what those say that have it. What a run says that has it not is
    why that one has it not."""
    return _first(one.absent for one in scalars if known(one.value))


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
