"""Twins stay together; prompts without twins are matched by length, as well as can be."""

from itertools import permutations

import numpy as np
import pytest
import torch

from rcm.patching import Pairs, matched
from rcm.prompts import Part, Prompt
from tests.conftest import tiny_model


def cost(harmful: list[int], harmless: list[int], pairs: list[tuple[int, int]]) -> int:
    return sum(abs(harmful[i] - harmless[j]) for i, j in pairs)


@pytest.mark.parametrize(("harmful", "harmless"), [(5, 5), (4, 6), (6, 4), (1, 3)])
def test_the_assignment_is_the_best_of_all(harmful: int, harmless: int) -> None:
    draw = np.random.default_rng(0)
    for _ in range(10):
        a, b = draw.integers(5, 40, harmful).tolist(), draw.integers(5, 40, harmless).tolist()
        found = matched(a, b)
        fewer = min(harmful, harmless)
        assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found) == fewer
        if harmful <= harmless:
            best = min(cost(a, b, list(enumerate(chosen))) for chosen in permutations(range(harmless), harmful))
        else:
            every = permutations(range(harmful), harmless)
            best = min(cost(a, b, [(i, j) for j, i in enumerate(chosen)]) for chosen in every)
        assert cost(a, b, found) == best


def part() -> Part:
    harmful = [Prompt("x" * length, f"category {length}") for length in (3, 20, 9, 14)]
    harmless = [Prompt("y" * length, "") for length in (13, 8, 4, 21)]
    return Part(tuple(harmful), tuple(harmless))


def test_twins_stay_together() -> None:
    pairs = Pairs.of(tiny_model(), part(), paired=True)
    assert [(len(a), len(b)) for a, b in pairs.texts] == [(3, 13), (20, 8), (9, 4), (14, 21)]
    assert pairs.other("harmless") == "harmless twin"
    assert pairs.categories == ["category 3", "category 20", "category 9", "category 14"]


def test_others_are_matched_by_length_and_keep_the_order_of_harmful_prompts() -> None:
    model = tiny_model()
    pairs = Pairs.of(model, part(), paired=False)
    assert [(len(a), len(b)) for a, b in pairs.texts] == [(3, 4), (20, 21), (9, 8), (14, 13)]
    assert [model.template.tokens(a) for a, _ in pairs.texts] == [a for a, _ in pairs.tokens]
    assert pairs.other("harmful") == "harmful prompt of like length"
    some = pairs.first(3).some([2, 0])
    assert (some.texts, some.categories) == ([pairs.texts[2], pairs.texts[0]], ["category 9", "category 3"])
    assert len(pairs.first(None)) == 4


def test_replies_go_with_their_pairs() -> None:
    model = tiny_model()
    pairs = Pairs.of(model, part(), paired=True).with_replies(model, (70, 71), 3)
    assert pairs.replies is not None
    assert len(pairs) == 4
    some = pairs.some([3, 1])
    assert some.replies is not None
    for whole, chosen in zip(pairs.replies, some.replies, strict=True):
        assert whole.shape == (4, 3)
        assert torch.equal(chosen, whole[[3, 1]])
