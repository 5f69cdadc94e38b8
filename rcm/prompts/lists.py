"""Prompts that their user has as lists in Python, divided as a table of prompts is."""

from collections.abc import Sequence
from typing import Any

from rcm.errors import InputError
from rcm.prompts.division import Item, divide
from rcm.prompts.split import Part, Prompt, Split, checked, first
from rcm.stats import FEWEST

PARTS = ("train", "validation", "test")
SOURCE = "The lists of prompts"


def divided(
    harmful: Sequence[Any],
    harmless: Sequence[Any],
    *,
    paired: bool = False,
    seed: int = 0,
    template: str = "chat",
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> Split:
    """Prompts as texts, or as (text, category), in three parts, 3 : 1 : 1, the same for the same lists and seed; near
    duplicates stay together (`rcm.prompts.division`).

    `paired`: `harmful[i]` and `harmless[i]` are twins. `train`, `validation`, `test`: how many of each class, at most
    as many as there are; None is all of the part. Raises InputError for what is no prompt, and where a part has fewer
    of a class than any conclusion needs (`rcm.stats.FEWEST`).
    """
    sides = [_prompts(harmful, "harmful"), _prompts(harmless, "harmless")]
    if paired and len(sides[0]) != len(sides[1]):
        raise InputError(
            f"There are {len(sides[0])} harmful and {len(sides[1])} harmless prompts; pair all, or drop paired=True."
        )
    if paired:
        pairs = zip(*sides, strict=True)
        division = divide([Item(a.category, (a.text, b.text)) for a, b in pairs], seed)
        divisions = [division, division]
    else:
        divisions = [divide([Item(one.category, (one.text,)) for one in side], seed) for side in sides]
    sizes = dict(zip(PARTS, (train, validation, test), strict=True))
    parts = {
        name: Part(
            *(
                first(tuple(side[i] for i in getattr(division, name)), n, name, SOURCE)
                for side, division in zip(sides, divisions, strict=True)
            )
        )
        for name, n in sizes.items()
    }
    for name, part in parts.items():
        for kind, prompts in part._asdict().items():
            if len(prompts) < FEWEST:
                given = len(sides[0 if kind == "harmful" else 1])
                raise InputError(
                    f"Of {given} {kind} prompts, divided 3 : 1 : 1 with near duplicates together, {len(prompts)} are "
                    f"for {name}, and nothing can be concluded from fewer than {FEWEST}; give at least {5 * FEWEST} "
                    "unlike ones of each class."
                )
    split = Split(parts["train"], parts["validation"], parts["test"], template=template, paired=paired)
    return checked(split, SOURCE)


def _prompts(given: Sequence[Any], kind: str) -> list[Prompt]:
    """Each checked, in order."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(f"{kind} is a {type(given).__name__}; give a list of texts.")
    return [_prompt(one, f"{kind}[{number}]") for number, one in enumerate(given)]


def _prompt(given: Any, place: str) -> Prompt:
    match given:
        case str():
            return Prompt(given.strip(), "")
        case (str() as text, str() as category):
            return Prompt(text.strip(), category)
        case _:
            raise InputError(f"{place} is a {type(given).__name__}; give a text, or (text, category).")
