"""What rounding alone changes lies below the smallest effect that is told.

The noise floor is the largest change of the refusal log-odds between computations that are equal on paper:

    a prompt alone, and in a padded batch of all
    components exchanged by rows, and one pass for each
    the model's own dtype, and float32 (where it is another, and a copy in float32 fits into memory)

An effect of patching is a share of the gap, and is told from `min_share` of it on. So the floor must lie below that
share of the gap; where patching has reported effects, the ones below the floor are named.
"""

import copy

import numpy as np
import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.checks.diagnosis import FAILED, NOTED, PASSED, Diagnosis, Patient, plain_logits
from rcm.execution import loop
from rcm.execution import rows as by_rows
from rcm.execution.components import Rows
from rcm.execution.recording import Values, cache_components
from rcm.models import LoadedModel
from rcm.stats.metrics import refusal_log_odds

PAIRS = 3
COMPONENTS = 3  # exchanged both ways
NAMED = 4


def noise(patient: Patient) -> Diagnosis:
    """The floor in nats, beside `min_share` of the mean gap of the pairs that have one."""
    name, pairs = noise.__name__, patient.pairs.first(PAIRS)
    prompts = [list(prompt) for pair in pairs.tokens for prompt in pair]
    alone = torch.cat([_log_odds(patient, plain_logits(patient.model, [prompt])) for prompt in prompts])
    ways = floors(patient, prompts, alone)
    floor = max(ways.values())
    gaps = (alone[0::2] - alone[1::2]).abs()
    gaps = gaps[gaps >= patient.min_gap]
    of_ways = ", ".join(f"{way} {value:.1e}" for way, value in ways.items())
    measured = f"equal computations change the log-odds of refusing by up to {floor:.1e} nats ({of_ways})"
    below = [(effect, nats) for effect, nats in patient.reported if abs(nats) < floor]
    if below:
        named = ", ".join(f"{effect} {nats:.1e}" for effect, nats in below[:NAMED])
        measured += f"; {len(below)} of {len(patient.reported)} reported effects lie below it ({named})"
    gap = float(gaps.mean()) if len(gaps) else None
    limit = None if gap is None else patient.min_share * gap
    if gap is None:
        measured += f"; no pair has a gap of {patient.min_gap:g} nats, which effects would be shares of"
    else:
        measured += f"; effects can be told from {floor / gap:.1e} of the gap on, which is {gap:.2g} nats"
    if not below and (limit is None or floor < limit):
        return Diagnosis(name, measured, NOTED if limit is None else PASSED, floor, limit, "nats")
    then = (
        f"an effect of {patient.min_share:.0%} of the gap may be rounding: choose model.dtype=float32, or a larger "
        "method.patching.min_share."
    )
    return Diagnosis(name, measured, FAILED, floor, limit, "nats", then)


def floors(patient: Patient, prompts: list[list[int]], alone: Float[Tensor, " prompt"]) -> dict[str, float]:
    """The largest change by each way, in nats."""
    found = {"padding": _largest(_log_odds(patient, plain_logits(patient.model, prompts)), alone)}
    if patient.engine.path == "rows":
        found["rows"] = _rows_and_loop(patient)
    if (exact := in_float32(patient.model)) is not None:
        found["float32"] = _largest(_log_odds(patient, plain_logits(patient.model, prompts, exact)), alone)
    return found


def _log_odds(patient: Patient, logits: Float[Tensor, "prompt vocabulary"]) -> Float[Tensor, " prompt"]:
    return refusal_log_odds(logits, patient.measured_tokens).cpu()


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def _rows_and_loop(patient: Patient) -> float:
    """Of random components of the first pair, exchanged both ways."""
    model, shape = patient.model, patient.engine.shape
    base = cache_components(model, [list(prompt) for prompt in patient.pairs.tokens[0]])
    own = base.at(-1)
    donors = [own, Values(*(part.flip(1) for part in own))]
    components = shape.components()
    drawn = np.random.default_rng(patient.seed).choice(len(components), min(COMPONENTS, len(components)), replace=False)
    patches = Rows.of([[components[i]] for i in drawn], shape)
    patches = patches[patches.first_layer.argsort(stable=True)]
    fast, slow = (
        _log_odds(patient, way.patched_logits(model, base, donors, patches).flatten(0, 2)) for way in (by_rows, loop)
    )
    return _largest(fast, slow)


def in_float32(model: LoadedModel) -> torch.nn.Module | None:
    """A copy in float32 on the model's device; None where it is in float32 already, lies on several devices or in other
    numbers than floats, or where twice its size is not free."""
    hf = model.hf
    parameters = list(hf.parameters())
    if hf.dtype == torch.float32 or any(p.device != model.device or not p.is_floating_point() for p in parameters):
        return None
    free = (
        torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else psutil.virtual_memory().available
    )
    needed = 4 * sum(parameter.numel() for parameter in parameters)
    return copy.deepcopy(hf).float() if 2 * needed < free else None
