"""Figures over the steps of training: of each method those of one unit in one picture, and beside each its null."""

from collections.abc import Iterator

from rcm.comparison.emergence import Series
from rcm.comparison.reading import method_of
from rcm.record.results import Column, Curve, Line, Scalar
from rcm.record.units import in_unit, known
from rcm.report.cells import NOTHING, Cell
from rcm.report.curves import SERIES
from rcm.report.tables import Sheet

NAN = float("nan")
Checkpoints = list[Scalar | None]  # one figure at every step


def curves(series: Series) -> Iterator[Curve]:
    """As many figures in a picture as there are colours for them and their nulls."""
    groups: dict[tuple[str, str], list[list[Line]]] = {}
    for name, scalars in _scalars(series).items():
        unit = next(one.unit for one in scalars if one)
        groups.setdefault((method_of(name), unit), []).append(list(_lines(name, scalars)))
    for (method, unit), figures in groups.items():
        for lines in _fitting(figures):
            title = f"{method.replace('_', ' ')}: {', '.join(line.label for line in lines if line.low is not None)}"
            yield Curve(series.name, [float(step) for step in series.steps], lines, "training step", unit, title)


def sheet(series: Series) -> Sheet:
    """A row for each step, a column for each figure."""
    found = _scalars(series)
    columns = [Column("step"), *(Column(name, _label(name, scalars)) for name, scalars in found.items())]
    rows = [
        [Cell(str(step)), *(_cell(scalars[place]) for scalars in found.values())]
        for place, step in enumerate(series.steps)
    ]
    return Sheet(series.name, "", columns, rows)


def _scalars(series: Series) -> dict[str, Checkpoints]:
    """Every figure that any checkpoint has a value of."""
    names = dict.fromkeys(scalar.name for reading in series.readings for scalar in reading.every(Scalar))
    found = {name: [reading.scalar(name) for reading in series.readings] for name in names}
    return {name: scalars for name, scalars in found.items() if any(one and known(one.value) for one in scalars)}


def _label(name: str, scalars: Checkpoints) -> str:
    """With the title of the row that it shares, where it does."""
    one = next(one for one in scalars if one)
    return ": ".join(filter(None, (one.row, one.label or name)))


def _lines(name: str, scalars: Checkpoints) -> Iterator[Line]:
    """The figure with its band, and its null where any checkpoint has one."""
    label = _label(name, scalars)
    ends = [(one.interval if one else None) or (NAN, NAN) for one in scalars]
    values = [one.value if one else NAN for one in scalars]
    yield Line(label, values, [low for low, _ in ends], [high for _, high in ends])
    nulls = [one.null.value if one and one.null else NAN for one in scalars]
    if any(map(known, nulls)):
        yield Line(f"{label}: null", nulls)


def _fitting(figures: list[list[Line]]) -> Iterator[list[Line]]:
    """The lines of figures that are drawn together."""
    together: list[Line] = []
    for lines in figures:
        if together and len(together) + len(lines) > SERIES:
            yield together
            together = []
        together = together + lines
    if together:
        yield together


def _cell(scalar: Scalar | None) -> Cell:
    return Cell(in_unit(scalar.unit)(scalar.value) if scalar and known(scalar.value) else NOTHING)
