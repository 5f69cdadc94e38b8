"""How alike the directions of two runs are, layer by layer.

The cosine of their mean differences, at the position that the later run chose, both of all training prompts: of those
that each model treats as labelled they would be of different prompts. Its null is what one in twenty cosines
exceeds, whatever their sign, when either mean difference is replaced by those of shuffled labels. Random directions
would be too easy a null: prompts differ along few directions, most of which two models of a family share.
"""

import json

import numpy as np
from jaxtyping import Float

from rcm.comparison.names import DIRECTIONS, POSITION
from rcm.comparison.reading import Reading
from rcm.record.results import Curve, Line

NAME = "direction/cosine"
OURS, NULL = "the two directions", "95 % of those of shuffled labels"
COMPARED = ("mean_difference_all", "shuffled")
Vectors = Float[np.ndarray, "layer _ d_model"]


def cosines(before: Reading, after: Reading) -> Curve | None:
    """None where a run has no directions at that position or none of shuffled labels, or the shapes differ. Raises
    InputError where the file of a run's directions is damaged or gone."""
    first, second = (_vectors(reading, after) for reading in (before, after))
    if first is None or second is None or first[0].shape != second[0].shape:
        return None
    values = _cosine(first[0], second[0])[:, 0]
    nulls = np.concatenate([_cosine(first[1], second[0]), _cosine(first[0], second[1])], axis=1)
    lines = [Line(OURS, values.tolist()), Line(NULL, np.quantile(np.abs(nulls), 0.95, axis=1).tolist())]
    label, hint = "are the directions alike?", "The cosine of the mean differences of both models, at every layer."
    return Curve(NAME, [float(layer) for layer in range(len(values))], lines, "layer", "cosine", label, hint)


def _vectors(reading: Reading, place: Reading) -> tuple[Vectors, Vectors] | None:
    """The mean difference of each layer at the position of another run, and those of shuffled labels."""
    position = place.scalar(POSITION)
    if position is None or not reading.weights:
        return None
    found = reading.run.tensors(DIRECTIONS)
    positions: list[int] = json.loads(found.metadata["positions"])
    if position.value not in positions or any(name not in found.tensors for name in COMPARED):
        return None
    row = positions.index(int(position.value))
    true, shuffled = (found.tensors[name][row].double().numpy() for name in COMPARED)
    return true[:, None], shuffled


def _cosine(first: Vectors, second: Vectors) -> Float[np.ndarray, "layer _"]:
    """Zero where a vector is: at the first layer prompts that end alike do not differ."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    products = (first * second).sum(-1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
