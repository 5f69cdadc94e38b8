"""All that a method may report: plain, frozen data that says what it means.

Every result carries, from the method that reports it, its `label` (a name for people), its `hint` (how to read it) and,
where it is a figure, its unit, what its n counts, whether high or low is good, and its null. A `caveat` is a word or
two that stand beside it wherever it is shown, since it is not what its label alone says. Page, Markdown, paper and W&B
read these; none of them knows a method. Names are paths such as `direction/separation`: the part before the slash
is the method that reports.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rcm.errors import InputError
from rcm.record.units import Unit
from rcm.stats import reached

Good = Literal["high", "low"]
SUMMARY = "summary"  # what a run says of all its methods; no method's own name
RANDOM_DIRECTIONS, SHUFFLED_LABELS, RANDOM_HEADS = "random directions", "shuffled labels", "random sets of heads"


@dataclass(frozen=True)
class Null:
    """What chance alone reaches.

    `value`: what the share `level` of the draws stays below (an upper level where high is good, a lower one where low
    is). `of`: what one draw is, in the plural, such as "shuffled labels" or "random sets of heads". `draws`: how many
    there were; None where the null is not drawn. `p`: how often chance does as well as the figure; None where that was
    not counted.
    """

    value: float
    of: str
    draws: int | None = None
    level: float = 0.95
    p: float | None = None

    @classmethod
    def of_draws(
        cls, draws: Float[np.ndarray, " draw"], of: str, good: Good = "high", figure: float | None = None
    ) -> "Null | None":
        """The null that draws make (`rcm.stats.reached`), with the p-value of the figure beside it; None of none."""
        found = reached(draws, good == "high", figure)
        return None if found is None else cls(found.value, of, found.draws, found.level, found.p)


@dataclass(frozen=True)
class Scalar:
    """One figure. A share (unit `share`) is a fraction; shown in percent.

    `interval`: the 95 % confidence interval. `n`: how many there are behind the figure, of what `counts` says. `null`:
    None where chance has no say. `target`: what a good analysis shows. `row`: figures with one `row` stand together in
    one row of a table, under that title, told apart by their labels. `absent`: what it means where a step was run and
    the figure has no value. A rate of verdicts also tells how many completions were left `unscored`, being no language
    or unclear to the judge (they count in n, and on neither side), the judge's `kappa` with people, and `judged`: the
    interval with the judge's known errors in it (`rcm.stats.misjudged`), None where they are not known.
    """

    name: str
    value: int | float
    interval: tuple[float, float] | None = None
    n: int | None = None
    null: Null | None = None
    target: float | None = None
    unscored: int | None = None
    kappa: float | None = None
    judged: tuple[float, float] | None = None
    label: str = ""
    unit: Unit = ""
    hint: str = ""
    good: Good | None = None
    counts: str = "prompts"
    row: str = ""
    absent: str = ""
    caveat: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number(self.name, self.value))

    @property
    def met(self) -> bool | None:
        """Whether the figure exceeds its target *and* its null; None without a target. What was not measured is not
        met."""
        if self.target is None:
            return None
        null = -math.inf if self.null is None else self.null.value
        return self.value > self.target and self.value > null


def number(name: str, value: Any) -> int | float:
    """A plain number, also out of a tensor or an array that holds one; raises InputError for anything else."""
    if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else f" {value!r:.40}"
        raise InputError(
            f"The figure {name} has a {type(value).__name__}{shape} for a value; give Scalar one number, a Heatmap or "
            "Curve several, and Outcome a word."
        )
    return value


class Word(NamedTuple):
    """What a word of an outcome `means`, and what to do `then`."""

    means: str
    then: str = ""


Words = Mapping[str, Word]  # all that an outcome may be


@dataclass(frozen=True)
class Outcome:
    """What was concluded, in one word that programs can test, and why, in one sentence for people.

    `complete`: whether the step came to its figures; if not, `because` is also why they are missing. `tag`: what W&B
    tags the run with. `words`: all that it may be, with what each means; none where it explains itself, as the name of
    an engine does. Raises InputError where its own is not among them.
    """

    name: str
    value: str
    because: str
    complete: bool = True
    label: str = "outcome"
    hint: str = ""
    caveat: str = ""
    tag: str = ""
    words: Words = field(default_factory=dict[str, Word])

    def __post_init__(self) -> None:
        word(self.name, self.value)
        if self.words and self.value not in self.words:
            raise InputError(
                f"The outcome {self.name} is {self.value!r}, which its words do not explain ({', '.join(self.words)}); "
                "add what it means."
            )

    @property
    def means(self) -> str:
        """What its word means; empty where it does not say."""
        return self.words[self.value].means if self.words else ""


def word(name: str, value: Any) -> str:
    """The value of an outcome; raises InputError for what is no word."""
    if not isinstance(value, str):
        raise InputError(
            f"The outcome {name} has a {type(value).__name__} for a value; give one word, and a number to Scalar."
        )
    return value


@dataclass(frozen=True)
class Heatmap:
    """A grid of figures; NaN where a cell was not computed. `marked` cells (row, column) are the ones to look at.
    `value_label`: what the figures are, for the colour bar."""

    name: str
    values: Float[np.ndarray, "row column"]
    rows: Sequence[str]
    columns: Sequence[str]
    row_label: str
    column_label: str
    marked: Sequence[tuple[int, int]] = ()
    center: float | None = 0.0
    value_label: str = ""
    label: str = ""
    hint: str = ""
    caveat: str = ""


def colour_limits(values: Float[np.ndarray, "row column"], center: float | None) -> tuple[float, float]:
    """The ends of a heatmap's colour scale: as far below the center as above it, so that the center is white."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    if center is None:
        return float(known.min()), float(known.max())
    reach = float(np.abs(known - center).max()) or 1.0
    return center - reach, center + reach


@dataclass(frozen=True)
class Line:
    """One line of a curve, with a 95 % band where there is one."""

    label: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis, such as refusal rate over steering strength."""

    name: str
    x: Sequence[float]
    lines: Sequence[Line]
    x_label: str
    y_label: str
    label: str = ""
    hint: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class Scatter:
    """Points between two axes, coloured by a third figure; NaN where one is not known. `points`: what each is called.
    `marked`: which of them to look at. `x_limit`, `y_limit`: where a limit lies. `log_x`: whether x is drawn by its
    logarithm. `center`: of the colours, as in a heatmap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    values: Sequence[float]
    points: Sequence[str]
    x_label: str
    y_label: str
    value_label: str
    marked: Sequence[int] = ()
    x_limit: float | None = None
    y_limit: float | None = None
    log_x: bool = False
    center: float | None = 0.0
    label: str = ""
    hint: str = ""
    caveat: str = ""

    @property
    def drawable(self) -> list[int]:
        """Which points have a place; by its logarithm none has that is not above zero."""
        known = ((i, x, y) for i, (x, y) in enumerate(zip(self.x, self.y, strict=True)))
        return [i for i, x, y in known if math.isfinite(x) and math.isfinite(y) and (x > 0 or not self.log_x)]


Kind = Literal["source", "head", "mlp", "neuron", "output"]
DRAWN_EDGES = 120  # more in one diagram cannot be told apart


class Node(NamedTuple):
    """A component of a diagram. `name`: unique in it, and shown in the cell ("12.4", "MLP 20"). `layer`: its row: -1 of
    sources, the number of layers of outputs. `value`: its colour; NaN where there is none, as of sources."""

    name: str
    kind: Kind
    layer: int
    value: float


class Edge(NamedTuple):
    """What passes from one node to another, by their names."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True)
class Diagram:
    """Components of a model and what passes between them: a circuit. Layers go upward; an edge goes up, or stays in
    its layer, as one from a head to the MLP behind it.

    `layers`: how many the model has; those without a node are left out. `value_label`: what the nodes' values are;
    `center` is that of their colours, as in a heatmap. `weight_label`: what the edges' weights are; their sign is of
    weight. Raises InputError for what cannot be drawn as it is meant.
    """

    name: str
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    layers: int
    value_label: str
    weight_label: str
    center: float | None = 0.0
    label: str = ""
    hint: str = ""
    caveat: str = ""

    def __post_init__(self) -> None:
        layer_of: dict[str, int] = {}
        for node in self.nodes:
            if node.name in layer_of:
                raise InputError(
                    f"The diagram {self.name} has two nodes of the name {node.name!r}; name each by itself."
                )
            if node.kind not in get_args(Kind):
                raise InputError(
                    f"In the diagram {self.name} the node {node.name!r} is of the kind {node.kind!r}; there are "
                    f"{', '.join(get_args(Kind))}."
                )
            own = {"source": range(-1, 0), "output": range(self.layers, self.layers + 1)}
            if node.layer not in own.get(node.kind, range(self.layers)):
                raise InputError(
                    f"In the diagram {self.name} the {node.kind} {node.name!r} lies in layer {node.layer}; of "
                    f"{self.layers} layers give sources -1, outputs {self.layers}, and all else its layer, from 0."
                )
            layer_of[node.name] = node.layer
        seen: set[tuple[str, str]] = set()
        for source, target, weight in self.edges:
            edge = f"In the diagram {self.name} the edge from {source!r} to {target!r}"
            if missing := [end for end in (source, target) if end not in layer_of]:
                raise InputError(f"{edge} ends in no node: there is no {missing[0]!r}; add the node or drop the edge.")
            if source == target or layer_of[source] > layer_of[target]:
                raise InputError(f"{edge} does not lead upward; give edges as the model computes.")
            if (source, target) in seen:
                raise InputError(f"{edge} is there twice; give one edge with the weight of both.")
            if not math.isfinite(weight):
                raise InputError(f"{edge} has the weight {weight}; leave out edges that were not measured.")
            seen.add((source, target))

    @property
    def drawable(self) -> list[Edge]:
        """The strongest edges, the strongest last; no more than can be told apart."""
        ranked = sorted(self.edges, key=lambda edge: -abs(edge.weight))  # stable: of equals the first comes first
        return ranked[:DRAWN_EDGES][::-1]

    @property
    def left_out(self) -> int:
        """How many edges are not drawn."""
        return max(0, len(self.edges) - DRAWN_EDGES)


class Column(NamedTuple):
    """How a column of a table is shown. Columns `NAME_low`, `NAME_high`, `NAME_n`, `NAME_null` and `NAME_p` stand in
    NAME's cells."""

    name: str
    label: str = ""
    unit: Unit = ""
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; stored whole, as CSV.

    `shown`: the columns that pages show, in order; none is all of them. `only`: the name of a column of booleans; pages
    show the rows where it is true, and say where the others are.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    label: str = ""
    hint: str = ""
    shown: Sequence[Column] = ()
    only: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class Transcripts:
    """What the model said: rows with `prompt`, `completion`, `verdict` and what tells the conditions apart.

    Completions are redacted before they get here (`rcm.judges.redaction`).
    """

    name: str
    rows: Sequence[Mapping[str, str | float]]
    label: str = ""
    hint: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class Tensors:
    """Named tensors with the metadata without which they mean nothing; stored as safetensors."""

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    label: str = ""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in peft's layout, and the card of its making."""

    name: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict[str, Any])
    label: str = ""


Result = Scalar | Outcome | Heatmap | Curve | Scatter | Diagram | Table | Transcripts | Tensors | Adapter
