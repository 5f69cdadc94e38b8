"""Which pictures stand side by side: the same map, curve or circuit of several runs, on one scale."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from markupsafe import Markup

from rcm.comparison.reading import NOT_REPORTED, Reading
from rcm.comparison.tunings import Tuning
from rcm.record.results import Curve, Diagram, Heatmap, Scatter, Table, colour_limits
from rcm.report.cells import titled
from rcm.report.curves import curve, vertical_limits
from rcm.report.diagrams import diagram, layout, legend, not_drawn, strongest_of, values_of
from rcm.report.heatmaps import colour_bar, heatmap, is_wide
from rcm.report.scatters import across_all, scatter, up_all

T = TypeVar("T", Heatmap, Curve, Scatter, Diagram)


@dataclass(frozen=True)
class Panel:
    """One run's picture, or what two differ by; where there is none, `missing` says why."""

    title: str
    drawn: Markup | None
    missing: str = ""


@dataclass(frozen=True)
class Panels:
    """`scale` is the colour bar of maps. `wide`: the panels are about as wide as a phone."""

    title: str
    hint: str
    panels: Sequence[Panel]
    scale: Markup | None = None
    wide: bool = True


def maps(readings: Sequence[Reading], tunings: Sequence[Tuning] = ()) -> list[Panels]:
    """Each heatmap that any of the runs has; and what it differs by in the first pair of each tuning."""
    own = {reading.run.id for reading in readings}
    pairs = [(one.before, one.after) for one in tunings if {one.before.run.id, one.after.run.id} <= own]
    return [_maps(found, readings, pairs) for found in _by_name(Heatmap, readings)]


def curves(readings: Sequence[Reading]) -> list[Panels]:
    """Each curve that any of the runs has."""
    return [_curves(found, readings) for found in _by_name(Curve, readings)]


def scatters(readings: Sequence[Reading]) -> list[Panels]:
    """Each cloud of points that any of the runs has."""
    return [_scatters(found, readings) for found in _by_name(Scatter, readings)]


def diagrams(readings: Sequence[Reading]) -> list[Panels]:
    """Each circuit that any of the runs has."""
    return [_diagrams(found, readings) for found in _by_name(Diagram, readings)]


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


def why_missing(name: str, reading: Reading) -> str:
    """What the run concluded before it would have come to it."""
    because = reading.why_without(name)
    return f"Not measured: {because}" if because else NOT_REPORTED


def _by_name(kind: type[T], readings: Sequence[Reading]) -> list[dict[str, T]]:
    """For each name the results that have it, by run."""
    found: dict[str, dict[str, T]] = {}
    for reading in readings:
        for result in reading.every(kind):
            found.setdefault(result.name, {})[reading.run.id] = result
    return list(found.values())


def _maps(
    grids: Mapping[str, Heatmap], readings: Sequence[Reading], pairs: Sequence[tuple[Reading, Reading]]
) -> Panels:
    one = next(iter(grids.values()))
    values = np.concatenate([grid.values.ravel() for grid in grids.values()])[None]
    ends = colour_limits(values, one.center)
    bar = colour_bar(ends, one.center, bool(np.isnan(values).any()), one.value_label)
    panels = _panels(readings, grids, lambda grid: heatmap(grid, ends))
    panels += [difference for pair in pairs if (difference := _difference(*pair, grids))]
    return Panels(*title_and_hint(grids.values()), panels, bar, any(map(is_wide, grids.values())))


def _curves(found: Mapping[str, Curve], readings: Sequence[Reading]) -> Panels:
    ends = vertical_limits(list(found.values()))
    return Panels(*title_and_hint(found.values()), _panels(readings, found, lambda one: curve(one, ends)))


def _scatters(found: Mapping[str, Scatter], readings: Sequence[Reading]) -> Panels:
    every = list(found.values())
    values = np.array([[value for one in every for value in one.values]])
    ends, across, up = colour_limits(values, every[0].center), across_all(every), up_all(every)
    bar = colour_bar(ends, every[0].center, bool(np.isnan(values).any()), every[0].value_label)
    panels = _panels(readings, found, lambda one: scatter(one, across, up, ends))
    return Panels(*title_and_hint(every), panels, bar)


def _diagrams(found: Mapping[str, Diagram], readings: Sequence[Reading]) -> Panels:
    every = list(found.values())
    places, ends, strongest = layout(every), values_of(every), strongest_of(every)
    panels = _panels(readings, found, lambda one: diagram(one, places, ends, strongest))
    title, hint = title_and_hint(every)
    names = dict(zip((reading.run.id for reading in readings), titles(readings), strict=True))
    missing = not_drawn({names[id] if len(readings) > 1 else "": one for id, one in found.items()})
    return Panels(title, " ".join(filter(None, (hint, missing))), panels, legend(every))


def _panels(readings: Sequence[Reading], found: Mapping[str, T], draw: Callable[[T], Markup]) -> list[Panel]:
    name = next(iter(found.values())).name
    return [
        Panel(titled(title, one.caveat), draw(one)) if one else Panel(title, None, why_missing(name, r))
        for title, r in zip(titles(readings), readings, strict=True)
        for one in [found.get(r.run.id)]
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
