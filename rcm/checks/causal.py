"""What a model computes at a token does not depend on what comes after it."""

import torch

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off

AFTER = 2  # tokens that are read after the one that must not see them


@torch.inference_mode()
def causal(patient: Patient) -> Diagnosis:
    """The logits at a token of the longest prompt, with what follows and without."""
    hf, row = patient.model.hf, torch.tensor([max(patient.rows, key=len)], device=patient.model.device)
    whole = hf(input_ids=row, use_cache=False, logits_to_keep=AFTER + 1).logits[0, -1 - AFTER]
    cut = hf(input_ids=row[:, :-AFTER], use_cache=False, logits_to_keep=1).logits[0, -1]
    return of_error(
        causal.__name__,
        "logits at a token with what follows it, and without",
        off(whole, cut),
        patient,
        "it is no causal language model: choose another.",
    )
