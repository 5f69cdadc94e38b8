"""All prompts end in the same tokens, and so do those of models that are to be compared.

Directions and patches live at these tokens. Where two models end an instruction in other ones, or in as many more, the
same position is another place in each, and what they differ by is not what they learnt.
"""

from rcm.checks.diagnosis import FAILED, PASSED, Diagnosis, Patient
from rcm.models.template import Template


def end_of_instruction(patient: Patient) -> Diagnosis:
    """How many prompts, and how many models, end otherwise."""
    name, template = end_of_instruction.__name__, patient.model.template
    end = template.end_of_instruction
    strange = sum(tuple(row[-len(end) :]) != end for row in patient.rows)
    own = pieces(template)
    others = [other for other, theirs in patient.against if list(theirs) != own]
    measured = f"{len(patient.rows)} prompts end in {len(end)} tokens, {''.join(own)!r}"
    if strange:
        then = "drop control characters from the ends of the prompts."
        return Diagnosis(name, f"{strange} of {measured}", FAILED, float(strange), 0.0, "prompts", then)
    if end[-1:] == (template.tokenizer.eos_token_id,):
        then = "let neither the tokenizer nor the chat template end the text there: what follows is no reply to it."
        measured += ", the last of which ends the text"
        return Diagnosis(name, measured, FAILED, float(len(patient.rows)), 0.0, "prompts", then)
    if others:
        theirs = next(theirs for other, theirs in patient.against if other == others[0])
        measured += f", those of {others[0]} in {len(theirs)}, {''.join(theirs)!r}"
        then = f"ask both in one template (dataset.template=of:{others[0]})."
        if "".join(theirs) == "".join(own):  # each tokenizer in its own tokens
            then = "compare them at the last position alone (method.direction.positions=[-1])."
        return Diagnosis(name, measured, FAILED, float(len(others)), 0.0, "models", then)
    as_in = f", as in {', '.join(other for other, _ in patient.against)}" if patient.against else ""
    return Diagnosis(name, measured + as_in, PASSED, 0.0, 0.0, "prompts")


def pieces(template: Template) -> list[str]:
    """The end-of-instruction tokens as the tokenizer writes them, which tells tokens apart that read alike."""
    return [str(template.tokenizer.convert_ids_to_tokens(token)) for token in template.end_of_instruction]
