"""Harmful prompts, each with the harmless one that it exchanges components with.

Twins where the data set has them. Where it has none, prompts are matched by their number of tokens: the assignment of
harmful to harmless ones with the smallest sum of differences (Crouse 2016, in scipy), so that the two of a pair differ
in their labels and in what they ask for, but little in where their last token stands. Under swapped labels such a pair
is exact only as far as its lengths are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from rcm.models import LoadedModel
from rcm.patching.interchange import Pair
from rcm.patching.replies import Replies, own_replies
from rcm.prompts import Part


@dataclass(frozen=True)
class Pairs:
    """`texts` and `tokens` of each pair, the harmful prompt first; `categories`: of the harmful prompt, '' where it has
    none. `paired`: whether they are twins. `replies`: the refusal and the answer of each, where they are the metric."""

    texts: Sequence[tuple[str, str]]
    tokens: Sequence[Pair]
    categories: Sequence[str]
    paired: bool
    replies: tuple[Replies, Replies] | None = None

    @classmethod
    def of(cls, model: LoadedModel, part: Part, paired: bool) -> "Pairs":
        """Those of a part, in the order of its harmful prompts."""
        harmful, harmless = ([model.template.tokens(prompt.text) for prompt in side] for side in part)
        together = list(zip(range(len(harmful)), range(len(harmless)), strict=False)) if paired else []
        if not paired:
            together = matched([len(one) for one in harmful], [len(one) for one in harmless])
        return cls(
            [(part.harmful[i].text, part.harmless[j].text) for i, j in together],
            [(harmful[i], harmless[j]) for i, j in together],
            [part.harmful[i].category for i, _ in together],
            paired,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def some(self, index: Sequence[int]) -> "Pairs":
        """The pairs with these indices, in this order."""
        chosen = list(index)
        return Pairs(
            [self.texts[i] for i in chosen],
            [self.tokens[i] for i in chosen],
            [self.categories[i] for i in chosen],
            self.paired,
            None if self.replies is None else (self.replies[0][chosen], self.replies[1][chosen]),
        )

    def first(self, n: int | None) -> "Pairs":
        """The first `n`; all if `n` is None."""
        return self.some(range(len(self))[:n])

    def with_replies(self, model: LoadedModel, refusal_tokens: tuple[int, ...], length: int) -> "Pairs":
        """Those whose two replies both have `length` tokens, with these replies."""
        kept, refusals, answers = own_replies(model, self.texts, refusal_tokens, length)
        return replace(self.some(kept), replies=(refusals, answers))

    def other(self, side: Literal["harmful", "harmless"]) -> str:
        """What the prompt of the other class is called, in words."""
        return f"{side} twin" if self.paired else f"{side} prompt of like length"


def matched(harmful: Sequence[int], harmless: Sequence[int]) -> list[tuple[int, int]]:
    """Indices of prompts of the two classes that have the most alike numbers of tokens, all of the smaller class."""
    apart = np.abs(np.subtract.outer(np.asarray(harmful), np.asarray(harmless)))
    rows, columns = linear_sum_assignment(apart)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)]
