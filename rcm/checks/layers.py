"""Layers are where they are counted: the residual stream at the input of block l is transformers' hidden state l."""

import torch

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off
from rcm.execution.passes import read_residuals


@torch.inference_mode()
def layers(patient: Patient) -> Diagnosis:
    """At the last token of a prompt; a shift by one layer degrades every direction, and breaks nothing."""
    model, text = patient.model, patient.harmful[0]
    ours = read_residuals(model, [text], [-1], "doctor: layers").residuals[0, 0]
    ids = torch.tensor([model.template.tokens(text)], device=model.device)
    states = model.hf(input_ids=ids, output_hidden_states=True, use_cache=False, logits_to_keep=1).hidden_states
    theirs = torch.stack([state[0, -1].float().cpu() for state in states[: len(ours)]])
    # Each layer by its own size: the stream grows with depth.
    error = max(off(one, other) for one, other in zip(ours, theirs, strict=True))
    return of_error(
        layers.__name__,
        f"residual streams at the inputs of {len(ours)} blocks, and transformers' hidden states",
        error,
        patient,
        "what is said of layers would be of others: report this architecture, with the version of transformers.",
    )
