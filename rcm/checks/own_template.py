"""Prompts are the tokens that the tokenizer's own chat template makes of them."""

from rcm.checks.diagnosis import FAILED, NOTED, PASSED, Diagnosis, Patient


def own_template(patient: Patient) -> Diagnosis:
    """Ours beside those of transformers (`apply_chat_template`), with today's date and thoughts as we pin them."""
    name, template = own_template.__name__, patient.model.template
    has = bool(template.tokenizer.chat_template)
    if template.kind == "plain":
        if not has:
            return Diagnosis(name, "asked in plain text, since the tokenizer has no chat template", PASSED)
        then = "drop dataset.template=plain, unless you compare it with a model that has no template."
        return Diagnosis(name, "asked in plain text, although it has a chat template", NOTED, then=then)
    texts = [*patient.harmful, *patient.harmless]
    if not has:
        return Diagnosis(name, f"asked in the template of {template.described}, since it has none of its own", NOTED)
    other = sum(template.tokens(text) != template.transformers_tokens(text) for text in texts)
    measured = f"{other} of {len(texts)} prompts are other tokens than by the tokenizer's own chat template"
    if template.lent and other:
        then = "drop dataset.template=of:MODEL, unless you compare it with a model that is asked in this one."
        return Diagnosis(name, measured, NOTED, float(other), 0.0, "prompts", then)
    then = "load the tokenizer anew, and see that nothing replaces its chat template."
    verdict = FAILED if other else PASSED
    return Diagnosis(name, measured, verdict, float(other), 0.0, "prompts", then if other else "")
