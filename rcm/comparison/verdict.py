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
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rcm.comparison.changes import FIGURES, Change, changes, pairs
from rcm.comparison.cosines import cosines
from rcm.comparison.reading import Comparison, Reading
from rcm.comparison.transplants import Transplanted, transplanted
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


@dataclass(frozen=True)
class Judged:
    """`value`: one of the words above; `evidence`: a sentence for each figure that it rests on."""

    value: str
    evidence: Sequence[str]

    @property
    def said(self) -> str:
        return " ".join([IN_WORDS[self.value], *self.evidence])


def judged(
    before: Reading, after: Reading, found: Sequence[Change], alike: Curve | None, others: Sequence[Reading]
) -> Judged:
    """Of the earlier and the later run of a family; `others` may hold transplants between them."""
    refused = next((one for one in found if one.label == FIGURES[0].label), None)
    separation = before.scalar("direction/separation")
    if refused is None or separation is None:
        return Judged(OPEN, ())
    evidence = [_of_refusing(refused)]
    if not (refused.significant and refused.difference > 0):
        return Judged(UNCHANGED, evidence)
    separates, how_far = _separates(separation)
    evidence.append(how_far)
    if not separates:
        return Judged(BEHAVIOUR, evidence)
    same, told = _same_direction(before, after, alike, others)
    evidence += told
    return Judged(OPEN if same is None else COUPLING if same else REPRESENTATION, evidence)


def _of_refusing(change: Change) -> str:
    return (
        f"Of harmful prompts {percent(change.before)} were refused before, {percent(change.after)} after "
        f"(difference {interval(change.interval, percent)}; p = {plain(change.p)})."
    )


def _separates(separation: Scalar) -> tuple[bool, str]:
    """Whether the base's held-out separation lies, with its interval, above its null."""
    low = separation.interval[0] if separation.interval else float("nan")
    null = separation.null if separation.null is not None else float("nan")
    above = low > null
    return above, (
        f"The base separates them by {sigmas(separation.value)} ({interval(separation.interval, sigmas)}; null "
        f"{sigmas(null)}){'' if above else ', no more than chance'}."
    )


def _same_direction(
    before: Reading, after: Reading, alike: Curve | None, others: Sequence[Reading]
) -> tuple[bool | None, list[str]]:
    """Whether the base's direction is the one that decides; None where nothing tells. And what tells it."""
    there, back = transplanted(before, after, others), transplanted(after, before, others)
    cosine, null = (there["cosine"], there["cosine_null"]) if there else _cosine(alike, after)
    told = []
    if known(cosine):
        told.append(
            f"Where the tuned model decides, the two directions' cosine is {plain(cosine)} (null {plain(null)})."
        )
    if back:
        told.append(f"The tuned model's direction in the base {_rates(back)}.")
    if there:
        told.append(f"The base's direction in the tuned model {_rates(there)}.")
        return there["outcome"] != "nothing", told
    if not known(cosine):
        return None, [*told, "Their directions cannot be compared: run both at one position, the later with a choice."]
    return cosine > null, told


def _rates(one: Transplanted) -> str:
    told = (("forces", "force"), ("suppresses", "suppress"))
    parts = [
        f"{verb} {percent(one[name])} (p = {plain(one[f'{name}_p'])} against controls)"
        for verb, name in told
        if known(one[name])
    ]
    return ", ".join(parts) or "nothing to turn over"


def _cosine(alike: Curve | None, after: Reading) -> tuple[float, float]:
    """At the place that the later run selected, with its null; NaN where it selected none."""
    layer, outcome = after.scalar("direction/layer"), after.outcome("direction/outcome")
    if alike is None or layer is None or outcome is None or outcome.value != "selected":
        return float("nan"), float("nan")
    value, null = (line.y[int(layer.value)] for line in alike.lines)
    return value, null


@dataclass(frozen=True)
class Tuning:
    """A pair of runs of one family: what differs, how alike their directions are, and what that means."""

    before: Reading
    after: Reading
    changes: Sequence[Change]
    cosines: Curve | None
    judged: Judged

    @property
    def name(self) -> str:
        return f"{self.before.name} → {self.after.name}"


def tunings(comparison: Comparison) -> list[Tuning]:
    """The earliest stage of each family with every later one."""
    return [
        Tuning(before, after, found, alike, judged(before, after, found, alike, comparison.others))
        for family in comparison.families
        for before, after in pairs(family.readings)
        for found, alike in [(changes(before, after), cosines(before, after))]
    ]
