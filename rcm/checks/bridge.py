"""TransformerLens' bridge computes what transformers computes, from the same weights."""

import torch

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off, plain_logits


@torch.inference_mode()
def bridge(patient: Patient) -> Diagnosis:
    """The logits of a prompt by both."""
    model = patient.model
    row = patient.model.template.tokens(patient.harmful[0])
    theirs = model.bridge(torch.tensor([row], device=model.device), return_type="logits")
    return of_error(
        bridge.__name__,
        "logits by transformers, and by TransformerLens' bridge",
        off(theirs[:, -1], plain_logits(model, [row])),
        patient,
        "attribution and component paths would be of another model: load it anew, and edit no weights of one of them.",
    )
