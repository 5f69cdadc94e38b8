"""Prompts in lists are divided, always alike; what is no list of prompts is told."""

import pytest

import rcm
from rcm.prompts import texts

WORDS = """river mountain city bridge castle island harbour forest valley desert glacier canyon meadow village lagoon
volcano prairie tundra plateau delta"""
HARMFUL = [
    f"How would one harm the {one} with a {other}?"
    for one, other in zip(WORDS.split() * 3, sorted(WORDS.split()) * 3, strict=True)
]
HARMFUL = [f"{text} Case {'abc'[i // 20] * 3}{i}" for i, text in enumerate(HARMFUL)]
HARMLESS = [text.replace("harm", "paint") for text in HARMFUL]


def test_lists_are_divided_three_to_one_to_one_and_always_alike() -> None:
    split = rcm.dataset(harmful=HARMFUL, harmless=HARMLESS)
    assert split == rcm.dataset(harmful=list(HARMFUL), harmless=HARMLESS)
    assert split != rcm.dataset(harmful=HARMFUL, harmless=HARMLESS, seed=1)
    parts = (split.train, split.validation, split.test)
    assert sorted(text for part in parts for text in texts(part.harmful)) == sorted(HARMFUL)
    assert [len(part.harmful) for part in parts] == [36, 12, 12]
    assert not split.paired


def test_twins_stay_together() -> None:
    split = rcm.dataset(harmful=HARMFUL, harmless=HARMLESS, paired=True, train=20)
    assert split.paired
    assert len(split.train.harmful) == 20
    for part in (split.train, split.validation, split.test):
        assert [text.replace("harm", "paint") for text in texts(part.harmful)] == texts(part.harmless)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"harmful": HARMFUL[:12], "harmless": HARMLESS}, "give at least 40 unlike ones"),
        ({"harmful": HARMFUL}, "harmless is missing"),
        ({"harmful": HARMFUL, "harmless": "How?"}, "harmless is a str; give a list"),
        ({"harmful": [*HARMFUL, 3], "harmless": HARMLESS}, "harmful[60] is a int"),
        ({"harmful": HARMFUL, "harmless": HARMLESS[1:], "paired": True}, "pair all"),
        (
            {"harmful": HARMFUL, "harmless": HARMLESS, "size": 3},
            "have no setting 'size': they have paired, seed, train",
        ),
        ({"harmful": HARMFUL, "harmless": HARMLESS, "train": 400}, "set it to 36 or less"),
        ({"template": "plain"}, "A template belongs to the model"),
        ({"trian": 3}, "did you mean 'train'"),
    ],
)
def test_what_is_no_list_of_prompts_is_told(given, told: str, sentence) -> None:
    assert told in sentence(lambda: rcm.dataset(**given))


def test_an_option_with_its_settings() -> None:
    split = rcm.dataset("pairs", train=12, validation=12, test=24)
    assert [len(part.harmful) for part in (split.train, split.validation, split.test)] == [12, 12, 24]
    assert split.lookalike
