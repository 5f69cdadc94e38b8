"""Whether a model refuses at all: what the method `behaviour` finds, and later ones ask for."""

from dataclasses import dataclass

from rcm.record.results import Outcome

REFUSAL, NO_REFUSAL, INDISCRIMINATE = "refusal", "no_refusal_behaviour", "indiscriminate_refusal"


@dataclass(frozen=True)
class RefusalBehaviour:
    """The outcome is one of the three words above. Localising a behaviour that is not there finds noise."""

    outcome: Outcome

    @property
    def refuses(self) -> bool:
        """Whether it refuses harmful prompts, and those rather than any."""
        return self.outcome.value == REFUSAL
