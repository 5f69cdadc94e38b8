"""Exchanging components by rows, all in one pass, gives what one pass for each gives."""

from rcm.checks.diagnosis import FAILED, NOTED, PASSED, Diagnosis, Patient


def rows(patient: Patient) -> Diagnosis:
    """On three random sets of components of the pair whose lengths differ most (`rcm.execution.engine`)."""
    name, engine = rows.__name__, patient.engine
    unit = "of a logit"
    if engine.path == "rows":
        measured = f"all components in one pass: {engine.reason}, of which {patient.tolerance:g} are allowed"
        return Diagnosis(name, measured, PASSED, engine.error, unit=unit)
    then = "patching takes one pass for each component: choose fewer pairs (method.patching.pairs=24)."
    measured = f"one pass for each component: {engine.reason}"
    verdict = NOTED if engine.error is None else FAILED
    return Diagnosis(name, measured, verdict, engine.error, unit=unit, then=then)
