"""What tuning changed in a family, in a word and in sentences with their evidence.

The words, and the rules by which one of them is said, stand in `rcm.comparison.rule`; here they meet the figures of two
runs, and of a transplant of the earlier one's direction into the later one's model.

Of several pairs of runs of the same two models each has its verdict. Where all say the same that is the verdict on the
two models; where they do not, it is open, and the evidence says which pair said what. Where a family has a *benign*
twin, tuned alike with nothing to refuse, the verdict must be the same from there: else any tuning could have done it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rcm.comparison.changes import HARMFUL_REFUSED, Change
from rcm.comparison.names import (
    BEHAVIOUR_OUTCOME,
    DIRECTION_OUTCOME,
    NEAREST_MISS,
    SELECTED,
    SEPARABILITY,
    SEPARATION,
    STEERED,
    STEERING_OUTCOME,
    STILL_THINKING,
    UNSPECIFIC,
)
from rcm.comparison.reading import Reading
from rcm.comparison.rule import (
    BEHAVIOUR,
    COUPLING,
    MIXED,
    OPEN,
    OPERATIONS,
    REPRESENTATION,
    RULES,
    UNCHANGED,
    Bounds,
    Measured,
    Parts,
    decided,
)
from rcm.comparison.settings import listed
from rcm.comparison.transplants import Transplant, transplanted
from rcm.record.results import Outcome, Word, Words
from rcm.record.units import interval, known, percent, plain, sigmas

NAN = float("nan")
UNMEASURED = Bounds(NAN, NAN, NAN)
IN_WORDS = {
    COUPLING: "Tuning wired a direction that was there before to refusing.",
    REPRESENTATION: "The base already told harmful from harmless, but what now decides is another direction.",
    MIXED: "What now decides is in part a direction that was there before, and in part another.",
    BEHAVIOUR: "What tells harmful from harmless came with the tuning.",
    UNCHANGED: "Tuning did not change how much it refuses.",
    OPEN: "Nothing is concluded about what tuning changed.",
}
NEXT = {
    COUPLING: "See whether it holds against a benign twin, and for another seed of training.",
    REPRESENTATION: "Compare the two directions layer by layer, and the circuits.",
    MIXED: "See the shares of either part, ablating and adding.",
    BEHAVIOUR: "See over checkpoints which came first: telling apart, or refusing.",
    UNCHANGED: "Nothing to explain here; a benign twin should read so.",
    OPEN: "Read the reason beside it: it names what was not measured, or what disagrees.",
}
WORDS: Words = {word: Word(said.removesuffix("."), NEXT[word]) for word, said in IN_WORDS.items()}
MISSED = "The later model's direction is a nearest miss: it passes not every filter, and misses them by least."
DISAGREE = "Its runs do not agree on what tuning changed."


@dataclass(frozen=True)
class Verdict:
    """`value`: one of the words above; `evidence`: a sentence for each figure that it rests on; `agreed`: whether all
    pairs of runs said the same."""

    value: str
    evidence: Sequence[str]
    agreed: bool = True

    @property
    def said(self) -> str:
        """The value in a sentence."""
        return IN_WORDS[self.value] if self.agreed else DISAGREE

    @property
    def sentence(self) -> str:
        return " ".join([self.said, *self.evidence])


def verdict(before: Reading, after: Reading, found: Sequence[Change], brought: Sequence[Transplant]) -> Verdict:
    """Of an earlier and a later run of a family; among `brought` there may be a transplant from the one's model into
    the other's."""
    there = transplanted(before, after, brought)
    measured = _measured(before, after, found, there)
    decision = decided(measured)
    outcome = after.outcome(DIRECTION_OUTCOME)
    missed = MISSED if outcome is not None and outcome.value == NEAREST_MISS else ""
    evidence = [RULES[decision.word], decision.because, missed, *_evidence(measured, found, there)]
    return Verdict(decision.word, [sentence for sentence in evidence if sentence])


def against_benign(judged: Verdict, from_benign: Verdict, of_benign: Verdict, name: str) -> Verdict:
    """The verdict on a tuning where a benign twin called `name` stands beside it: what is said from the benign twin,
    and what of the benign twin itself, must not contradict it."""
    if judged.value in (OPEN, UNCHANGED):
        return judged
    if from_benign.value != judged.value:
        why = (
            f"Held against {name}, tuned alike with nothing to refuse, it is {from_benign.value}: nothing is concluded."
        )
        return replace(judged, value=OPEN, evidence=[f"From the base it is {judged.value}.", why, *judged.evidence])
    if of_benign.value != UNCHANGED:
        why = f"What the benign tuning of {name} changed is {of_benign.value}: tuning alone may have done it."
        return replace(judged, value=OPEN, evidence=[f"From the base it is {judged.value}.", why, *judged.evidence])
    same = f"It is the same held against {name}, tuned alike with nothing to refuse, which is unchanged itself."
    return replace(judged, evidence=[same, *judged.evidence])


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


def _measured(before: Reading, after: Reading, found: Sequence[Change], there: Transplant | None) -> Measured:
    refused = next((one for one in found if one.label == HARMFUL_REFUSED), None)
    separation, outcome = before.scalar(SEPARATION), after.outcome(DIRECTION_OUTCOME)
    rows = there.parts if there else {}
    any_row = next(iter(rows.values()), {})
    return Measured(
        Bounds(refused.difference, *refused.interval) if refused else UNMEASURED,
        Bounds(separation.value, *(separation.interval or (NAN, NAN))) if separation else UNMEASURED,
        separation.null.value if separation and separation.null else NAN,
        max((_figure(row, "separation_high") for row in before.rows(SEPARABILITY)), default=NAN),
        {operation: _parts(row) for operation, row in rows.items()},
        _figure(any_row, "cosine"),
        _figure(any_row, "refit_cosine"),
        _confirmed(after),
        outcome is None or outcome.value in (SELECTED, NEAREST_MISS),
        _same_template(before, after),
        any(one is not None and one.value == STILL_THINKING for one in map(_behaviour, (before, after))),
    )


def _behaviour(reading: Reading) -> Outcome | None:
    return reading.outcome(BEHAVIOUR_OUTCOME)


def _same_template(before: Reading, after: Reading) -> bool:
    """Not known of runs that stored no direction; they decide nothing about it."""
    digests = [reading.weights.get("template_hash") for reading in (before, after)]
    return None in digests or digests[0] == digests[1]


def _parts(row: Mapping[str, Any]) -> Parts:
    own, along = (Bounds(*(_figure(row, f"{name}{end}") for end in ("", "_low", "_high"))) for name in ("own", "along"))
    refits, alike = ((_figure(row, f"{name}_least"), _figure(row, f"{name}_most")) for name in ("refits", "alike"))
    return Parts(own, along, _figure(row, "other"), refits, alike)


def _figure(row: Mapping[str, Any], column: str) -> float:
    value = row.get(column)
    return NAN if value is None else float(value)


def _confirmed(after: Reading) -> bool | None:
    """Whether the later model's own direction forces and suppresses in text what no control does; None where that was
    not tried, or on too few prompts or controls."""
    outcome = after.outcome(STEERING_OUTCOME)
    return {STEERED: True, UNSPECIFIC: False}.get(outcome.value) if outcome else None


def _evidence(measured: Measured, found: Sequence[Change], there: Transplant | None) -> Iterator[str]:
    for change in found:
        if change.label == HARMFUL_REFUSED:
            yield (
                f"Of harmful prompts {percent(change.before)} were refused before, {percent(change.after)} after "
                f"(difference {interval(change.interval, percent)}; p = {plain(change.p)})."
            )
    if known(measured.separation.value):
        separation = measured.separation
        yield (
            f"The earlier model separates them by {sigmas(separation.value)} "
            f"({interval(separation[1:], sigmas)}; null {sigmas(measured.separation_null)})."
        )
    if known(measured.most_separable):
        yield f"At no place does it separate them by more than {sigmas(measured.most_separable)} (upper end)."
    if there and measured.parts:
        yield (
            f"Where the later model decides, the cosine of the two directions is {plain(measured.cosine)} (its own "
            f"refits: {plain(measured.refit_cosine)} or more)."
        )
        for operation, part in measured.parts.items():
            yield _of_parts(operation, part, there.parts[operation])


def _of_parts(operation: str, part: Parts, row: Mapping[str, Any]) -> str:
    verb = OPERATIONS[operation].capitalize()
    whole = "the plane of both directions" if operation == "ablate" else "the later's own direction"
    shares = f"no share, its effect not being certain ({interval(part.own[1:], plain)})"
    if known(part.along.value):
        shares = (
            f"{percent(part.along.value)} ({interval(part.along[1:], percent)}) of it the work of the part along the "
            "earlier's"
        )
    return (
        f"{verb} {whole} moves refusing by {plain(part.own.value)} nats "
        f"({interval(part.own[1:], plain)}; {plain(_figure(row, 'n'))} prompts), {shares}; the earlier's alone by "
        f"{plain(part.other)}, refits of the own by {plain(part.refits[0])} to {plain(part.refits[1])}, random vectors "
        f"as close to it as the earlier's by {plain(part.alike[0])} to {plain(part.alike[1])} "
        f"({plain(_figure(row, 'draws'))} each)."
    )
