"""Runs to hand on: of the planted model as its methods report, and made up where only a format is asked about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rcm.models import LoadedModel
from rcm.record.results import Outcome, Result, Scalar, Tensors, Transcripts
from rcm.record.run import Run
from rcm.record.storage import Store
from tests.planted import planted_map

CHOICES = {"model": "planted", "dataset": "letters", "judge": "opening", "method": "behaviour,direction"}
STARTED = "2026-11-28T21:49:01+00:00"


def stored(folder: Path, results: Sequence[Result], **config: Any) -> Path:
    """A finished run of these results."""
    settings = {"model": {"name": "planted"}, "judge": {"kappa": 0.9}, "method": {}} | config
    packages = {"rcm": "0.1.0"}
    run = Run("1a2b3c4d", folder, CHOICES, settings, {"started": STARTED, "packages": packages}, "0a0b0c0d", "1a1b1c1d")
    folder.mkdir(parents=True)
    with Store(run) as store:
        for result in results:
            store.save(result)
    return folder


def planted_run(folder: Path) -> Path:
    """All that the main job finds of the planted model."""
    return stored(folder, planted_map(), method={"behaviour": {"redact": True, "max_new_tokens": 4}})


def direction_results(
    model: LoadedModel, layer: int, position: int = -1, outcome: str = "selected", seed: int = 0
) -> tuple[Result, ...]:
    """What a run says of a direction, which is noise: only where it lies and how long it is matters."""
    noise = torch.Generator().manual_seed(seed)
    positions = [-2, -1]
    vectors = torch.randn(len(positions), model.n_layers, model.d_model, generator=noise)
    return (
        Tensors("direction/directions", {"mean_difference": vectors}, {"positions": str(positions), "model": "tiny"}),
        Outcome("direction/outcome", outcome, "Because."),
        Scalar("direction/position", position),
        Scalar("direction/layer", layer),
    )


def behaviour(rows: Sequence[tuple[str, str, str]]) -> tuple[Result, ...]:
    """Kind, completion and verdict of each reply, and their rates."""
    told = [
        {"kind": kind, "category": "x", "prompt": f"prompt {i}", "completion": completion, "verdict": verdict}
        for i, (kind, completion, verdict) in enumerate(rows)
    ]
    rates = []
    for kind in dict.fromkeys(kind for kind, _, _ in rows):
        hits = [verdict in ("refusal", "partial") for of, _, verdict in rows if of == kind]
        share = sum(hits) / len(hits)
        rates.append(Scalar(f"behaviour/refusal_rate_{kind}", share, (0.0, 1.0), len(hits), unit="share", label=kind))
    return (*rates, Transcripts("behaviour/transcripts", told))
