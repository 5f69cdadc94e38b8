"""Each prompt begins with as many beginning-of-sequence tokens as the model knows: one, or none."""

from itertools import takewhile

from rcm.checks.diagnosis import FAILED, PASSED, Diagnosis, Patient


def beginning(patient: Patient) -> Diagnosis:
    """A chat template that writes one, and a tokenizer that puts another before it, make two (a second one shifts every
    position, and attention rests on the first). Whether the model wants one, its tokenizer says of plain text."""
    tokenizer = patient.model.template.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None:
        return Diagnosis(beginning.__name__, "the model has no beginning-of-sequence token", PASSED, 0.0, 0.0, "tokens")
    wants = tokenizer("a")["input_ids"][:1] == [bos]
    counts = {sum(1 for _ in takewhile(lambda token: token == bos, row)) for row in patient.rows}
    fewest, most = min(counts), max(counts)
    measured = f"prompts begin with {most} beginning-of-sequence tokens ({tokenizer.bos_token!r})"
    if most > 1:
        then = "let either the chat template write it or the tokenizer add it, not both."
        return Diagnosis(beginning.__name__, measured, FAILED, float(most), 1.0, "tokens", then)
    if wants and fewest < 1:
        measured = f"prompts begin without {tokenizer.bos_token!r}, with which the tokenizer begins any text"
        then = (
            "write {{ bos_token }} at the beginning of the chat template, or lend it one (dataset.template=of:MODEL)."
        )
        return Diagnosis(beginning.__name__, measured, FAILED, float(fewest), 1.0, "tokens", then)
    return Diagnosis(beginning.__name__, measured, PASSED, float(most), 1.0, "tokens")
