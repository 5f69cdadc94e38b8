"""Every word is said where its rule holds, and none where a part of it fails."""

from dataclasses import replace

import pytest

from rcm.comparison.rule import (
    BEHAVIOUR,
    COUPLING,
    MIXED,
    OPEN,
    REPRESENTATION,
    UNCHANGED,
    Bounds,
    Measured,
    Parts,
    decided,
)

NAN = float("nan")


def parts(low: float, high: float, other: float = 5.5, own: float = 6.0) -> Parts:
    """Shares within these ends; refits do 5 to 6 nats, random vectors as close 3 to 5.2."""
    return Parts(Bounds(own, own - 1, own + 1), Bounds((low + high) / 2, low, high), other, (5.0, 6.0), (3.0, 5.2))


def both(*arguments: float, **figures: float) -> dict[str, Parts]:
    return {name: parts(*arguments, **figures) for name in ("ablate", "add")}


REFUSES_MORE = Measured(
    more_refused=Bounds(0.7, 0.6, 0.8),
    separation=Bounds(2.0, 1.5, 2.5),
    separation_null=0.6,
    most_separable=2.5,
    parts=both(0.9, 1.1),
    cosine=0.96,
    refit_cosine=0.94,
    confirmed=True,
)
NEW = replace(REFUSES_MORE, parts=both(-0.1, 0.1, other=0.5), cosine=0.8)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        (COUPLING, REFUSES_MORE),
        # Less close than refits, and yet it does more than any vector as close as it.
        (COUPLING, replace(REFUSES_MORE, cosine=0.9)),
        (REPRESENTATION, NEW),
        (MIXED, replace(REFUSES_MORE, parts=both(0.4, 0.6, other=3.0), cosine=0.7)),
        (BEHAVIOUR, replace(NEW, separation=Bounds(0.2, -0.2, 0.6), most_separable=0.9)),
        (UNCHANGED, replace(REFUSES_MORE, more_refused=Bounds(0.02, -0.1, 0.12))),
    ],
)
def test_the_word(word: str, found: Measured) -> None:
    assert decided(found) == (word, "")


@pytest.mark.parametrize(
    ("found", "because"),
    [
        (replace(REFUSES_MORE, same_template=False), "under different templates"),
        (replace(REFUSES_MORE, thinking=True), "cut within a model's thoughts"),
        (replace(REFUSES_MORE, thinking=True, more_refused=Bounds(0.02, -0.1, 0.12)), "cut within a model's thoughts"),
        (replace(REFUSES_MORE, more_refused=Bounds(NAN, NAN, NAN)), "not measured on enough prompts"),
        (replace(REFUSES_MORE, more_refused=Bounds(0.2, 0.1, 0.3)), "is not certain"),
        (replace(REFUSES_MORE, more_refused=Bounds(-0.7, -0.8, -0.6)), "is not certain"),
        (replace(REFUSES_MORE, separation=Bounds(0.9, 0.5, 1.3)), "neither certainly tells"),
        (replace(REFUSES_MORE, separation=Bounds(NAN, NAN, NAN)), "neither certainly tells"),
        (replace(REFUSES_MORE, parts={}), "was not decomposed"),
        (replace(REFUSES_MORE, parts={}, chosen=False), "no direction was selected"),
        (replace(REFUSES_MORE, parts={"add": parts(0.9, 1.1)}), "was not decomposed"),
        (replace(REFUSES_MORE, parts=both(0.9, 1.1, own=1.5)), "Ablating and adding the later model's direction"),
        (replace(REFUSES_MORE, confirmed=None), "was not tried"),
        (replace(REFUSES_MORE, confirmed=False), "does not do in text"),
        (replace(REFUSES_MORE, parts={"ablate": parts(0.9, 1.1), "add": parts(0.0, 0.1)}), "do not agree"),
        (replace(REFUSES_MORE, parts=both(0.3, 1.0)), "not certain enough"),
        (replace(REFUSES_MORE, parts=both(NAN, NAN)), "not certain enough"),
        # A vector as close by chance would do as much.
        (replace(REFUSES_MORE, cosine=0.9, parts=both(0.9, 1.1, other=5.1)), "no more than random vectors"),
        # A refit of the own direction does as little, or lies as far.
        (replace(NEW, parts=both(-0.1, 0.1, other=5.1)), "differs no more"),
        (replace(NEW, cosine=0.95), "differs no more"),
        (replace(REFUSES_MORE, parts=both(0.4, 0.6)), "no more than the later's own refits"),
    ],
)
def test_open_says_why(found: Measured, because: str) -> None:
    word, why = decided(found)
    assert word == OPEN
    assert because in why


def test_one_place_that_may_tell_them_apart_is_enough_against_behaviour() -> None:
    found = replace(NEW, separation=Bounds(0.2, -0.2, 0.6), most_separable=1.1)
    assert decided(found).word == OPEN
