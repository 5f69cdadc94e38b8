"""A reply ends where the model ends its turn."""

from rcm.checks.diagnosis import FAILED, NOTED, PASSED, Diagnosis, Patient
from rcm.execution.decoding import reply_tokens, stops

LOOKED_AT = 3  # prompts of each class


def end_of_turn(patient: Patient) -> Diagnosis:
    """The token that the chat template writes behind a reply stops generation, and no reply goes on after it; how many
    of some greedy replies run on to the limit."""
    name, model = end_of_turn.__name__, patient.model
    closing = model.template.end_of_reply
    ends = stops(model)
    asked = [*patient.harmful[:LOOKED_AT], *patient.harmless[:LOOKED_AT]]
    said = reply_tokens(model, asked, patient.reply, label="doctor: replies")
    run_on = sum(reply[-1] not in ends for reply in said)
    share, measured = run_on / len(said), f"{run_on} of {len(said)} replies run on to {patient.reply} tokens"
    if closing is not None and closing not in ends:
        measured = (
            f"{patient.shown(closing)}, which the chat template writes behind a reply, does not stop it; {measured}"
        )
        then = "replies go on into the next turn: name it in eos_token_id of the checkpoint's generation_config.json."
        return Diagnosis(name, measured, FAILED, share, unit="share", then=then)
    if run_on < len(said):
        return Diagnosis(name, measured, PASSED, share, unit="share")
    then = "it may only be wordy: where replies repeat themselves or write the next turn, see that the template is its."
    return Diagnosis(name, measured, NOTED, share, unit="share", then=then)
