"""What patching concludes, in one word (`WORDS`), and why, in sentences.

Where labels mean nothing, any component is critical in at most 5 % of runs (max-T). To be called `localised`,
critical heads must besides do more than all but 5 % of sets of other heads of their layers, on pairs that had no part
in choosing them. A set that was picked blindly does so more often than that where layers have few heads, as it lacks
rivals: in a tenth of cases with eight heads to a layer.
"""

from rcm.patching.effects import ALPHA, Effects
from rcm.record.results import Outcome, Scalar, Word, Words
from rcm.stats import ENOUGH

LOCALISED, UNSPECIFIC, LAYERS, NONE, NO_GAP, OPEN = "localised", "unspecific", "layers", "none", "no_gap", "open"
WORDS: Words = {
    LOCALISED: Word(
        "the critical heads do more than random sets of heads of their layers, on pairs that had no part in choosing "
        "them",
        "See which they are, and whether a circuit of them carries the behaviour (method circuit).",
    ),
    UNSPECIFIC: Word(
        "the critical heads do no more than random sets of heads of their layers",
        "Do not call them the place of refusing; look at whole layers, and at the residual stream.",
    ),
    LAYERS: Word(
        "only outputs of whole layers are critical, no head alone",
        "Look at MLPs and attention outputs, and at neurons (method neurons).",
    ),
    NONE: Word(
        "no output of a head or a layer is critical",
        "See where the residual stream comes to hold the decision; use more pairs.",
    ),
    NO_GAP: Word(
        "in no pair do the harmful and the harmless prompt differ enough in refusing for anything to be restored",
        "Use pairs that the model treats differently, or a smaller method.patching.min_gap.",
    ),
    OPEN: Word("there is too little to judge by", "Use more pairs, and more random sets."),
}


def concluded(effects: Effects, min_share: float, together: Scalar | None, paired: bool) -> Outcome:
    """Whether refusing is localised, in the critical components, the strongest first; and what nearly was.

    `together`: what the critical heads for refusing do on pairs that had no part in choosing them, with its null; None
    where that could not be measured. `paired`: whether pairs are twins.
    """
    critical = effects.critical(min_share)
    order = effects.strongest_first([i for i, one in enumerate(effects.components) if one.kind != "residual"])
    leading = [cell for cell in order if critical[cell]]
    towards = [cell for cell in leading if effects.share[cell] > 0]
    missed = [cell for cell in order[: order.index(leading[:6][-1]) if leading else 3] if not critical[cell]][:3]

    def named(cell: int, more: str = "") -> str:
        return f"{effects.components[cell]} ({effects.share[cell]:+.0%}{more})"

    said = ""
    if leading:
        against = f", {len(leading) - len(towards)} of them against refusing" if len(towards) < len(leading) else ""
        said = f"{len(leading)} critical components{against}; the strongest: {', '.join(map(named, leading[:6]))}."
    if missed:
        lacks = ", ".join(named(cell, f": {effects.lacking(cell, min_share)}") for cell in missed)
        said += f" Not critical, though among the strongest: {lacks}."
    if not paired:
        said += " Pairs are unmatched: prompts of like length, no twins."
    if not towards:
        word = NONE
        why = "No head, attention or MLP output for refusing exceeds both what swapped labels reach and min_share."
    elif all(effects.components[cell].kind != "head" for cell in towards):
        word, why = LAYERS, "No head alone is critical for refusing, but outputs of whole layers are."
    elif together is None:
        word, why = OPEN, "No validation pair has a gap to judge the critical heads on."
    else:
        word, why = judged(together)
    return Outcome("patching/outcome", word, f"{why} {said}".strip(), words=WORDS)


def judged(together: Scalar) -> tuple[str, str]:
    """The word, and why, for critical heads beside random sets of heads."""
    null = together.null
    if null is None or null.p is None or (null.draws or 0) < ENOUGH:
        return OPEN, f"There are fewer than {ENOUGH} random sets to judge the critical heads by."
    reached_by = f"random sets of heads of the same layers reach {null.value:+.0%} (p = {null.p:.2g})"
    held_out = f"on {together.n} validation pairs the critical heads together do {together.value:+.0%} of the gap"
    if together.value > 0 and null.p <= ALPHA:
        return LOCALISED, f"{held_out[0].upper()}{held_out[1:]}; {reached_by}."
    return UNSPECIFIC, f"{held_out[0].upper()}{held_out[1:]}, and no more than chance: {reached_by}."
