"""Every function of rcm is checked in these tests, those that are made anew for each pass by their own annotations."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from rcm.stats import mean_interval
from tests.typechecker import WRITTEN, beartype_once

Hook = Callable[[Tensor], Tensor]


def hook_of(shape: str, answer: Tensor) -> Hook:
    """A function that is made anew in each call, as hooks are."""

    @jaxtyped(typechecker=beartype_once)
    def hook(given: Float[Tensor, shape]) -> Float[Tensor, shape]:
        return answer

    return hook


def test_the_functions_of_rcm_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        mean_interval(np.zeros((2, 2)), ["a", "b"])


def test_a_check_is_written_once_and_holds_for_each_function_that_it_is_of() -> None:
    right, wrong = torch.zeros(2), torch.zeros(3)
    first = hook_of("one", right)
    before = len(WRITTEN)
    for answer in (right, wrong):
        again = hook_of("one", answer)
        with pytest.raises(TypeCheckError, match="parameters"):
            again(torch.zeros(2, 2))
    assert len(WRITTEN) == before + 1  # of the one argument that was wrong
    assert first(right) is right
    with pytest.raises(TypeCheckError, match="return value"):
        again(right)


def test_functions_of_one_name_and_other_annotations_have_each_their_own() -> None:
    row, matrix = torch.zeros(2), torch.zeros(2, 2)
    of_rows, of_matrices = hook_of("one", row), hook_of("one two", matrix)
    assert of_rows(row) is row
    assert of_matrices(matrix) is matrix
    for hook, given in ((of_rows, matrix), (of_matrices, row)):
        with pytest.raises(TypeCheckError):
            hook(given)


def test_what_cannot_be_hashed_is_checked_all_the_same() -> None:
    @jaxtyped(typechecker=beartype_once)
    def total(values: list[int] = [1, 2]) -> int:  # noqa: B006
        return sum(values)

    assert total() == 3
    with pytest.raises(TypeCheckError):
        total(3)
