"""Warnings as the page shows them: what puts figures in doubt in the open; the rest folded where it is many."""

from collections.abc import Sequence
from dataclasses import dataclass

from rcm.comparison.settings import listed
from rcm.comparison.tunings import Tuning
from rcm.comparison.warnings import Doubt, Warned

MOST = 2  # in the open, of those that put no figure itself in doubt
NAMED = 4  # things that runs differ in, in the title of a folded group


@dataclass(frozen=True)
class Warnings:
    """Those that put the same in doubt; `title` stands where they are folded."""

    title: str
    warnings: Sequence[Warned]
    folded: bool


def groups(warnings: Sequence[Warned]) -> list[Warnings]:
    """The gravest first."""
    found: list[Warnings] = []
    for doubt in Doubt:
        own = [one for one in warnings if one.doubt is doubt]
        if own:
            found.append(Warnings(_title(doubt, own), own, doubt is not Doubt.FIGURES and len(own) > MOST))
    return found


def caveats(warnings: Sequence[Warned], tuning: Tuning) -> list[str]:
    """What stands beside a verdict: of everything that puts in doubt what its runs differ by."""
    return list(dict.fromkeys(one.caveat for one in warnings if one.parts(tuning.before, tuning.after)))


def _title(doubt: Doubt, own: Sequence[Warned]) -> str:
    title = f"{len(own)} {'reason' if len(own) == 1 else 'reasons'} to doubt {doubt.value}"
    about = [one.about for one in own if one.about]
    if not about:
        return f"{title}."
    rest = [f"{len(about) - NAMED} more"] if len(about) > NAMED else []
    return f"{title}: the compared runs differ in {listed([*about[:NAMED], *rest])}."
