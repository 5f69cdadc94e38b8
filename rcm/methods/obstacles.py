"""Why a method that asks where refusing happens has nothing to ask."""

from rcm.directions.refusal_direction import TOO_FEW, RefusalDirection
from rcm.judges.behaviour import NO_REFUSAL, WORDS, RefusalBehaviour
from rcm.methods import Study
from rcm.record.results import Outcome


def nothing_refused(study: Study, name: str, why: str) -> Outcome | None:
    """The outcome of that name, where the model does not refuse, or no token opens its refusals; None where it does.

    `why`: the reason where the methods before have none.
    """
    found, behaviour = study[RefusalDirection], study.get(RefusalBehaviour)
    if behaviour is not None and not behaviour.refuses:
        return Outcome(name, behaviour.outcome.value, behaviour.outcome.because, False, words=behaviour.outcome.words)
    if found.refusal_tokens:
        return None
    few = found.outcome.value == TOO_FEW
    value, why = (TOO_FEW, found.outcome.because) if few else (NO_REFUSAL, why)
    return Outcome(name, value, why, complete=False, words=WORDS)
