"""What of a completion may be kept.

rcm measures refusal; it does not collect what a model says when it does not refuse. Every reply to a harmful prompt is
cut to its opening words before it reaches the disk, whatever a judge says of it (some take "Sure, here is the plan;
mind that it is illegal" for a refusal), unless someone asks for the whole with `redact=false` of a method.
"""

from rcm.judges.base import Verdict
from rcm.prompts import Prompt
from rcm.record.transcripts import CUT

OPENING_WORDS = 8
OPENING_CHARACTERS = 80  # for text that has no spaces, such as Chinese


def kept(completion: str, *, harmful: bool, redact: bool) -> str:
    """The completion as it may be stored: whole, or its opening words and a mark that it goes on."""
    if not (redact and harmful):
        return completion
    opening = " ".join(completion.split()[:OPENING_WORDS])[:OPENING_CHARACTERS]
    return completion if len(opening) >= len(completion.strip()) else f"{opening} {CUT}"


def transcript(kind: str, prompt: Prompt, completion: str, verdict: Verdict, *, redact: bool) -> dict[str, str]:
    """One row for the record; `kind` is harmful, harmless or lookalike."""
    return {
        "kind": kind,
        "category": prompt.category,
        "prompt": prompt.text,
        "completion": kept(completion, harmful=kind == "harmful", redact=redact),
        "verdict": verdict.value,
    }
