"""Which pictures stand in one row: the same map, or the same curve, of all models of a family, on one scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from markupsafe import Markup

from rcm.comparison.cosines import NAME as COSINE
from rcm.comparison.reading import NOT_REPORTED, Family, Reading
from rcm.comparison.verdict import Tuning
from rcm.record.results import Curve, Heatmap
from rcm.report.curves import curve, vertical_limits
from rcm.report.heatmaps import colour_bar, heatmap, is_wide
from rcm.tracking.figures import limits

T = TypeVar("T", Heatmap, Curve)
ABBREVIATIONS = ("auroc", "kl")
TITLES = {
    COSINE: "the same direction?",
    "behaviour/refusal_by_length": "refusal over the length of the reply",
    "patching/heads_necessity": "heads: refusal lost when one is taken from the harmless twin",
    "patching/heads_sufficiency": "heads: refusal gained when one is taken from the harmful twin",
    "patching/layers_necessity": "layers: refusal lost when a part is taken from the harmless twin",
    "patching/layers_sufficiency": "layers: refusal gained when a part is taken from the harmful twin",
    "patching/knock_out": "heads that stand in for each other",
    "patching/positions_necessity": "positions: refusal lost when the residual stream is taken from the harmless twin",
    "patching/positions_sufficiency": "positions: refusal gained when it is taken from the harmful twin",
    "patching/residual": "where the last token comes to hold the decision",
    "steering/dose_response": "dose-response: forcing refusal",
    "steering/dose_response_suppress": "dose-response: suppressing refusal",
    "steering/kl": "price: KL to the unsteered model",
    "steering/cross_entropy": "price: loss on plain text",
    "steering/coherence": "coherence: repetition",
    "steering/invalid": "coherence: no language",
}
CRITICAL = "Outlined: critical, that is significant over all cells (max-T) and certainly above min_share."
BESIDE = "Beside it directions of the same length: random ones, and mean differences of shuffled labels. Bands: 95 %."
HINTS = {
    COSINE: "Cosine of the two mean differences at every layer, at the position that the later run chose.",
    "behaviour/refusal_by_length": "The same replies, cut to their first tokens and judged again. A line that still "
    "rises at its end: some refuse later than replies are cut. Bands: 95 % intervals.",
    "direction/map_bypass": "Refusal log-odds on harmful prompts with the direction ablated. Blue: no longer refused.",
    "direction/map_induce": "Refusal log-odds on harmless prompts with the direction added. Red: refused now.",
    "direction/map_kl": "KL divergence on harmless prompts when it is ablated, in nats: the harm done. Low is good.",
    "direction/map_separation": "How far apart the classes lie along the direction, in standard deviations.",
    "direction/map_auroc": "AUROC of the projection on validation prompts; one half is chance.",
    "direction/map_probe_accuracy": "Accuracy of a logistic probe on validation prompts; one half is chance.",
    "direction/by_layer": "How well each layer can be read on test prompts, at the chosen position.",
    "patching/heads_necessity": f"Necessity, at the last token. {CRITICAL}",
    "patching/heads_sufficiency": f"Sufficiency, at the last token. {CRITICAL}",
    "patching/layers_necessity": f"Necessity of what attention and MLP of a layer write, at the last token. {CRITICAL}",
    "patching/layers_sufficiency": f"Sufficiency of what they write. {CRITICAL}",
    "patching/knock_out": "Diagonal: necessity of one head. Elsewhere: of two together, less that of each alone. Red: "
    "one stands in for the other; blue: one works through the other.",
    "patching/positions_necessity": f"Necessity at each token that all prompts end in. {CRITICAL}",
    "patching/positions_sufficiency": f"Sufficiency at each token that all prompts end in. {CRITICAL}",
    "patching/residual": "Refusal lost (necessity) and gained (sufficiency) when the residual stream that enters a "
    "layer is replaced. Bands: 95 % intervals.",
    "steering/dose_response": f"Harmless test prompts that are refused once it is added. {BESIDE}",
    "steering/dose_response_suppress": f"Refused test prompts that are answered once it is subtracted. {BESIDE}",
    "steering/kl": f"How far predictions move, over the unsteered model's own replies to harmless prompts. {BESIDE}",
    "steering/cross_entropy": f"What adding it costs on text that has nothing to do with refusing. {BESIDE}",
    "steering/coherence": "Share of a reply's word trigrams that are different ones; below one half a reply loops.",
    "steering/invalid": "Replies that are no language count as neither refusals nor answers.",
    "steering/strength_choice": "Force rate on validation prompts, by which the strength was chosen.",
    "safety_tune/loss": "Training loss of the adapter.",
}


@dataclass(frozen=True)
class Panel:
    """One run's picture, or what two differ by; where there is none, `missing` says why."""

    title: str
    drawn: Markup | None
    missing: str = ""


@dataclass(frozen=True)
class Row:
    """`scale` is the colour bar of maps. `wide`: the panels are about as wide as a phone."""

    name: str
    title: str
    hint: str
    scale: Markup | None
    wide: bool
    panels: Sequence[Panel]


def map_rows(readings: Sequence[Reading]) -> list[Row]:
    """A row for each heatmap that any of the runs has."""
    return [_map_row(name, readings) for name in _names(Heatmap, readings)]


def curve_rows(readings: Sequence[Reading]) -> list[Row]:
    """A row for each curve that any of the runs has."""
    return [_curve_row(name, readings) for name in _names(Curve, readings)]


def _names(kind: type[Heatmap] | type[Curve], readings: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(result.name for reading in readings for result in reading.every(kind)))


def _map_row(name: str, readings: Sequence[Reading]) -> Row:
    grids = {r.run.id: grid for r in readings for grid in r.every(Heatmap) if grid.name == name}
    one = next(iter(grids.values()))
    values = np.concatenate([grid.values.ravel() for grid in grids.values()])[None]
    ends = limits(values, one.center)
    bar = colour_bar(ends, one.center, bool(np.isnan(values).any()), one.value_label)
    wide = any(map(is_wide, grids.values()))
    panels = _panels(name, readings, grids, lambda grid: heatmap(grid, ends))
    if difference := _difference(readings, grids):
        panels.append(difference)
    return Row(name, _title(name), HINTS.get(name, ""), bar, wide, panels)


def _curve_row(name: str, readings: Sequence[Reading]) -> Row:
    curves = {r.run.id: one for r in readings for one in r.every(Curve) if one.name == name}
    ends = vertical_limits(list(curves.values()))
    panels = _panels(name, readings, curves, lambda one: curve(one, ends))
    return Row(name, _title(name), HINTS.get(name, ""), None, True, panels)


def tuning_rows(family: Family, tunings: Sequence[Tuning]) -> list[Row]:
    """A row of how alike the directions of a family's runs are; none where none of them has any."""
    own = {reading.run.id for reading in family.readings}
    drawn = [(one.name, one.cosines) for one in tunings if one.after.run.id in own and one.cosines]
    ends = vertical_limits([found for _, found in drawn])
    panels = [Panel(name, curve(found, ends)) for name, found in drawn]
    return [Row(COSINE, _title(COSINE), HINTS[COSINE], None, True, panels)] if panels else []


def _panels(name: str, readings: Sequence[Reading], found: dict[str, T], draw: Callable[[T], Markup]) -> list[Panel]:
    return [
        Panel(r.name, draw(found[r.run.id])) if r.run.id in found else Panel(r.name, None, why_missing(name, r))
        for r in readings
    ]


def _difference(readings: Sequence[Reading], grids: dict[str, Heatmap]) -> Panel | None:
    """The last model's map less the first's, where both have one of the same shape, on a scale of its own."""
    first, last = (grids.get(reading.run.id) for reading in (readings[0], readings[-1]))
    if first is None or last is None or first is last or first.values.shape != last.values.shape:
        return None
    less = replace(last, values=last.values - first.values, marked=(), center=0.0)
    ends = limits(less.values, 0.0)
    bar = colour_bar(ends, 0.0, bool(np.isnan(less.values).any()), "difference")
    return Panel(f"{readings[-1].name} less {readings[0].name}", heatmap(less, ends) + bar)


def why_missing(name: str, reading: Reading) -> str:
    """What the run concluded before it would have come to the picture."""
    because = reading.why_without(name)
    return f"Not measured: {because}" if because else NOT_REPORTED


def _title(name: str) -> str:
    if name in TITLES:
        return TITLES[name]
    plain = name.rsplit("/", 1)[-1].removeprefix("map_").replace("_", " ")
    return plain.upper() if plain in ABBREVIATIONS else plain
