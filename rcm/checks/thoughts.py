"""The first token of a reply is the answer's, not a thought's."""

import torch

from rcm.checks.diagnosis import FAILED, PASSED, Diagnosis, Patient
from rcm.execution.decoding import replies
from rcm.models.template import THINK

LOOKED_AT = 4  # prompts of each class
TOKENS = 6  # as many as a tokenizer without a token for it may take to write `<think>`


def thoughts(patient: Patient) -> Diagnosis:
    """How many replies open with <think>; those are read on of which the first token may begin it."""
    name, template = thoughts.__name__, patient.model.template
    asked = [*patient.harmful[:LOOKED_AT], *patient.harmless[:LOOKED_AT]]
    first = torch.cat([logits[:LOOKED_AT].argmax(-1) for logits in patient.first_logits]).tolist()
    begun = [template.reply([token]) for token in first]
    unsure = [text for text, opening in zip(asked, begun, strict=True) if opening and THINK.startswith(opening[:7])]
    opened = sum(one.startswith(THINK) for one in replies(patient.model, unsure, TOKENS)) if unsure else 0
    share = opened / len(asked)
    closed = ", its thoughts being closed in the prompt" if template.closing else ""
    measured = f"{opened} of {len(asked)} replies open with {THINK}{closed}"
    if not opened:
        return Diagnosis(name, measured, PASSED, share, 0.0, "share")
    then = (
        "its first tokens say nothing of refusing: close its thoughts in the prompt with dataset.template=no_thinking."
    )
    return Diagnosis(name, measured, FAILED, share, 0.0, "share", then)
