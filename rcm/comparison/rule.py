"""What tuning changed: the words, and the rules by which one of them is said. Fixed before any model was measured.

    unchanged        the difference in harmful prompts refused lies, with its interval, within `MARGIN`
    behaviour        the earlier model did not tell harmful from harmless: at every place that was looked at, the upper
                     end of its held-out separation lies below `INDISTINCT` sigma
    coupling         what the later model's direction does to refusing is the work of its part along the earlier's:
                     that share lies certainly above `HALF`, and not certainly below 1 - `SOME`; and the earlier's own
                     direction does more than every vector with its cosine to the later's, or is as close to it as the
                     later's own refits
    representation   ... of the part across the earlier's: the share along it lies certainly below `HALF`, and not
                     certainly above `SOME`; and the earlier's does less than every refit of the later's, and lies
                     farther from it than every refit
    mixed            both shares lie certainly above `SOME`; and the earlier's lies farther from the later's than every
                     refit, so that what is across it is more than estimation noise
    open             anything else: not certainly `MARGIN` more is refused, the direction moves less than
                     `LEAST_EFFECT`, text does not confirm it, ablating and adding disagree, too few prompts, not
                     asked under one template, replies cut within thoughts, or not measured

Shares are Shapley's, from log-odds, for ablating on harmful and for adding on harmless prompts
(`rcm.transplant.shares`); both must say the same word. Error rates: `benchmarks/calibration.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rcm.record.units import known

COUPLING, REPRESENTATION, MIXED = "coupling", "representation", "mixed"
BEHAVIOUR, UNCHANGED, OPEN = "behaviour", "unchanged", "open"
MARGIN = 0.15  # of the harmful prompts
INDISTINCT = 1.0  # sigma
LEAST_EFFECT = 1.0  # nats of log-odds
NO_MORE = "does not do in text what no control does"
SOME, HALF = 0.2, 0.5  # of the own direction's effect
OPERATIONS = {"ablate": "ablating", "add": "adding"}
RULES = {
    UNCHANGED: f"Said where the difference in harmful prompts refused certainly lies within {MARGIN:.0%}.",
    BEHAVIOUR: "Said where the earlier model, at every place that was looked at, certainly separates harmful from "
    f"harmless prompts by less than {INDISTINCT:g} sigma.",
    COUPLING: f"Said where certainly more than {HALF:.0%} of the later direction's effect is the work of its part "
    "along the earlier's, ablating and adding, and neither geometry nor estimation noise says it as well.",
    REPRESENTATION: f"Said where certainly less than {HALF:.0%} of the later direction's effect is the work of its "
    "part along the earlier's, ablating and adding, and the earlier's does less than every refit of the later's.",
    MIXED: f"Said where certainly more than {SOME:.0%} of the later direction's effect is the work of either part, "
    "ablating and adding, and the two directions differ more than refits of one.",
    OPEN: "",
}


class Bounds(NamedTuple):
    """A value with its 95 % interval; NaN where it was not measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Parts:
    """What one operation on the later model's direction showed, as a row of `transplant/decomposition` has it."""

    own: Bounds
    along: Bounds
    other: float
    refits: tuple[float, float]
    alike: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """What the rules look at. `more_refused`: later less earlier, of harmful prompts. `separation`: of the earlier
    model at the place that it chose, `separation_null`: what chance reaches there; `most_separable`: the largest upper
    end over all places; NaN where not measured. `parts`: by operation; empty where no decomposition was made. `cosine`
    of the two directions, `refit_cosine`: the least of the later's own refits. `confirmed`: whether the later's own
    direction forces and suppresses in text beyond controls; None where that was not measured. `chosen`: whether the
    later model's run chose a direction by what it causes, if only the nearest miss. `same_template`: whether both were
    asked in the same words. `thinking`: whether what either refuses hangs on replies that were cut within thoughts."""

    more_refused: Bounds
    separation: Bounds
    separation_null: float
    most_separable: float
    parts: dict[str, Parts]
    cosine: float
    refit_cosine: float
    confirmed: bool | None
    chosen: bool = True
    same_template: bool = True
    thinking: bool = False


class Decision(NamedTuple):
    """The word, and why no other could be said where it is open."""

    word: str
    because: str = ""


def decided(found: Measured) -> Decision:
    """The first rule that holds."""
    if not found.same_template:
        return Decision(
            OPEN,
            "The two models were asked under different templates, so they read other words and decide at other tokens; "
            "run both with the same dataset.template, of:LATER (the later one's own, lent to the earlier) or plain.",
        )
    if found.thinking:
        return Decision(
            OPEN,
            "Replies were cut within a model's thoughts, and what it refuses hangs on them; run both with "
            "dataset.template=no_thinking.",
        )
    more = found.more_refused
    if not known(more.low):
        return Decision(OPEN, "How many harmful prompts either model refuses was not measured on enough prompts.")
    if more.low > -MARGIN and more.high < MARGIN:
        return Decision(UNCHANGED)
    if not more.low > MARGIN:
        return Decision(
            OPEN, f"That tuning made it refuse more, by {MARGIN:.0%} of the prompts or more, is not certain."
        )
    if found.most_separable < INDISTINCT:
        return Decision(BEHAVIOUR)
    if not found.separation.low > found.separation_null:
        why = "The earlier model neither certainly tells harmful from harmless, nor certainly does not."
        return Decision(OPEN, why)
    return _by_parts(found)


def _by_parts(found: Measured) -> Decision:
    if not found.chosen:
        return Decision(OPEN, "In the later model no direction was selected, so there is none to take apart.")
    if set(found.parts) != set(OPERATIONS):
        return Decision(OPEN, "The later model's direction was not decomposed along the earlier's; run a transplant.")
    small = [name for name, part in found.parts.items() if not part.own.low > LEAST_EFFECT]
    if small:
        verbs = " and ".join(OPERATIONS[name] for name in small)
        return Decision(
            OPEN, f"{verbs.capitalize()} the later model's direction does not certainly move refusing enough."
        )
    if found.confirmed is not True:
        why = "was not tried in text on enough prompts and controls" if found.confirmed is None else NO_MORE
        return Decision(OPEN, f"The later model's own direction {why}.")
    words = {name: _zone(part.along) for name, part in found.parts.items()}
    if len(set(words.values())) > 1:
        said = ", ".join(f"{name}: {word}" for name, word in words.items())
        return Decision(OPEN, f"Ablating and adding do not agree ({said}).")
    word = next(iter(words.values()))
    if word == OPEN:
        return Decision(OPEN, "The shares are not certain enough.")
    return _anchored(word, found)


def _zone(along: Bounds) -> str:
    """What the share of the part along the earlier's direction says by itself."""
    if not known(along.low):
        return OPEN
    if along.low > HALF and along.high >= 1 - SOME:
        return COUPLING
    if along.high < HALF and along.low <= SOME:
        return REPRESENTATION
    if along.low > SOME and along.high < 1 - SOME:
        return MIXED
    return OPEN


def _anchored(word: str, found: Measured) -> Decision:
    """The word, if neither geometry nor estimation noise says it as well."""
    parts: Sequence[Parts] = list(found.parts.values())
    as_close = found.cosine >= found.refit_cosine
    if word == COUPLING and not as_close and not all(part.other > part.alike[1] for part in parts):
        return Decision(
            OPEN, "The earlier's direction does no more than random vectors that are as close to the later's."
        )
    if word == REPRESENTATION and (as_close or not all(part.other < part.refits[0] for part in parts)):
        return Decision(
            OPEN, "The earlier's direction differs no more from the later's than the later's own refits do."
        )
    if word == MIXED and as_close:
        why = "What of the later's direction is across the earlier's is no more than the later's own refits show."
        return Decision(OPEN, why)
    return Decision(word)
