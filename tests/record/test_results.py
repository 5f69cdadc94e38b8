"""Results are what they say: a number is a number, a word a word."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from rcm.errors import InputError
from rcm.record.results import number, word


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
