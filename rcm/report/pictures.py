"""Which pictures stand side by side: the same map, curve or circuit of several runs, on one scale.

They come method by method, as the runs went: where harmful and harmless prompts can be told apart, where it is decided,
which parts carry it, what steering does. Of each method curves come first, which say it at a glance. Curves of several
runs over the same points share a frame: the first line of each, which is what the curve is about; what each has besides
(controls, another figure) stands folded, run by run.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from markupsafe import Markup

from rcm.comparison.names import DIRECTION
from rcm.comparison.reading import NOT_REPORTED, Reading, method_of
from rcm.comparison.tunings import Tuning
from rcm.record.results import Curve, Diagram, Heatmap, Scatter, Table, colour_limits
from rcm.report.cells import titled
from rcm.report.curves import SERIES, curve, vertical_limits
from rcm.report.diagrams import diagram, layout, legend, not_drawn, strongest_of, values_of
from rcm.report.heatmaps import colour_bar, heatmap
from rcm.report.scatters import across_all, scatter, up_all

T = TypeVar("T", Heatmap, Curve, Scatter, Diagram)


@dataclass(frozen=True)
class Panel:
    """One run's picture, several in one frame, or what two differ by."""

    title: str
    drawn: Markup


@dataclass(frozen=True)
class Panels:
    """`scale` is the colour bar of maps. `missing`: which runs have none, and why. `folded`: panels that wait until
    someone asks for them, under what `folds` says."""

    title: str
    hint: str
    panels: Sequence[Panel]
    scale: Markup | None = None
    missing: Sequence[str] = ()
    folded: Sequence[Panel] = ()
    folds: str = ""


@dataclass(frozen=True)
class OfMethod:
    """All pictures of a method. `missing`: which runs have not all of them, and why."""

    method: str
    rows: Sequence[Panels]

    @property
    def missing(self) -> list[str]:
        of_why: dict[str, list[str]] = {}
        for row in self.rows:
            for why in row.missing:
                of_why.setdefault(why, []).append(row.title)
        return [why if len(some) == len(self.rows) else f"{why} ({', '.join(some)})" for why, some in of_why.items()]


def by_method(readings: Sequence[Reading], tunings: Sequence[Tuning] = ()) -> list[OfMethod]:
    """All pictures of these runs, in the order in which their methods ran."""
    drawn = [
        *((name, _curves(one, readings)) for name, one in _by_name(Curve, readings)),
        *((name, _diagrams(one, readings)) for name, one in _by_name(Diagram, readings)),
        *((name, _maps(one, readings, _pairs(readings, tunings))) for name, one in _by_name(Heatmap, readings)),
        *((name, _scatters(one, readings)) for name, one in _by_name(Scatter, readings)),
        *((f"{DIRECTION}/cosines", one) for one in cosines(readings, tunings)),
    ]
    order = merged([[method_of(result.name) for result in reading.results] for reading in readings])
    of = {method: [row for name, row in drawn if method_of(name) == method] for method in order}
    return [OfMethod(method, rows) for method, rows in of.items() if rows]


def _pairs(readings: Sequence[Reading], tunings: Sequence[Tuning]) -> list[tuple[Reading, Reading]]:
    """The first pair of each tuning among these runs, whose maps are shown with what they differ by."""
    own = {reading.run.id for reading in readings}
    return [(one.before, one.after) for one in tunings if {one.before.run.id, one.after.run.id} <= own]


def cosines(readings: Sequence[Reading], tunings: Sequence[Tuning]) -> list[Panels]:
    """A row of how alike the directions of each pair of these runs are; none where none of them has any."""
    own = {reading.run.id for reading in readings}
    found = [
        (tuning.name if len(tuning.pairs) == 1 else f"{tuning.name}, {pair.name}", pair.cosines)
        for tuning in tunings
        for pair in tuning.pairs
        if pair.after.run.id in own and pair.cosines
    ]
    if not found:
        return []
    ends = vertical_limits([drawn for _, drawn in found])
    panels = [Panel(title, curve(drawn, ends)) for title, drawn in found]
    return [Panels(*title_and_hint([drawn for _, drawn in found]), panels)]


def emergence(drawn: Iterable[Curve]) -> list[Panels]:
    """Each curve in a panel of its own, on its own scale."""
    panels = [Panel(one.label, curve(one, vertical_limits([one]))) for one in drawn]
    return [Panels("over training", "", panels)] if panels else []


def titles(readings: Sequence[Reading]) -> list[str]:
    """What each run is called beside the others: its model, and where that has several runs here, which of them."""
    names = [reading.name for reading in readings]
    return [
        name if names.count(name) == 1 else f"{name} (run {reading.run.id})"
        for name, reading in zip(names, readings, strict=True)
    ]


def title_and_hint(results: Iterable[Heatmap | Curve | Scatter | Diagram | Table]) -> tuple[str, str]:
    """Of results of one name, from the first that has them."""
    every = list(results)
    label, hint = (next(filter(None, texts), "") for texts in zip(*((r.label, r.hint) for r in every), strict=True))
    return label or every[0].name, hint


def merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """Every name once: a name that earlier runs lack comes after the one that it follows in its own."""
    found: list[str] = []
    for names in orders:
        place = 0
        for name in dict.fromkeys(names):
            if name not in found:
                found.insert(place, name)
            place = found.index(name) + 1
    return found


def why_missing(name: str, reading: Reading) -> str:
    """What the run concluded before it would have come to it."""
    because = reading.why_without(name)
    return f"Not measured: {because}" if because else NOT_REPORTED


def without(name: str, readings: Sequence[Reading], found: Container[str]) -> list[str]:
    """Of the runs whose ids are not `found`, why they have no result of this name; those with one reason together."""
    names: dict[str, list[str]] = {}
    for title, reading in zip(titles(readings), readings, strict=True):
        if reading.run.id not in found:
            names.setdefault(why_missing(name, reading), []).append(title)
    return [f"{', '.join(some)}: {why}" for why, some in names.items()]


def _name(found: Mapping[str, T]) -> str:
    return next(iter(found.values())).name


def _by_name(kind: type[T], readings: Sequence[Reading]) -> list[tuple[str, dict[str, T]]]:
    """Every name with the results that have it, by run."""
    found: dict[str, dict[str, T]] = {}
    for reading in readings:
        for result in reading.every(kind):
            found.setdefault(result.name, {})[reading.run.id] = result
    return list(found.items())


def _maps(
    grids: Mapping[str, Heatmap], readings: Sequence[Reading], pairs: Sequence[tuple[Reading, Reading]]
) -> Panels:
    one = next(iter(grids.values()))
    values = np.concatenate([grid.values.ravel() for grid in grids.values()])[None]
    ends = colour_limits(values, one.center)
    bar = colour_bar(ends, one.center, bool(np.isnan(values).any()), one.value_label)
    panels = _panels(readings, grids, lambda grid: heatmap(grid, ends))
    differences = [difference for pair in pairs if (difference := _difference(*pair, grids))]
    missing = without(_name(grids), readings, grids)
    return Panels(*title_and_hint(grids.values()), panels, bar, missing, differences, "What they differ by")


def _curves(found: Mapping[str, Curve], readings: Sequence[Reading]) -> Panels:
    ends = vertical_limits(list(found.values()))
    own = _panels(readings, found, lambda one: curve(one, ends))
    title, hint = title_and_hint(found.values())
    if not _share_a_frame(list(found.values())):
        return Panels(title, hint, own, missing=without(_name(found), readings, found))
    names = dict(zip((reading.run.id for reading in readings), titles(readings), strict=True))
    places = [i for i, reading in enumerate(readings) if reading.run.id in found]
    lines = [replace(one.lines[0], label=titled(names[id], one.caveat)) for id, one in found.items()]
    firsts = dict.fromkeys(one.lines[0].label for one in found.values())
    together = replace(next(iter(found.values())), lines=lines, label=title)
    panels = [Panel(", ".join(firsts), curve(together, ends, places))]
    folded = own if any(len(one.lines) > 1 for one in found.values()) else []
    return Panels(
        title, hint, panels, None, without(_name(found), readings, found), folded, "Every line, model by model"
    )


def _share_a_frame(every: Sequence[Curve]) -> bool:
    """Whether several runs have it, of the same things at the same points, and no more than colours tell apart."""
    frames = {(tuple(one.x), one.x_label, one.y_label) for one in every}
    return 1 < len(every) <= SERIES and len(frames) == 1 and all(one.lines for one in every)


def _scatters(found: Mapping[str, Scatter], readings: Sequence[Reading]) -> Panels:
    every = list(found.values())
    values = np.array([[value for one in every for value in one.values]])
    ends, across, up = colour_limits(values, every[0].center), across_all(every), up_all(every)
    bar = colour_bar(ends, every[0].center, bool(np.isnan(values).any()), every[0].value_label)
    panels = _panels(readings, found, lambda one: scatter(one, across, up, ends))
    return Panels(*title_and_hint(every), panels, bar, missing=without(_name(found), readings, found))


def _diagrams(found: Mapping[str, Diagram], readings: Sequence[Reading]) -> Panels:
    every = list(found.values())
    places, ends, strongest = layout(every), values_of(every), strongest_of(every)
    panels = _panels(readings, found, lambda one: diagram(one, places, ends, strongest))
    title, hint = title_and_hint(every)
    names = dict(zip((reading.run.id for reading in readings), titles(readings), strict=True))
    rest = not_drawn({names[id] if len(readings) > 1 else "": one for id, one in found.items()})
    about = " ".join(filter(None, (hint, rest)))
    return Panels(title, about, panels, legend(every), missing=without(_name(found), readings, found))


def _panels(readings: Sequence[Reading], found: Mapping[str, T], draw: Callable[[T], Markup]) -> list[Panel]:
    return [
        Panel(titled(title, one.caveat), draw(one))
        for title, reading in zip(titles(readings), readings, strict=True)
        for one in [found.get(reading.run.id)]
        if one
    ]


def _difference(before: Reading, after: Reading, grids: Mapping[str, Heatmap]) -> Panel | None:
    """The later map less the earlier one, where they have the same cells, on a scale of its own."""
    first, last = (grids.get(reading.run.id) for reading in (before, after))
    if first is None or last is None or (*first.rows, *first.columns) != (*last.rows, *last.columns):
        return None
    less = replace(last, values=last.values - first.values, marked=(), center=0.0)
    ends = colour_limits(less.values, 0.0)
    bar = colour_bar(ends, 0.0, bool(np.isnan(less.values).any()), "difference")
    return Panel(f"{after.name} less {before.name}", heatmap(less, ends) + bar)
