"""A run patched with itself is the same run; patched with everything of another, it is the other."""

import torch

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off, plain_logits
from rcm.execution import loop
from rcm.execution import rows as by_rows
from rcm.execution.components import Rows
from rcm.execution.recording import Values, cache_components


@torch.inference_mode()
def patched(patient: Patient) -> Diagnosis:
    """The two prompts of a pair: each layer replaced by itself (a row for each), and all layers by the other's."""
    model, engine = patient.model, patient.engine
    pair = [list(one) for one in patient.pairs.tokens[0]]
    base = cache_components(model, pair)
    own = base.at(-1)
    donors = [own, Values(*(part.flip(1) for part in own))]
    patches = Rows.concat([Rows.identity(engine.shape), Rows.full(engine.shape)])
    order = patches.first_layer.argsort(stable=True)
    logits = (by_rows if engine.path == "rows" else loop).patched_logits(model, base, donors, patches[order])[:, :, -1]
    before = plain_logits(model, pair)
    full = int((order == len(patches) - 1).nonzero())
    itself = [row for row in range(len(patches)) if row != full]
    same = off(logits[:, itself], before[:, None].expand(-1, len(itself), -1))
    other = off(logits[:, full], before.flip(0))
    return of_error(
        patched.__name__,
        f"logits of a pair with a layer replaced by itself (off by {same:.1e}), and everything by the other's (off by "
        f"{other:.1e})",
        max(same, other),
        patient,
        "effects of components would not be theirs: report this architecture, with the version of transformers.",
    )
