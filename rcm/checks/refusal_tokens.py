"""The tokens that stand for refusing do open replies.

Two tokens may both read "I" and only one of them ever be written; the log-odds of the other one are noise.
"""

from rcm.checks.diagnosis import FAILED, NOTED, PASSED, Diagnosis, Patient

OCCURS = 0.01  # the least probability, on any prompt, of a token that opens replies
SHOWN = 3


def refusal_tokens(patient: Patient) -> Diagnosis:
    """Which tokens open replies to harmful prompts, how much of the probability the refusal tokens have there, and
    which of those that the settings fix never open any."""
    name, fixed = refusal_tokens.__name__, patient.model.refusal_tokens
    harmful, harmless = (logits.double().softmax(-1) for logits in patient.first_logits)
    mean = harmful.mean(0)
    first = ", ".join(f"{patient.shown(int(token))} {float(mean[token]):.0%}" for token in mean.topk(SHOWN).indices)
    tokens = fixed or patient.tokens or tuple(one.token for one in patient.openings)
    opens = f"replies to harmful prompts open with {first}"
    if not tokens:
        measured = f"{opens}; no token opens them clearly more often than those to harmless prompts"
        return Diagnosis(name, measured, NOTED, 0.0, unit="share")
    covered = float(mean[list(tokens)].sum())
    measured = f"{opens}; the refusal tokens ({', '.join(map(patient.shown, tokens))}) have {covered:.0%} of it there"
    never = [token for token in fixed or () if max(harmful[:, token].max(), harmless[:, token].max()) < OCCURS]
    if not never:
        return Diagnosis(name, measured, PASSED, 0.0, 0.0, "tokens that never occur")
    then = (
        f"{', '.join(map(patient.shown, never))} of model.refusal_tokens never opens a reply: name another, with or "
        "without a space before it, or let them be found (model.refusal_tokens=null)."
    )
    return Diagnosis(name, measured, FAILED, float(len(never)), 0.0, "tokens that never occur", then)
