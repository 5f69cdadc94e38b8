"""A prompt alone gives what it gives in a padded batch."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rcm.checks.diagnosis import Diagnosis, Patient, of_error, off, plain_logits


def padding(patient: Patient) -> Diagnosis:
    """The shortest and the longest prompt together, where the one is padded, and each alone, where nothing is."""
    model = patient.model
    rows = [min(patient.rows, key=len), max(patient.rows, key=len)]
    alone = torch.cat([_unpadded(model.hf, torch.tensor([row], device=model.device)) for row in rows])
    return of_error(
        padding.__name__,
        f"logits of a prompt alone, and padded by {len(rows[1]) - len(rows[0])} tokens in a batch",
        off(plain_logits(model, rows), alone),
        patient,
        "nothing measured would be of one prompt: choose another model or, of your own code, pad on the left, with a "
        "mask and positions that leave padding out.",
    )


@torch.inference_mode()
def _unpadded(hf: PreTrainedModel, ids: Int[Tensor, "1 token"]) -> Float[Tensor, "1 vocabulary"]:
    return hf(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
