"""How the model treats the prompts of a part: what it is about to do with each, by its log-odds of refusing.

Filtered prompts differ from model to model, so only what intervenes takes them; what is read takes all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from rcm.prompts import Part, texts
from rcm.record.results import Column, Table
from rcm.stats import FEWEST


class Side(NamedTuple):
    """The prompts of a class, and the log-odds of opening the reply with a refusal token."""

    prompts: list[str]
    log_odds: Float[Tensor, " prompt"]

    def where(self, mask: Bool[Tensor, " prompt"]) -> "Side":
        """Only the prompts where the mask is true."""
        return Side([one for one, keep in zip(self.prompts, mask.tolist(), strict=True) if keep], self.log_odds[mask])


class Treated(NamedTuple):
    """Both classes of one part of the prompts."""

    harmful: Side
    harmless: Side

    @classmethod
    def of(cls, part: Part, log_odds: Sequence[Tensor]) -> "Treated":
        return cls(*(Side(texts(side), odds) for side, odds in zip(part, log_odds, strict=True)))

    def labelled(self) -> tuple[Bool[Tensor, " _"], Bool[Tensor, " _"]]:
        """Which prompts the model treats as their label says: refusal log-odds above zero on harmful, below on
        harmless."""
        return self.harmful.log_odds > 0, self.harmless.log_odds < 0

    def as_labelled(self) -> "Treated":
        """Those alone."""
        return Treated(*(side.where(mask) for side, mask in zip(self, self.labelled(), strict=True)))

    def first(self, n: int | None) -> "Treated":
        """As many prompts of each class; None is all."""
        return Treated(*(Side(side.prompts[:n], side.log_odds[:n]) for side in self))

    def too_few(self, part: str) -> str:
        """What to do where a class has fewer prompts than an interval needs; empty where it has enough."""
        sides = [f"{len(side.prompts)} {kind}" for kind, side in self._asdict().items() if len(side.prompts) < FEWEST]
        if not sides:
            return ""
        option = "train" if part == "training" else part
        return f"Too few {part} prompts ({', '.join(sides)}); use at least {FEWEST} of a class (dataset.{option})."


def kept(parts: Mapping[str, Treated], filtered: bool) -> Table:
    """How many prompts of each part, by its name, are treated as labelled; of all of them. `filtered`: whether those
    alone are intervened on."""
    rows = [
        (name, kind, int(mask.sum()), len(side.prompts))
        for name, every in parts.items()
        for (kind, side), mask in zip(every._asdict().items(), every.labelled(), strict=True)
    ]
    used = "Directions are fitted to, and scored on, those alone." if filtered else "Nothing was filtered by it."
    shown = [
        Column("part", "part"),
        Column("kind", "prompts"),
        Column("as_labelled", "treated as labelled", "count"),
        Column("prompts", "of", "count"),
    ]
    return Table(
        "direction/kept",
        ("part", "kind", "as_labelled", "prompts"),
        rows,
        "prompts treated as labelled",
        f"Harmful ones about to be refused, harmless ones about to be answered. {used} What is readable is of all.",
        shown,
    )
