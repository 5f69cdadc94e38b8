"""Transplants: what the direction of each source does in each target."""

from collections.abc import Mapping, Sequence
from typing import Any

from rcm.comparison.reading import Reading

MATRIX = "transplant/matrix"
Transplanted = Mapping[str, Any]  # one row of the matrix: a source in this target


def transplants_into(reading: Reading) -> dict[str, Transplanted]:
    """By source, where the run transplanted."""
    return {str(row["source"]): row for row in reading.rows(MATRIX)}


def transplanted(source: Reading, target: Reading, others: Sequence[Reading]) -> Transplanted | None:
    """The latest transplant from this run's model into that of another."""
    found = [transplants_into(other).get(source.name) for other in others if other.name == target.name]
    return next((one for one in reversed(found) if one), None)
