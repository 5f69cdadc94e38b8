"""The main job: does it refuse, where is that decided, does intervening prove it, and is the analysis a good one?

Behaviour, then direction, then patching, then steering, with the settings of all four; then one summary of the four
figures that a good analysis shows. A figure is met if it exceeds its target *and* its null.
"""

import math
from collections.abc import Iterator, Sequence

from rcm.judges import Judge
from rcm.methods.behaviour import Behaviour
from rcm.methods.patching import Patching
from rcm.methods.steering import Steering
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.results import Outcome, Result, Scalar, Table


class Map(Behaviour, Patching, Steering):
    """Every setting of `behaviour`, `direction`, `patching` and `steering`."""

    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        figures: list[Scalar] = []
        for result in self._steps(model, prompts, judge, seed):
            if isinstance(result, Scalar) and result.target is not None:
                figures.append(result)
            yield result
        yield from _summary(figures)

    def _steps(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        behaviour = yield from self.measure(model, prompts, judge, seed)
        found = yield from self.find(model, prompts, seed, gate=behaviour)
        yield from self.patch(model, prompts, seed, found, gate=behaviour)
        yield from self.steer(model, prompts, judge, seed, found)


def _summary(figures: Sequence[Scalar]) -> Iterator[Result]:
    met = {figure.name: _met(figure) for figure in figures}
    columns = ("figure", "value", "low", "high", "n", "null", "target", "met")
    rows = [(f.name, f.value, *(f.interval or (None, None)), f.n, f.null, f.target, met[f.name]) for f in figures]
    yield Table("map/summary", columns, rows)
    missed = [name for name, is_met in met.items() if not is_met]
    because = (
        f"Not met: {', '.join(missed)}." if missed else "Separation, probe accuracy, force and suppress rate are met."
    )
    yield Outcome("map/outcome", f"{sum(met.values())} of {len(met)} met", because)


def _met(figure: Scalar) -> bool:
    """Above the target and above the null; a figure that was not measured is not met."""
    assert figure.target is not None
    null = -math.inf if figure.null is None else figure.null
    return figure.value > figure.target and figure.value > null
