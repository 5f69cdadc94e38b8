"""A prompt alone gives what it gives in a padded batch."""

import torch

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off, plain_logits


def padding(patient: Patient) -> Diagnosis:
    """The shortest and the longest prompt together, where the one is padded, and each alone, where nothing is."""
    model = patient.model
    rows = [min(patient.rows, key=len), max(patient.rows, key=len)]
    with torch.inference_mode():
        alone = torch.cat(
            [model.hf(input_ids=torch.tensor([row], device=model.device)).logits[:, -1].float() for row in rows]
        )
    return of_error(
        padding.__name__,
        f"logits of a prompt alone, and padded by {len(rows[1]) - len(rows[0])} tokens in a batch",
        off(plain_logits(model, rows), alone),
        patient,
        "nothing measured would be of one prompt: choose another model or, of your own code, pad on the left, with a "
        "mask and positions that leave padding out.",
    )
