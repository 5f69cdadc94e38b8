"""A direction as one file: `direction.safetensors`, whose header says what it is of and what it does.

The file is for those who check a claim: does the direction that was published part the same prompts in my copy of the
model, at this layer, and does adding so much of it make the model refuse, at this price? `method.transplant.source`
takes it. Everything needed for that stands in the header, as strings, and what was not measured says so.

The boundary. Adding the vector induces refusal, and that is the one operation that the file tells of: none is projected
out, and no strength in it is negative. But a vector carries no lock: whoever writes a hook of his own can subtract it,
which suppresses refusal, as he can with the difference of means of any two lists of prompts, or with the vectors that
every run stores beside its figures. So the file gives nobody what he lacked, and it goes no further than that: it is in
no layout that an inference engine loads with a strength of either sign.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from rcm.errors import InputError
from rcm.record.results import Outcome, Scalar
from rcm.record.storage import write_tensors
from rcm.record.stored import StoredRun

FORMAT, VERSION = "rcm direction", "1"
DIRECTIONS, VECTORS = "direction/directions", "mean_difference"  # of a run; by position and layer
FOUND = ("selected", "nearest_miss")  # outcomes of a direction that was chosen by what it causes
NOT_MEASURED = "not measured"
SUFFIX = ".safetensors"


def write_direction(run: StoredRun, out: Path) -> dict[str, str]:
    """Write the direction that a run chose, `[d_model]` in float32 and of its natural length; gives the header. Raises
    InputError where the run has none that was chosen by what it causes."""
    if out.suffix != SUFFIX:
        raise InputError(f"--out {out} must end in {SUFFIX}, so that readers know the format; rename it.")
    results = {result.name: result for result in run.results()}
    outcome = results.get("direction/outcome")
    if not isinstance(outcome, Outcome):
        raise InputError(f"{run.directory} looked for no direction; give a run of method=[direction] or map.")
    if outcome.value not in FOUND:
        raise InputError(
            f"{run.directory} found no direction that induces refusal ({outcome.value}), so there is none to write; "
            "give a run whose direction/outcome is selected or nearest_miss."
        )
    scalars = {name: result for name, result in results.items() if isinstance(result, Scalar)}
    position, layer = (int(scalars[f"direction/{name}"].value) for name in ("position", "layer"))
    stored = run.tensors(DIRECTIONS)
    positions = [int(one) for one in stored.metadata["positions"].strip("[]").split(",")]
    vector = stored.tensors[VECTORS][positions.index(position), layer].float().contiguous()
    if not torch.isfinite(vector).all() or not vector.any():
        raise InputError(f"The direction in {run.directory} is not finite or zero; the run's files are damaged.")
    steered = results.get("steering/outcome")
    header = {
        **_what(vector, position, layer, outcome),
        **_effect(scalars),
        "steering_outcome": steered.value if isinstance(steered, Outcome) else NOT_MEASURED,
        **_whose(run, stored.metadata),
    }
    write_tensors(out, {"direction": vector}, header)
    return header


def _what(vector: torch.Tensor, position: int, layer: int, outcome: Outcome) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "operation": "add",
        "sign": "adding induces refusal: it points from harmless to harmful prompts, and strengths are positive",
        "hook_point": "resid_pre",
        "layer": str(layer),
        "layer_convention": "layer l is the input of block l, which is the output of block l-1, counted from 0",
        "applied_at": "every token of the prompt and of the reply",
        "position": str(position),
        "position_convention": "the token of the prompt that it was read at, from the end of the prompt, -1",
        "d_model": str(len(vector)),
        "natural_norm": repr(float(np.linalg.norm(vector.double().numpy()))),
        "strength_unit": "natural norms: strength 1 adds the vector as it is stored",
        "derived_from": "mean activation of harmful prompts less that of harmless ones, of the training prompts",
        "vector_sha256": hashlib.sha256(vector.numpy().astype("<f4").tobytes()).hexdigest(),
        "outcome": outcome.value,
        "outcome_because": outcome.because,
    }


def _effect(scalars: Mapping[str, Scalar]) -> dict[str, str]:
    """What adding it does, and what that costs."""
    strength, rate = scalars.get("steering/strength"), scalars.get("steering/force_rate")
    at_budget = scalars.get("steering/budget_strength_force_add")
    return {
        "strength": _figure(strength),
        "kl_at_strength": _figure(scalars.get("steering/kl_force")),
        "kl_unit": "nats per token to the unsteered model, on its own replies to harmless prompts",
        "force_rate_at_strength": _figure(rate),
        "force_rate_of": "harmless prompts that were answered before, made to be refused",
        "force_rate_null": f"{rate.null.value!r} of {rate.null.draws} {rate.null.of}, p {rate.null.p!r}"
        if rate is not None and rate.null is not None
        else NOT_MEASURED,
        "strength_at_kl_budget": _figure(at_budget),
        "induce": _figure(scalars.get("direction/induce")),
        "induce_unit": "log-odds of refusing harmless test prompts when it is added once",
        "auroc": _figure(scalars.get("direction/auroc")),
    }


def _whose(run: StoredRun, stored: Mapping[str, str]) -> dict[str, str]:
    judge = run.config.get("judge", {})
    steering = run.config.get("method", {}).get("steering", {})
    given = {
        "model": stored.get("model"),
        "model_revision": stored.get("model_revision"),
        "adapter": stored.get("adapter") or "none",
        "weights_digest": run.weights,
        "dtype": stored.get("dtype"),
        "template": stored.get("template"),
        "template_hash": stored.get("template_hash"),
        "end_of_instruction": stored.get("end_of_instruction"),
        "kl_budget": str(steering["kl_budget"]) if "kl_budget" in steering else None,
        "judge": run.choices.get("judge"),
        "judge_kappa": None if judge.get("kappa") is None else str(judge["kappa"]),
        "prompts": run.choices.get("dataset"),
        "prompts_digest": run.data,
        "rcm_version": (run.provenance.get("packages") or {}).get("rcm"),
        "rcm_sources": run.sources,
        "run_id": run.id,
        "run_digest": run.digest,
        "run_started": run.started,
    }
    return {name: value or NOT_MEASURED for name, value in given.items()}


def _figure(scalar: Scalar | None) -> str:
    """A figure with its interval and n, as JSON's numbers."""
    if scalar is None or not np.isfinite(scalar.value):
        return NOT_MEASURED
    band = "" if scalar.interval is None else f" [{scalar.interval[0]!r}, {scalar.interval[1]!r}]"
    return f"{scalar.value!r}{band}" + ("" if scalar.n is None else f" (n {scalar.n})")
