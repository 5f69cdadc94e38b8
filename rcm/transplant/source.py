"""Where a direction is taken from: finished runs, or what somebody else found (`rcm.transplant.published`)."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rcm.directions.fit import Vector
from rcm.directions.refusal_direction import CHOSEN, NEAREST_MISS
from rcm.errors import InputError
from rcm.models import LoadedModel
from rcm.record.identity import RECORD
from rcm.record.results import Table, Tensors
from rcm.record.stored import StoredRun, stored_run, stored_runs

log = logging.getLogger(__name__)
DIRECTIONS, HARMLESS = "direction/directions", "direction/harmless"


@runtime_checkable
class Source(Protocol):
    """`label`: a name that no other source has. `id`: of the run, or of the content. `chosen`: whether the direction
    was chosen by what it causes; else its place is merely the most separable one. `nearest_miss`: whether it passes not
    every filter, but misses them by least. `strength`: at which it steered its own model, in lengths of the direction.
    `critical_heads`: layer and head of those that its own patching found critical. `circuit_gap`: how much more its own
    model refuses the test pairs of its circuit than with all nodes ablated, in nats; None where it tried none."""

    @property
    def label(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def layer(self) -> int: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def chosen(self) -> bool: ...
    @property
    def nearest_miss(self) -> bool: ...
    @property
    def strength(self) -> float | None: ...
    @property
    def refusal_tokens(self) -> tuple[int, ...]: ...
    @property
    def critical_heads(self) -> Sequence[tuple[int, int]]: ...
    @property
    def circuit_gap(self) -> float | None: ...

    def vector_at(self, position: int, layer: int) -> Vector:
        """The direction at a place; raises InputError where none is known."""
        ...

    def length_at(self, position: int, layer: int) -> float | None:
        """The direction's own; None where it came without one."""
        ...

    def vector_of_all_at(self, position: int, layer: int) -> Vector | None:
        """What this model's own direction is taken apart along; None where there is none of this place."""
        ...

    def has_shape_of(self, model: LoadedModel) -> bool:
        """Whether it goes into this model as it is."""
        ...

    def is_of(self, model: LoadedModel) -> bool:
        """Whether it is of these very weights."""
        ...

    def tensors(self, name: str) -> Tensors | None:
        """What was recorded under this name; None where it was not."""
        ...

    def obstacle(self, model: LoadedModel, across_shapes: bool) -> str | None:
        """Why it does not fit this model, with the cure; None where it does."""
        ...


@dataclass(frozen=True)
class RunSource:
    """A run that looked for a direction."""

    run: StoredRun
    label: str

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def position(self) -> int:
        return int(self._metric("direction/position"))

    @property
    def layer(self) -> int:
        return int(self._metric("direction/layer"))

    @property
    def chosen(self) -> bool:
        """Selected, or the nearest miss."""
        return self.run.metrics["direction/outcome"] in CHOSEN

    @property
    def nearest_miss(self) -> bool:
        return self.run.metrics["direction/outcome"] == NEAREST_MISS

    @property
    def strength(self) -> float | None:
        strength = self.run.metrics.get("steering/strength")
        return None if strength is None else float(strength)

    @property
    def circuit_gap(self) -> float | None:
        gap = self.run.metrics.get("circuit/gap")
        return None if gap is None else float(gap)

    @cached_property
    def directions(self) -> Tensors:
        return self.run.tensors(DIRECTIONS)

    @property
    def positions(self) -> list[int]:
        return list(json.loads(self.directions.metadata["positions"]))

    @property
    def vectors(self) -> Float[Tensor, "position layer d_model"]:
        """Mean differences, un-normalised."""
        return self.directions.tensors["mean_difference"]

    def vector_at(self, position: int, layer: int) -> Vector:
        """The mean difference at a place; raises InputError where the run did not look there."""
        if position not in self.positions:
            raise InputError(
                f"{self.label} looked for directions at positions {self.positions}, not at {position}; run it again "
                f"with method.direction.positions=[{position}]."
            )
        return self.vectors[self.positions.index(position), layer].double().numpy()

    def length_at(self, position: int, layer: int) -> float:
        return float(np.linalg.norm(self.vector_at(position, layer)))

    def vector_of_all_at(self, position: int, layer: int) -> Vector:
        """The mean difference of all training prompts, none filtered out: what two models are compared by."""
        self.vector_at(position, layer)  # raises where the run did not look there
        of_all = self.directions.tensors["mean_difference_all"]
        return of_all[self.positions.index(position), layer].double().numpy()

    @property
    def n_layers(self) -> int:
        return self.vectors.shape[1]

    @property
    def d_model(self) -> int:
        return self.vectors.shape[2]

    @cached_property
    def refusal_tokens(self) -> tuple[int, ...]:
        return tuple(int(row[0]) for row in self._table("direction/refusal_tokens").rows)

    @cached_property
    def critical_heads(self) -> list[tuple[int, int]]:
        table = self._table("patching/heads")
        rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
        return [(int(row["layer"]), int(row["head"])) for row in rows if row["critical"]]

    def is_of(self, model: LoadedModel) -> bool:
        names = ("model", "model_revision", "adapter")
        own = tuple(model.identity.get(name, "") for name in ("name", "revision", "adapter"))
        return tuple(self.directions.metadata[name] for name in names) == own

    def has_shape_of(self, model: LoadedModel) -> bool:
        return (self.n_layers, self.d_model) == (model.n_layers, model.d_model)

    def tensors(self, name: str) -> Tensors | None:
        return self.run.tensors(name) if name in self.run.files() else None

    def obstacle(self, model: LoadedModel, across_shapes: bool) -> str | None:
        if self.has_shape_of(model):
            same = self.directions.metadata["template_hash"] == model.template.digest
            return None if same else "its prompts had another template; choose the same dataset and template"
        if not across_shapes:
            return (
                f"it has {self.n_layers} layers of width {self.d_model}, this model {model.n_layers} of "
                f"{model.d_model}; method.transplant.across_shapes=true maps the one into the other"
            )
        return None if self.tensors(HARMLESS) else f"it recorded no {HARMLESS}, which a map is fitted on"

    def _metric(self, name: str) -> float:
        return float(self.run.metrics[name] or 0)

    def _table(self, name: str) -> Table:
        empty = Table(name, (), ())
        return next((one for one in self.run.results() if isinstance(one, Table) and one.name == name), empty)


def usable_runs(place: Path) -> list[StoredRun]:
    """The run in a directory, or the runs right below it, of each model the latest; those that looked for a direction.

    Raises InputError where there is none.
    """
    alone = (place / RECORD).is_file()
    runs = [stored_run(place)] if alone else stored_runs(place)
    found = {json.dumps(run.config["model"], sort_keys=True): run for run in runs if "direction/layer" in run.metrics}
    if not found:
        what = "The run" if alone else "No finished run"
        raise InputError(
            f"{what} in {place} {'did not look' if alone else 'looked'} for a direction; run one first: "
            "python launch.py model=NAME method=map."
        )
    return list(found.values())


def fitting(place: Path, found: Sequence[Source], model: LoadedModel, across_shapes: bool) -> list[Source]:
    """Those of the sources at this place that fit this model; raises InputError where none does."""
    obstacles = {source.label: source.obstacle(model, across_shapes) for source in found}
    fit = [source for source in found if obstacles[source.label] is None]
    for label, obstacle in obstacles.items():
        if obstacle:
            log.warning("%s is left out: %s.", label, obstacle)
    if not fit:
        raise InputError(f"Nothing in {place} fits this model: {'; '.join(f'{a}: {b}' for a, b in obstacles.items())}.")
    return fit


def run_sources(place: Path) -> list[RunSource]:
    """The usable runs there."""
    runs = usable_runs(place)
    names = [run.choices["model"] for run in runs]
    return [
        RunSource(run, name if names.count(name) == 1 else f"{name}-{run.id}")
        for run, name in zip(runs, names, strict=True)
    ]


def rows_of(tensors: Tensors, wanted: Sequence[str]) -> tuple[list[int], list[int]]:
    """Rows of the recording, and indices of the wanted prompts, that are of one prompt."""
    place = {digest: row for row, digest in enumerate(json.loads(tensors.metadata["prompts"]))}
    common = [index for index, digest in enumerate(wanted) if digest in place]
    return [place[wanted[index]] for index in common], common
