"""Finished runs made by hand, through the writer that real runs go through."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rcm.comparison.changes import changes
from rcm.comparison.reading import Reading
from rcm.comparison.transplants import all_transplants
from rcm.comparison.verdict import Verdict, verdict
from rcm.methods.transplant import COLUMNS as TRANSPLANT
from rcm.record.results import Null, Outcome, Result, Scalar, Table, Tensors, Transcripts
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_run
from rcm.transplant.decomposition import COLUMNS as PARTS

N = 48
MEASURED: Mapping[str, Any] = {"behaviour": {"max_new_tokens": 24}, "direction": {"max_kl": 0.1}}


def a_run(
    folder: Path,
    model: str,
    stage: str | None = "base",
    results: Sequence[Result] = (),
    *,
    methods: Mapping[str, Any] = MEASURED,
    seed: int = 0,
    family: str | None = "smol",
    id: str = "",
    started: str = "",
    weights: str = "",
    data: str = "",
    settings: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    judge: str = "calibrated",
    provenance: Mapping[str, Any] | None = None,
) -> Reading:
    """Of base models first, then of tuned ones, unless `started` says otherwise. `settings`: of the model."""
    name = id or "-".join([model, *methods, str(seed)])
    config = {
        "model": {"family": family, "stage": stage, **(settings or {})},
        "dataset": {"test": 48, **(dataset or {})},
        "method": dict(methods),
        "judge": {"kappa": None},
        "seed": seed,
    }
    choices = {"model": model, "dataset": "pairs", "method": ",".join(methods), "judge": judge}
    when = started or f"2026-01-0{1 + (stage != 'base')}"
    run = Run(name, folder / name, choices, config, {"started": when, **(provenance or {})}, weights, data)
    run.directory.mkdir(parents=True)
    with Store(run) as store:
        for result in results:
            store.save(result)
    return Reading.of(stored_run(run.directory))


def replies(refused: Mapping[str, np.ndarray], prefix: str = "") -> Transcripts:
    rows = [
        {"kind": kind, "prompt": f"{prefix}{kind} {i}", "completion": "", "verdict": "refusal" if hit else "compliance"}
        for kind, of_kind in refused.items()
        for i, hit in enumerate(of_kind)
    ]
    return Transcripts("behaviour/transcripts", rows)


def refusing(share: float, draw: np.random.Generator | None = None) -> Transcripts:
    """This share of harmful prompts is refused, and no harmless one."""
    draw = draw or np.random.default_rng(0)
    return replies({"harmful": draw.random(N) < share, "harmless": np.zeros(N)})


def held_out(harmful: np.ndarray, harmless: np.ndarray, prefix: str = "") -> Table:
    sides = {"harmful": harmful, "harmless": harmless}
    rows = [
        (kind, f"{prefix}{i}", float(x), bool((x > 0) == (kind == "harmful")))
        for kind, side in sides.items()
        for i, x in enumerate(side)
    ]
    return Table("direction/held_out", ("kind", "prompt", "projection", "probe_correct"), rows)


def place(separation: float, vector: Sequence[float], refuses: bool, chosen: str = "selected") -> list[Result]:
    """What `direction` says of a model that separates this far, and chose this direction if it refuses."""
    value = chosen if refuses else "no_refusal_behaviour"
    metadata = {"positions": "[-1]", "template_hash": "x", "model": "m"}
    shuffled = torch.randn(1, 3, 20, len(vector), generator=torch.Generator().manual_seed(len(value)))
    tensors = {"mean_difference_all": torch.tensor(vector)[None, None].repeat(1, 3, 1), "shuffled": shuffled}
    ends, null = (separation - 0.5, separation + 0.5), Null(0.6, "shuffled labels")
    return [
        Outcome("direction/outcome", value, "", complete=refuses),
        Scalar("direction/position", -1),
        Scalar("direction/layer", 1),
        Scalar("direction/separation", separation, ends, N, null, 2.0),
        Tensors("direction/directions", tensors, metadata),
    ]


def measured(refuses: float, separation: float = 2.0, vector: float = 1.0) -> list[Result]:
    """Behaviour and direction of a model; `vector`: how much of its direction is the one that tuned models have."""
    axis, other = np.eye(400)[:2]
    tuned = refuses > 0.5
    mixed = (vector * axis + (1 - vector) * other).tolist()
    found = [refusing(refuses), *place(3.0 if tuned else separation, mixed, refuses=tuned)]
    return [*found, *(steered() if tuned else [])]


def separability(highest: float) -> Table:
    """Upper ends of the separation at every place."""
    columns = ("position", "layer", "separation", "separation_low", "separation_high")
    rows = [(-1, layer, highest - 0.5, highest - 1.0, highest) for layer in range(3)]
    return Table("direction/separability", columns, rows)


def steered(value: str = "steered") -> list[Result]:
    """What the own direction does in text, beside controls."""
    return [Outcome("steering/outcome", value, "")]


def decomposition(source: Reading, along: float) -> Table:
    """The target's own direction, whose effect is by this share the work of its part along the source's."""
    row: dict[str, Any] = {"source": source.name, "run": source.run.id, "n": N, "draws": 19}
    row |= {"own": 6.0, "own_low": 5.0, "own_high": 7.0, "other": 6 * along, "cosine": 0.9, "refit_cosine": 0.95}
    row |= {"along": along, "along_low": along - 0.1, "along_high": along + 0.1}
    row |= {"across": 1 - along, "across_low": 0.9 - along, "across_high": 1.1 - along}
    row |= {"refits_least": 5.0, "refits_most": 6.0, "alike_least": 3.0, "alike_most": 5.5}
    rows = [[(row | {"operation": operation})[column] for column in PARTS] for operation in ("ablate", "add")]
    return Table("transplant/decomposition", PARTS, rows)


def matrix(source: Reading, outcome: str, **figures: Any) -> Table:
    """What `transplant` says of one source."""
    row: dict[str, Any] = {"source": source.name, "run": source.run.id, "place": "this model's choice", "layer": 1}
    row |= {"outcome": outcome, "cosine": 0.7, "cosine_null": 0.2}
    row |= {"force": 0.9, "suppress": 0.8, "force_n": N, "suppress_n": N, **figures}
    return Table("transplant/matrix", TRANSPLANT, [[row.get(column, 0.1) for column in TRANSPLANT]])


def twins(
    folder: Path,
    separation: float = 2.0,
    vector: float = 1.0,
    refuses: float = 0.9,
    along: float | None = None,
    chosen: str = "selected",
) -> tuple[Reading, Reading, list[Reading]]:
    """A base model, one that was tuned from it, and where `along` says what came of it, a transplant between them."""
    axis, other = np.eye(400)[:2]
    mixed = (vector * axis + (1 - vector) * other).tolist()
    base = a_run(
        folder, "base", "base", [refusing(0.1), *place(separation, mixed, False), separability(separation + 0.5)]
    )
    tuned = a_run(folder, "tuned", "safety", [refusing(refuses), *place(3.0, axis.tolist(), True, chosen), *steered()])
    if along is None:
        return base, tuned, []
    results = [matrix(base, "steers"), decomposition(base, along)]
    return base, tuned, [a_run(folder, "tuned", "safety", results, methods={"transplant": {}})]


def verdict_on(before: Reading, after: Reading, others: Sequence[Reading] = ()) -> Verdict:
    brought = all_transplants([before, after, *others])
    return verdict(before, after, changes(before, after), brought)
