"""What is reported of every position and layer: maps, candidates, separability, and a curve over layers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rcm.directions.causal import Scores
from rcm.directions.readability import Readability
from rcm.models import LoadedModel
from rcm.record.results import Column, Curve, Heatmap, Line, Scatter, Table
from rcm.stats import Estimate

CAUSAL: Mapping[str, Mapping[str, Any]] = {
    "bypass": {"label": "bypass", "unit": "log-odds", "hint": "of refusing harmful prompts, ablated", "good": "low"},
    "induce": {"label": "induce", "unit": "log-odds", "hint": "of refusing harmless prompts, added", "good": "high"},
    "kl": {"label": "KL", "unit": "nats", "hint": "on harmless prompts, ablated: the harm done", "good": "low"},
}
# Name, title, what the colours mean, the white point, and how to read it.
MAPS = (
    ("bypass", "bypass", "log-odds", 0.0, "Of refusing harmful ones, the direction ablated. Blue: no longer refused."),
    ("induce", "induce", "log-odds", 0.0, "Of refusing harmless ones, the direction added. Red: refused now."),
    ("kl", "KL", "nats", None, "Harmless ones, the direction ablated: the harm done. Low is good."),
    ("separation", "separation", "standard deviations", None, "How far apart the classes lie along the direction."),
    ("auroc", "AUROC", "AUROC", 0.5, "Of the projection; one half is chance."),
    ("probe_accuracy", "probe accuracy", "accuracy", 0.5, "Of a logistic probe; one half is chance."),
)
READ_ON_ALL = "bypass, induce and KL on those that were kept, separation, AUROC and probe accuracy on all"
OUTLINED = (
    "Outlined: the chosen place (selected, or the nearest miss), or where none was chosen the most separable one."
)


def maps(
    model: LoadedModel, positions: Sequence[int], scores: Scores, readable: Readability, cell: tuple[int, int]
) -> Iterator[Heatmap]:
    """One heatmap for each figure, layers down and positions across, the place marked."""
    grids = {"bypass": scores.bypass, "induce": scores.induce, "kl": scores.kl, **readable._asdict()}
    texts_of = model.template.end_of_instruction_text
    columns = [f"{position} {texts_of[position]}" for position in positions]
    layers = [str(layer) for layer in range(model.n_layers)]
    marked = [(cell[1], cell[0])]
    for name, label, value_label, center, hint in MAPS:
        if not np.isnan(grids[name]).all():
            yield Heatmap(
                f"direction/map_{name}",
                grids[name].T,
                layers,
                columns,
                "layer",
                "position",
                marked,
                center,
                value_label,
                label,
                f"On {'kept' if name in CAUSAL else 'all'} validation prompts. {hint} {OUTLINED}",
            )


def candidates(
    positions: Sequence[int],
    mean_difference: Float[np.ndarray, "position layer d_model"],
    scores: Scores,
    readable: Readability,
) -> Table:
    columns = ("position", "layer", "bypass", "induce", "kl", "separation", "auroc", "norm")
    norms = np.linalg.norm(mean_difference, axis=-1)
    grids = (scores.bypass, scores.induce, scores.kl, readable.separation, readable.auroc, norms)
    rows = [
        (positions[row], layer, *(float(grid[row, layer]) for grid in grids)) for row, layer in np.ndindex(*norms.shape)
    ]
    shown = [
        Column("position", "position", "index"),
        Column("layer", "layer", "index"),
        *(Column(name, meaning["label"], meaning["unit"], meaning["hint"]) for name, meaning in CAUSAL.items()),
        Column("separation", "separation", "sigma"),
        Column("auroc", "AUROC"),
        Column("norm", "length"),
    ]
    hint = f"Scored on validation prompts: {READ_ON_ALL}."
    return Table("direction/candidates", columns, rows, "candidates", hint, shown)


def frontier(positions: Sequence[int], scores: Scores, cell: tuple[int, int], max_kl: float) -> Scatter:
    """What ablating each scored candidate takes from refusing against what it costs, by whether adding it induces."""
    scored = [one for one in np.ndindex(*scores.kl.shape) if not np.isnan(scores.kl[one] + scores.bypass[one])]
    kl, bypass, induce = ([float(grid[one]) for one in scored] for grid in (scores.kl, scores.bypass, scores.induce))
    return Scatter(
        "direction/frontier",
        kl,
        bypass,
        induce,
        [f"position {positions[row]}, layer {layer}" for row, layer in scored],
        "KL on harmless prompts, nats",
        "bypass, log-odds",
        "induce, log-odds",
        marked=[scored.index(cell)] if cell in scored else [],
        x_limit=max_kl,
        log_x=True,
        label="bypass against KL",
        hint="A point for each candidate whose KL was scored (method.direction.exhaustive=true: all). Low and left is "
        "good: ablating stops refusals of harmful validation prompts and leaves harmless ones as they were. Red: "
        "adding it makes harmless ones refused. Dashed: max_kl. Ringed: the chosen one, selected or the nearest miss.",
    )


def other_limits(positions: Sequence[int], scores: Scores, max_depth: float, min_induce: float) -> Table:
    """What would be selected if another KL were allowed: the candidates that no other one beats in both KL and bypass,
    of those that induce and are not too deep. Those that were scored suffice for it, from the least KL among them on.
    """
    deepest = int(max_depth * scores.kl.shape[1])
    able = [cell for cell in np.ndindex(*scores.kl.shape) if cell[1] < deepest and scores.induce[cell] >= min_induce]
    rows: list[tuple[int | float, ...]] = []
    for row, layer in sorted((cell for cell in able if scores.kl[cell] >= 0), key=lambda cell: scores.kl[cell]):
        kl, bypass, induce = (float(grid[row, layer]) for grid in (scores.kl, scores.bypass, scores.induce))
        if not rows or bypass < rows[-1][3]:
            rows.append((positions[row], layer, kl, bypass, induce))
    shown = [
        Column("kl", "from a max_kl of", "nats", "up to the next row's"),
        Column("position", "position", "index"),
        Column("layer", "layer", "index"),
        Column("bypass", "bypass", "log-odds"),
        Column("induce", "induce", "log-odds"),
    ]
    return Table(
        "direction/other_limits",
        ("position", "layer", "kl", "bypass", "induce"),
        rows,
        "selected at other limits",
        "Which candidate would be selected if ablating were allowed to cost harmless prompts more, and what it does on "
        "validation prompts. The more is allowed, the more ablating takes away: how much of it is refusing, steering "
        "beside controls tells.",
        shown,
    )


def separability_table(
    positions: Sequence[int], separability: Mapping[tuple[int, int], Estimate], prompts: int
) -> Table:
    """What a sentence about everywhere rests on ("it tells them apart nowhere by more than so much")."""
    rows = [(positions[row], layer, *estimate, prompts) for (row, layer), estimate in sorted(separability.items())]
    shown = [
        Column("position", "position", "index"),
        Column("layer", "layer", "index"),
        Column("separation", "separation", "sigma"),
    ]
    return Table(
        "direction/separability",
        ("position", "layer", "separation", "separation_low", "separation_high", "separation_n"),
        rows,
        "separation at every place",
        "Of all test prompts, along the mean difference of all training prompts; 95 % intervals, by category "
        "where there are several.",
        shown,
    )


def by_layer(read: Readability, row: int) -> Curve:
    """Probe accuracy and AUROC of the mean difference on the test prompts, layer by layer, at the chosen position."""
    layers = range(read.auroc.shape[1])
    lines = [Line("probe accuracy", read.probe_accuracy[row].tolist()), Line("AUROC", read.auroc[row].tolist())]
    return Curve(
        "direction/by_layer",
        [float(layer) for layer in layers],
        lines,
        "layer",
        "on test prompts",
        "readable at which layer?",
        "Probe accuracy, and AUROC of the mean difference, at the chosen position. One half is chance.",
    )
