"""What the trial of a circuit concludes, in one word (`WORDS`), and why, in sentences.

A circuit that was picked blindly, with as many nodes of each layer, carries more than all but 5 % of its like in one
of twenty cases, whatever the model; so `circuit` and `weak` come to pass by chance at most so often.
"""

from rcm.circuits.trial import OF, Trial
from rcm.record.results import Outcome, Word, Words
from rcm.stats import ENOUGH, FEWEST

CIRCUIT, WEAK, UNSPECIFIC, NO_GAP, OPEN = "circuit", "weak", "unspecific", "no_gap", "open"
MAJORITY = 0.5  # of the behaviour, which a circuit certainly carries
ALPHA = 0.05
WORDS: Words = {
    CIRCUIT: Word(
        "on pairs that had no part in choosing it, it does certainly more than half of what the model does, the rest "
        f"certainly less than half, and {OF} carry less",
        "See which of the five tests it fails, and try it on other prompts before you call it the mechanism.",
    ),
    WEAK: Word(
        f"{OF} carry less, but it does not certainly do more than half, or what is left without it is not certainly "
        "less",
        "Use more pairs, or a larger method.circuit.share.",
    ),
    UNSPECIFIC: Word(
        f"{OF} carry as much: it shows how large a circuit is, not which",
        "Do not read its nodes as the place of refusing.",
    ),
    NO_GAP: Word(
        "there is nothing to be carried: at the last token the model does not certainly refuse more than with all "
        "heads and MLPs ablated",
        "Use pairs that the model treats differently.",
    ),
    OPEN: Word("there is too little to judge by", "Use more test pairs, and more random circuits."),
}


def concluded(size: int, nodes: int, tried: Trial) -> Outcome:
    """Of a circuit of so many of all nodes."""
    word, why = _judged(size, nodes, tried)
    said = f"All of it at the last token, on {len(tried.kept)} test pairs."
    if word in (CIRCUIT, WEAK, UNSPECIFIC):
        failed = [name for name, one in tried.tests().items() if not one.holds]
        said += f" Of the five tests of a circuit it {'fails ' + ', '.join(failed) if failed else 'fails none'}."
    return Outcome("circuit/outcome", word, f"{why} {said}", complete=word != NO_GAP, words=WORDS)


def _judged(size: int, nodes: int, tried: Trial) -> tuple[str, str]:
    if len(tried.kept) < FEWEST:
        return OPEN, f"{len(tried.kept)} test pairs are too few to judge a circuit on; {FEWEST} would do."
    if not tried.has_gap:
        return NO_GAP, "On held-out pairs the model does not certainly refuse more than with all nodes ablated."
    null, carried = tried.null, tried.carried
    if null is None or null.p is None or (null.draws or 0) < ENOUGH:
        return OPEN, f"There are fewer than {ENOUGH} random circuits to judge it by."
    beside = f"{OF} carry up to {null.value:.0%} (p = {null.p:.2g})"
    alone, left = f"{tried.sufficient.value:.0%}", f"{tried.left.value:.0%}"
    does = f"{size} of {nodes} heads and MLPs alone do {alone} of what the model does"
    figures = f"{does}, without them {left} is left; {beside}."
    if null.p > ALPHA:
        return UNSPECIFIC, figures
    return (CIRCUIT if carried.low > MAJORITY else WEAK), figures
