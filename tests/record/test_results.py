"""Results are what they say: a number is a number, a word a word."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from rcm.errors import InputError
from rcm.record.results import DRAWN_EDGES, Diagram, Edge, Node, number, word


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int64(2), np.array([2.0]), torch.tensor(2), torch.tensor([[2.0]])]
)
def test_one_number_is_taken_out_of_what_holds_it(value: Any) -> None:
    found = number("mine/x", value)
    assert found == 2
    assert type(found) in (int, float)


def test_a_number_that_was_not_measured_stays() -> None:
    assert math.isnan(number("mine/x", torch.tensor(float("nan"))))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.zeros(3), "a Tensor of shape (3,)"),
        (np.zeros((2, 2)), "a ndarray of shape (2, 2)"),
        ("high", "a str 'high'"),
        (True, "a bool True"),
        (None, "a NoneType None"),
    ],
)
def test_what_is_no_number_is_told_in_one_sentence(value: Any, told: str) -> None:
    with pytest.raises(InputError) as error:
        number("mine/x", value)
    assert str(error.value).startswith(f"The figure mine/x has {told} for a value; give Scalar one number")
    assert "\n" not in str(error.value)


def test_an_outcome_is_a_word() -> None:
    with pytest.raises(InputError, match=r"^The outcome mine/outcome has a float for a value; give one word"):
        word("mine/outcome", 0.5)
    assert word("mine/outcome", "found") == "found"


WORDS, HEAD, MLP = Node("words", "source", -1, math.nan), Node("1.0", "head", 1, 0.5), Node("MLP 1", "mlp", 1, -0.5)


def diagram(nodes: list[Node], edges: list[Edge]) -> Diagram:
    return Diagram("circuit/it", nodes, edges, 2, "effect", "weight")


@pytest.mark.parametrize(
    ("nodes", "edges", "told"),
    [
        ([HEAD, HEAD], [], "has two nodes of the name '1.0'"),
        ([HEAD._replace(kind="expert")], [], "the node '1.0' is of the kind 'expert'; there are source, head"),  # type: ignore[arg-type]
        ([HEAD._replace(layer=2)], [], "the head '1.0' lies in layer 2; of 2 layers give"),
        ([WORDS._replace(layer=0)], [], "the source 'words' lies in layer 0"),
        ([Node("refusal", "output", 1, math.nan)], [], "the output 'refusal' lies in layer 1"),
        ([HEAD], [Edge("1.0", "MLP 9", 1.0)], "the edge from '1.0' to 'MLP 9' ends in no node: there is no 'MLP 9'"),
        ([HEAD], [Edge("words", "1.0", 1.0)], "there is no 'words'"),
        ([WORDS, HEAD], [Edge("1.0", "words", 1.0)], "does not lead upward"),
        ([HEAD], [Edge("1.0", "1.0", 1.0)], "does not lead upward"),
        ([HEAD, MLP], [Edge("1.0", "MLP 1", 1.0)] * 2, "is there twice"),
        ([HEAD, MLP], [Edge("1.0", "MLP 1", math.nan)], "has the weight nan; leave out edges"),
    ],
)
def test_what_is_no_diagram_is_told_in_one_sentence(nodes: list[Node], edges: list[Edge], told: str) -> None:
    with pytest.raises(InputError) as error:
        diagram(nodes, edges)
    assert told in str(error.value)
    assert "circuit/it" in str(error.value)
    assert "\n" not in str(error.value)


def test_of_many_edges_the_strongest_are_drawn_the_strongest_last() -> None:
    sources = [Node(f"s{i}", "source", -1, math.nan) for i in range(DRAWN_EDGES + 2)]
    edges = [Edge(one.name, "1.0", (-1) ** i * (1.0 + i // 2)) for i, one in enumerate(sources)]
    drawn = diagram([*sources, HEAD], edges)
    assert drawn.left_out == 2
    assert drawn.drawable[::2] == edges[:1:-2][::-1]  # of two that are equally strong the first one is drawn above
    assert drawn.drawable[-1] == edges[-2]
    few = diagram([WORDS, HEAD, MLP], [Edge("1.0", "MLP 1", -3.0), Edge("words", "1.0", 2.0)])
    assert (few.drawable, few.left_out) == ([few.edges[1], few.edges[0]], 0)
