"""One checkpoint of a training run: does it refuse by now, can harmful be read off, does the direction cause refusing?

Behaviour, then direction, with the settings of both; run for several checkpoints, the page draws each figure over the
training steps. Where a checkpoint does not refuse, its direction is measured and not selected.
"""

from collections.abc import Iterator

from rcm.judges import Judge
from rcm.methods.behaviour import Behaviour
from rcm.methods.direction import Direction
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.results import Result


class Emergence(Behaviour, Direction):
    """Every setting of `behaviour` and `direction`."""

    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        behaviour = yield from self.measure(model, prompts, judge, seed)
        yield from self.find(model, prompts, seed, gate=behaviour)
