"""What W&B calls the things that a run reports: views log under these names, the workspace shows them."""

import re
from collections.abc import Mapping

from rcm.record.results import Curve, Diagram, Heatmap, Line, Result, Scalar, Scatter, Table, Transcripts

PICTURE = "at_a_glance/picture"  # of the run as a whole: W&B lays panels out by the alphabet
TARGETS_MET, TARGETS = "summary/targets_met", "summary/targets_set"  # how many; a sweep may optimise the first
FIGURES, CONCLUSIONS = "figures", "conclusions"  # the tables of what every scalar and every outcome means


def title(result: Result) -> str:
    """For people; the name, where the method that reports it gave no label."""
    label = result.label or result.name
    return f"{result.row}: {label}" if isinstance(result, Scalar) and result.row else label


def table(result: Table | Transcripts) -> str:
    return _without_slash(result)


def cells(picture: Heatmap | Scatter) -> str:
    """The table of a heatmap's cells, or of points; the picture itself has the result's name."""
    return f"{_without_slash(picture)}_values"


def nodes(diagram: Diagram) -> str:
    return f"{_without_slash(diagram)}_nodes"


def edges(diagram: Diagram) -> str:
    return f"{_without_slash(diagram)}_edges"


def _without_slash(result: Result) -> str:
    """W&B names a table's artifact after its key, and would add a random suffix to one with a slash."""
    return result.name.replace("/", "_")


def axis(curve: Curve) -> str:
    """What a curve's points are drawn against; curves over the same thing share it."""
    return _word(curve.x_label.partition(",")[0])  # without the unit


def lines(curve: Curve) -> Mapping[str, Line]:
    """Every line under the name of its metric."""
    return {f"{curve.name}/{_word(line.label)}": line for line in curve.lines}


def _word(label: str) -> str:
    """As W&B wants the last part of a metric's name."""
    return re.sub(r"\W+", "_", label).strip("_")
