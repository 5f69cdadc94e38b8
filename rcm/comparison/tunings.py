"""What tuning changed: an earlier model of a family and a later one, by all pairs of their runs.

Which runs make a pair is told in `rcm.comparison.pairing`; what stays alone is left out, with the reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rcm.comparison.changes import Change, changes
from rcm.comparison.cosines import cosines
from rcm.comparison.families import Family, LeftOut
from rcm.comparison.identity import seed_of, weights_of
from rcm.comparison.pairing import Pairing
from rcm.comparison.reading import Reading
from rcm.comparison.settings import differing, listed, shortened
from rcm.comparison.transplants import Transplant
from rcm.comparison.unpaired import unpaired
from rcm.comparison.verdict import Verdict, against_benign, overall, verdict
from rcm.errors import InputError
from rcm.record.results import Curve
from rcm.record.run import BENIGN


@dataclass(frozen=True)
class Pair:
    """An earlier and a later run of one family, on the same prompts and with the same seed: what differs, how alike
    their directions are, and what that means."""

    before: Reading
    after: Reading
    changes: Sequence[Change]
    cosines: Curve | None
    verdict: Verdict

    @property
    def seed(self) -> Any:
        return seed_of(self.before)

    @property
    def name(self) -> str:
        return f"runs {self.before.run.id} and {self.after.run.id} (seed {self.seed})"


@dataclass(frozen=True)
class Tuning:
    """A model and one of a later stage, by all pairs of their runs, of which there is at least one. What it says of
    changes and cosines is of the first."""

    pairs: Sequence[Pair]
    verdict: Verdict

    @property
    def name(self) -> str:
        names = [self.before.name, self.after.name]
        if names[0] == names[1]:
            names = [f"{one.name} ({one.stage})" for one in (self.before, self.after)]
        return " → ".join(names)

    @property
    def before(self) -> Reading:
        return self.pairs[0].before

    @property
    def after(self) -> Reading:
        return self.pairs[0].after

    @property
    def changes(self) -> Sequence[Change]:
        return self.pairs[0].changes

    @property
    def cosines(self) -> Curve | None:
        return self.pairs[0].cosines


def tunings(families: Sequence[Family], brought: Sequence[Transplant]) -> tuple[list[Tuning], list[LeftOut]]:
    """Of all families; and why runs of families with several stages are compared with none."""
    found: list[Tuning] = []
    left_out: list[LeftOut] = []
    for family in families:
        pairing = Pairing.of(family)
        for held in pairing.held:
            if pairs := [_pair(before, after, brought) for before, after in held.joined]:
                found.append(Tuning(pairs, overall({pair.name: pair.verdict for pair in pairs})))
        found = _against_benign(found)
        left_out += unpaired(family, pairing)
    return found, left_out


def _against_benign(found: Sequence[Tuning]) -> list[Tuning]:
    """Each tuning's verdict, held against that from its family's benign twin, where there is one."""
    benign = {weights_of(one.after): one for one in found if one.after.stage == BENIGN}
    from_benign = {
        weights_of(one.after): (benign[weights_of(one.before)], one)
        for one in found
        if weights_of(one.before) in benign
    }
    held: list[Tuning] = []
    for one in found:
        beside = from_benign.get(weights_of(one.after))
        if beside and weights_of(one.before) not in benign:
            of_benign, also = beside
            judged = against_benign(one.verdict, also.verdict, of_benign.verdict, of_benign.after.name)
            one = replace(one, verdict=judged)
        held.append(one)
    return held


def _pair(before: Reading, after: Reading, brought: Sequence[Transplant]) -> Pair:
    notes = list(_differences(before, after))
    found = changes(before, after)
    try:
        alike = cosines(before, after)
    except InputError as error:
        alike = None
        notes.append(str(error))
    judged = verdict(before, after, found, brought)
    return Pair(before, after, found, alike, replace(judged, evidence=[*judged.evidence, *notes]))


def _differences(before: Reading, after: Reading) -> Iterator[str]:
    found = [
        f"{name} ({shortened(values[0][1])} before, {shortened(values[1][1])} after)"
        for name, values in differing([before, after]).items()
    ]
    if found:
        yield f"The two runs did not measure alike: they differ in {listed(found)}."
