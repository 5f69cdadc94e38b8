"""Nothing hangs on the model that changes it, and nothing is left when a pass breaks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rcm.checks.diagnosis import FAILED, PASSED, Diagnosis, Patient
from rcm.execution import rows
from rcm.execution.components import Rows
from rcm.execution.interventions import Site
from rcm.execution.recording import Values, cache_components
from rcm.execution.self_checks import BROKEN
from rcm.execution.shared_prefix import read
from rcm.models.points import Points

THEIRS = ("transformers.", "accelerate.", "torch.")  # they keep hooks that only record, and those that fetch weights
SIDES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class MeantToBreakError(Exception):
    """What the edit of this check raises."""


class Breaking:
    """An intervention whose edit raises, in the last layer."""

    def rows(self, index: Sequence[int]) -> "Breaking":
        return self

    def sites(self, points: Points) -> Iterator[Site]:
        yield points.layers[-1], "input", self._edit

    def _edit(self, x: Tensor) -> Tensor:
        raise MeantToBreakError


def hooks(patient: Patient) -> Diagnosis:
    """Hooks on all modules, gradients, and the attention that was chosen: before, after a pass in which an edit raises,
    and after rows that do not fit."""
    name, model = hooks.__name__, patient.model
    before, at_rest = state(model.hf), on(model.hf)
    if at_rest:
        measured = f"{at_rest} hooks hang on the model before anything is measured"
        then = "take them off, or load the model anew."
        return Diagnosis(name, measured, FAILED, float(at_rest), 0.0, "hooks", then)
    row = tuple(patient.rows[0])
    base = cache_components(model, [row])
    narrow = Values(*(part[..., :-1] for part in base.at(-1)))
    breaking: list[Callable[[], object]] = [
        lambda: read(model, [row], [Breaking()], 0),
        lambda: rows.patched_logits(model, base, [narrow, narrow], Rows.full(base.shape)),
    ]
    for run in breaking:
        with suppress(MeantToBreakError, *BROKEN), torch.inference_mode():
            run()
        left, now = on(model.hf), state(model.hf)
        if not left and now == before:
            continue
        measured = f"{left} hooks are left after a pass in which an edit raises"
        if changed := [f"{was} is now {is_now}" for was, is_now in zip(before, now, strict=True) if was != is_now]:
            measured += f"; {', '.join(changed)}"
        then = "what is measured later would be of a changed model: report it, and measure in a new process."
        return Diagnosis(name, measured, FAILED, float(left), 0.0, "hooks", then)
    return Diagnosis(name, "no hooks are left after passes in which an edit raises", PASSED, 0.0, 0.0, "hooks")


def on(hf: PreTrainedModel) -> int:
    """How many hooks hang on its modules, those of the libraries aside."""
    found = (hook for module in hf.modules() for side in SIDES for hook in getattr(module, side).values())
    return sum(not str(getattr(hook, "__module__", "")).startswith(THEIRS) for hook in found)


def state(hf: PreTrainedModel) -> tuple[str, str, str]:
    """What a pass may change and must give back, in words."""
    gradients = sum(parameter.requires_grad for parameter in hf.parameters())
    return (
        f"attention {hf.config._attn_implementation}",
        f"gradients of {gradients} parameters",
        "training" if hf.training else "evaluation",
    )
