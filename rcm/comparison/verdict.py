"""What tuning changed in a family, in a word and in sentences with their evidence.

    coupling         the base already told harmful from harmless, along the direction that now decides: it was wired to
                     refusing
    representation   the base already told them apart, but along another direction than the one that now decides
    behaviour        neither: what tells them apart came with the tuning
    unchanged        the later model does not refuse significantly more of the harmful prompts
    open             not enough was measured to say

Whether two directions are the same is told by a transplant, where one was run: the base's mean difference, at the place
that the tuned model's run chose, either steers the tuned model or does not. Else their cosine there decides, against
that of shuffled labels (`rcm.comparison.cosines`).

Of several pairs of runs of the same two models each has its verdict. Where all say the same that is the verdict on the
two models; where they do not, it is open, and the evidence says which pair said what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rcm.comparison.changes import HARMFUL_REFUSED, Change
from rcm.comparison.names import DIRECTION_OUTCOME, LAYER, NOTHING, SELECTED, SEPARATION
from rcm.comparison.reading import Reading
from rcm.comparison.settings import listed
from rcm.comparison.transplants import Transplant, transplanted
from rcm.record.results import Curve, Scalar
from rcm.record.units import interval, known, percent, plain, sigmas

COUPLING, REPRESENTATION, BEHAVIOUR, UNCHANGED, OPEN = "coupling", "representation", "behaviour", "unchanged", "open"
IN_WORDS = {
    COUPLING: "Tuning wired a direction that was there before to refusing.",
    REPRESENTATION: "The base already told harmful from harmless, but what now decides is another direction.",
    BEHAVIOUR: "What tells harmful from harmless came with the tuning.",
    UNCHANGED: "Tuning did not make it refuse more.",
    OPEN: "Not enough was measured to say what tuning changed.",
}


DISAGREE = "Its runs do not agree on what tuning changed."


@dataclass(frozen=True)
class Verdict:
    """`value`: one of the words above; `evidence`: a sentence for each figure that it rests on; `agreed`: whether all
    pairs of runs said the same."""

    value: str
    evidence: Sequence[str]
    agreed: bool = True

    @property
    def sentence(self) -> str:
        return " ".join([IN_WORDS[self.value] if self.agreed else DISAGREE, *self.evidence])


def verdict(
    before: Reading, after: Reading, found: Sequence[Change], alike: Curve | None, brought: Sequence[Transplant]
) -> Verdict:
    """Of an earlier and a later run of a family; among `brought` there may be transplants between their models."""
    refused = next((one for one in found if one.label == HARMFUL_REFUSED), None)
    separation = before.scalar(SEPARATION)
    if refused is None or separation is None:
        return Verdict(OPEN, ())
    evidence = [_of_refusing(refused)]
    if not (refused.significant and refused.difference > 0):
        return Verdict(UNCHANGED, evidence)
    separates, how_far = _separates(separation)
    evidence.append(how_far)
    if not separates:
        return Verdict(BEHAVIOUR, evidence)
    same, sentences = _same_direction(before, after, alike, brought)
    evidence += sentences
    return Verdict(OPEN if same is None else COUPLING if same else REPRESENTATION, evidence)


def overall(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Of all pairs of runs; each under a name for people, such as "runs a and b (seed 0)".

    A pair of which too little was measured contradicts none: it is named, and has no say.
    """
    settled = {name: one for name, one in verdicts.items() if one.value != OPEN} or verdicts
    silent = [name for name in verdicts if name not in settled]
    left_out = [f"Too little was measured in {listed(silent)} to say."] if silent else []
    (first_name, first), *others = settled.items()
    if not others:
        return Verdict(first.value, [*first.evidence, *left_out])
    if all(one.value == first.value for _, one in others):
        agreement = f"All {len(settled)} pairs of runs say so; the figures that follow are those of {first_name}."
        return Verdict(first.value, [agreement, *first.evidence, *left_out])
    values = list(dict.fromkeys(one.value for one in settled.values()))
    names = {value: [name for name, one in settled.items() if one.value == value] for value in values}
    said_by = [f"{value.capitalize()}: {listed(names[value])}." for value in values]
    return Verdict(OPEN, [*said_by, *left_out], agreed=False)


def _of_refusing(change: Change) -> str:
    return (
        f"Of harmful prompts {percent(change.before)} were refused before, {percent(change.after)} after "
        f"(difference {interval(change.interval, percent)}; p = {plain(change.p)})."
    )


def _separates(separation: Scalar) -> tuple[bool, str]:
    """Whether the base's held-out separation lies, with its interval, above its null."""
    low = separation.interval[0] if separation.interval else float("nan")
    null = separation.null.value if separation.null is not None else float("nan")
    above = low > null
    return above, (
        f"The base separates them by {sigmas(separation.value)} ({interval(separation.interval, sigmas)}; null "
        f"{sigmas(null)}){'' if above else ', no more than chance'}."
    )


def _same_direction(
    before: Reading, after: Reading, alike: Curve | None, brought: Sequence[Transplant]
) -> tuple[bool | None, list[str]]:
    """Whether the base's direction is the one that decides; None where nothing tells. And what tells it."""
    there, back = transplanted(before, after, brought), transplanted(after, before, brought)
    cosine, null = (there.row["cosine"], there.row["cosine_null"]) if there else _cosine(alike, after)
    sentences = []
    if known(cosine):
        sentences.append(
            f"Where the tuned model decides, the two directions' cosine is {plain(cosine)} (null {plain(null)})."
        )
    if back:
        sentences.append(f"The tuned model's direction in the base {_rates(back)}.")
    if there:
        sentences.append(f"The base's direction in the tuned model {_rates(there)}.")
        return there.row["outcome"] != NOTHING, sentences
    if not known(cosine):
        cure = "Their directions cannot be compared: run both at one position, the later with a choice."
        return None, [*sentences, cure]
    return cosine > null, sentences


def _rates(one: Transplant) -> str:
    verbs = (("forces", "force"), ("suppresses", "suppress"))
    parts = [
        f"{verb} {percent(one.row[name])} (p = {plain(one.row[f'{name}_p'])} against controls)"
        for verb, name in verbs
        if known(one.row[name])
    ]
    return ", ".join(parts) or "nothing to turn over"


def _cosine(alike: Curve | None, after: Reading) -> tuple[float, float]:
    """At the place that the later run selected, with its null; NaN where it selected none."""
    layer, outcome = after.scalar(LAYER), after.outcome(DIRECTION_OUTCOME)
    if alike is None or layer is None or outcome is None or outcome.value != SELECTED:
        return float("nan"), float("nan")
    value, null = (line.y[int(layer.value)] for line in alike.lines)
    return value, null
