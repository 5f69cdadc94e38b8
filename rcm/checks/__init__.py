"""Whether what is measured on a model is the model's own: one file for each check, with what each measures and allows.

patient = Patient.of(model, prompts, seed=0)
diagnoses(ALL, patient)                               # a Diagnosis of each, also where one breaks
quickly_checked(model, prompts, lengths, seed=0)      # what every run makes sure of first

Checks of the prompts need the tokenizer alone, those of passes the weights. `FIRST` are those without which no pass
means anything: where one fails, the checks of passes are not tried.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rcm.checks.beginning import beginning
from rcm.checks.bridge import bridge
from rcm.checks.causal import causal
from rcm.checks.diagnosis import FAILED, NOT_TRIED, Check, Diagnosis, Patient
from rcm.checks.end_of_instruction import end_of_instruction
from rcm.checks.end_of_turn import end_of_turn
from rcm.checks.hooks import hooks
from rcm.checks.layers import layers
from rcm.checks.noise import noise
from rcm.checks.own_template import own_template
from rcm.checks.padding import padding
from rcm.checks.patched import patched
from rcm.checks.refusal_tokens import refusal_tokens
from rcm.checks.rows import rows
from rcm.checks.thoughts import thoughts
from rcm.errors import InputError, first_sentence
from rcm.execution.self_checks import BROKEN, self_checks
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.results import Table

__all__ = ["ALL", "QUICK", "Diagnosis", "Patient", "diagnoses", "quickly_checked"]

log = logging.getLogger(__name__)

PROMPTS: tuple[Check, ...] = (beginning, end_of_instruction, own_template)
FIRST: tuple[Check, ...] = (padding, causal, hooks)
PASSES: tuple[Check, ...] = (
    *(thoughts, refusal_tokens, layers, rows, patched, bridge, end_of_turn),
    noise,
)
QUICK = (*PROMPTS, hooks, thoughts)  # beside what `rcm.execution.self_checks` looks at in every run
ALL = (*PROMPTS, *FIRST, *PASSES)
QUICKLY = 4  # prompts of each class are looked at before every run


def diagnoses(checks: Iterable[Check], patient: Patient) -> Iterator[Diagnosis]:
    """What each check finds. One that cannot be made says why, and is neither passed nor failed."""
    broken = ""
    for check in checks:
        name = check.__name__
        if broken and check in PASSES:
            yield Diagnosis(name, f"not tried, since {broken} failed", NOT_TRIED)
            continue
        try:
            found = check(patient)
        except (InputError, *BROKEN) as error:
            why = f"{'' if isinstance(error, InputError) else f'{type(error).__name__}: '}{first_sentence(error)}"
            found = Diagnosis(name, f"could not be made: {why}", NOT_TRIED)
        if found.verdict == FAILED and check in FIRST:
            broken = name
        yield found


def quickly_checked(model: LoadedModel, prompts: Split, lengths: Sequence[int], seed: int) -> Table:
    """What every run makes sure of first, for prompts of these lengths with what is to be said; raises InputError where
    what is measured would not be the model's. A model that thinks is warned of: its replies can be judged, only its
    first tokens say nothing of refusing."""
    table = self_checks(model, lengths)
    patient = Patient(model, prompts.test.first(QUICKLY), prompts.paired, seed)
    found = list(diagnoses(QUICK, patient))
    for one in found:
        if one.verdict == FAILED and one.check != thoughts.__name__:
            raise InputError(f"{patient.name} is not measured: {one.sentence}")
        if one.verdict == FAILED:
            log.warning("%s: %s", patient.name, one.sentence)
    return replace(table, rows=[*table.rows, *((one.check.replace("_", " "), one.sentence, None) for one in found)])
