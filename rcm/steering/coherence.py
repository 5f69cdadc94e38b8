"""Whether a reply is still language, in figures: a refusal said over and over is a refusal, and yet damage.

distinct       share of a reply's word trigrams that are different ones (distinct-n of Li et al. 2016, with n = 3)
longest repeat the longest run of words that comes twice, in words
words          how long it is
"""

import re

import numpy as np

N = 3


def words(completion: str) -> list[str]:
    return re.findall(r"\w+", completion.lower())


def distinct(completion: str) -> float:
    """NaN for a reply too short to have a trigram."""
    grams = _grams(words(completion), N)
    return len(set(grams)) / len(grams) if grams else np.nan


def longest_repeat(completion: str) -> int:
    spoken = words(completion)
    low, high = 0, len(spoken) - 1  # a run of `low` words repeats, one of more than `high` does not
    while low < high:
        middle = (low + high + 1) // 2
        grams = _grams(spoken, middle)
        low, high = (middle, high) if len(set(grams)) < len(grams) else (low, middle - 1)
    return max(low, 0)


def _grams(spoken: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(spoken[start:] for start in range(n)), strict=False)) if n else []
