"""What is drawn first of a family: for each of its models how much it refuses, where harmful and harmless prompts part,
where the last token comes to hold the decision, which heads and MLPs carry it, and what adding and subtracting the
direction does; under it, what tuning changed, in a sentence.

Nothing is concluded here: these are the results that runs and their comparison hold, put together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rcm.comparison.families import Family, rank
from rcm.comparison.identity import started, weights_of
from rcm.comparison.names import (
    CIRCUIT_CARRIED,
    CIRCUIT_DIAGRAM,
    DECIDED_BY_LAYER,
    FORCED_BY_STRENGTH,
    LAYER,
    POSITION,
    REFUSAL_RATES,
    SEPARABILITY,
    SEPARATION,
    STEERING_RATES,
    SUMMARY,
    SUPPRESSED_BY_STRENGTH,
)
from rcm.comparison.reading import NOT_REPORTED, Reading, method_of
from rcm.comparison.tunings import Tuning
from rcm.record.results import Curve, Diagram, Line, Outcome, Scalar

MOST = 6  # models in one picture


@dataclass(frozen=True)
class Model:
    """One run. `rates`: how much of what it refuses. `separated`, `decided`: a point for each layer. `layer`: where the
    direction is read, `separation` there. `circuit`: what carries refusing, `carried` how much. `forced`, `suppressed`:
    over strength; `steered` at the one that was chosen."""

    reading: Reading
    rates: Sequence[Scalar]
    separated: Curve | None
    separation: Scalar | None
    layer: int | None
    decided: Curve | None
    circuit: Diagram | None
    carried: Scalar | None
    forced: Curve | None
    suppressed: Curve | None
    steered: Sequence[Scalar]
    outcomes: Sequence[Outcome]

    @property
    def parts(self) -> dict[str, Curve | Diagram | None]:
        """Those that another model of the family may have where this one has none, by the result that they are of."""
        return {
            SEPARABILITY: self.separated,
            DECIDED_BY_LAYER: self.decided,
            CIRCUIT_DIAGRAM: self.circuit,
            FORCED_BY_STRENGTH: self.forced,
            SUPPRESSED_BY_STRENGTH: self.suppressed,
        }

    def why_without(self, part: str) -> str:
        return self.reading.why_without(part) or NOT_REPORTED


@dataclass(frozen=True)
class Overview:
    """Of one family, in the order of training. `tunings`: those between its models. `left_out`: how many of its runs
    are not drawn: all but the last of each model, and of more than six models the later ones."""

    name: str
    models: Sequence[Model]
    tunings: Sequence[Tuning]
    left_out: int = 0

    @property
    def shown(self) -> frozenset[str]:
        """The parts that any of the models has."""
        return frozenset(name for model in self.models for name, part in model.parts.items() if part is not None)

    @property
    def layers(self) -> int:
        """How many the deepest of the models has, as far as is known; 0 where nothing of it is by layer."""
        ends = [part.layers for one in self.models for part in one.parts.values() if isinstance(part, Diagram)]
        curves = [curve for one in self.models for curve in (one.separated, one.decided) if curve]
        return max([0, *ends, *(int(max(curve.x)) + 1 for curve in curves)])


def overview(family: Family, tunings: Sequence[Tuning] = ()) -> Overview:
    """`tunings`: of any families; those between two of this one's models are kept."""
    latest = {weights_of(one): one for one in sorted(family.readings, key=started)}.values()
    every = sorted(latest, key=lambda one: (rank(one), started(one)))
    shown = every[:MOST]
    own = {one.run.id for one in family.readings}
    kept = [one for one in tunings if {run.run.id for pair in one.pairs for run in (pair.before, pair.after)} <= own]
    return Overview(family.name, [_model(one) for one in shown], kept, len(family.readings) - len(shown))


def _model(reading: Reading) -> Model:
    layer = reading.scalar(LAYER)
    concluded = [
        one for one in reading.every(Outcome) if one.name.endswith("/outcome") and method_of(one.name) != SUMMARY
    ]
    return Model(
        reading=reading,
        rates=_scalars(reading, REFUSAL_RATES),
        separated=_separated(reading),
        separation=reading.scalar(SEPARATION),
        layer=None if layer is None else int(layer.value),
        decided=_curve(reading, DECIDED_BY_LAYER),
        circuit=next((one for one in reading.every(Diagram) if one.name == CIRCUIT_DIAGRAM), None),
        carried=reading.scalar(CIRCUIT_CARRIED),
        forced=_curve(reading, FORCED_BY_STRENGTH),
        suppressed=_curve(reading, SUPPRESSED_BY_STRENGTH),
        steered=_scalars(reading, STEERING_RATES),
        outcomes=concluded,
    )


def _scalars(reading: Reading, names: Sequence[str]) -> list[Scalar]:
    return [scalar for name in names if (scalar := reading.scalar(name))]


def _curve(reading: Reading, name: str) -> Curve | None:
    return next((one for one in reading.every(Curve) if one.name == name and one.x), None)


def _separated(reading: Reading) -> Curve | None:
    """Separation at every layer, at the position of the direction, or, without one, where it is greatest."""
    rows = reading.rows(SEPARABILITY)
    if not rows:
        return None
    chosen = reading.scalar(POSITION)
    position = max(rows, key=lambda row: row["separation"])["position"] if chosen is None else int(chosen.value)
    there = sorted((row for row in rows if row["position"] == position), key=lambda row: row["layer"])
    if not there:
        return None
    values, low, high = (
        [float(row[name]) for row in there] for name in ("separation", "separation_low", "separation_high")
    )
    line = Line("separation", values, low, high)
    return Curve(SEPARABILITY, [float(row["layer"]) for row in there], [line], "layer", "separation, σ")
