"""A direction that somebody else found: the published reference's folder, or one vector in a safetensors file.

Arditi et al.'s code leaves `direction.pt`, a vector, beside `direction_metadata.json` with its `pos` and `layer`: the
input of that block, as here. A safetensors file says `position` and `layer` in its header; the settings say them where
it does not. It may hold more: `[layer, d_model]`, or `[position, layer, d_model]` with the `positions` in its header.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rcm.directions.fit import Vector
from rcm.errors import InputError
from rcm.models import LoadedModel
from rcm.record.digests import content_digest
from rcm.record.identity import VECTOR
from rcm.record.results import Tensors
from rcm.transplant.torch_file import tensor_of

METADATA = "direction_metadata.json"
NAMES = ("direction", "mean_difference", "vector")  # of the tensor, where a file has several
UNIT = 1e-3  # of a length of 1: no length of its own


@dataclass(frozen=True, eq=False)
class Published:
    """A `Source` of one place; `vector` as it was stored."""

    label: str
    id: str
    position: int
    layer: int
    vector: Vector
    chosen: bool = True  # by somebody else; whether rightly is what is asked
    nearest_miss: bool = False
    strength: float | None = None
    refusal_tokens: tuple[int, ...] = ()
    critical_heads: Sequence[tuple[int, int]] = ()
    circuit_gap: float | None = None

    @property
    def n_layers(self) -> int:
        """As many as it tells of."""
        return self.layer + 1

    def vector_at(self, position: int, layer: int) -> Vector:
        if (position, layer) != (self.position, self.layer):
            raise InputError(f"{self.label} is of position {self.position}, layer {self.layer} alone.")
        return self.vector

    def length_at(self, position: int, layer: int) -> float | None:
        """None of a unit vector: it was stored without its length."""
        length = float(np.linalg.norm(self.vector_at(position, layer)))
        return None if abs(length - 1) < UNIT else length

    def vector_of_all_at(self, position: int, layer: int) -> Vector | None:
        """None elsewhere than at its own place."""
        return self.vector if (position, layer) == (self.position, self.layer) else None

    def has_shape_of(self, model: LoadedModel) -> bool:
        return len(self.vector) == model.d_model and self.layer < model.n_layers

    def is_of(self, model: LoadedModel) -> bool:
        return False  # whose it is, is not known

    def tensors(self, name: str) -> Tensors | None:
        return None

    def obstacle(self, model: LoadedModel, across_shapes: bool) -> str | None:
        if not self.has_shape_of(model):
            return (
                f"it is a vector of {len(self.vector)} at layer {self.layer}, and this model has {model.n_layers} "
                f"layers of width {model.d_model}; choose the model that it was found in"
            )
        available = len(model.template.end_of_instruction)
        if self.position >= -available:
            return None
        return (
            f"it is of position {self.position}, and the {model.template.kind} template ends every prompt in "
            f"{available} tokens; choose the template that it was found under"
        )


def published(place: Path, position: int | None, layer: int | None) -> Published:
    """The direction at this place; `position` and `layer` say where it lives if the place does not."""
    stored, metadata = _folder(place) if place.is_dir() else _safetensors(place)
    positions: list[int] = json.loads(metadata["positions"]) if "positions" in metadata else []
    found_position = _number(place, "position", position, metadata.get("position", metadata.get("pos")))
    found_layer = _number(place, "layer", layer, metadata.get("layer"))
    if found_position >= 0 or found_layer < 0:
        raise InputError(
            f"{place} is of position {found_position}, layer {found_layer}; positions are counted from the end of the "
            "prompt, -1, and layers from 0 (method.transplant.position, method.transplant.layer)."
        )
    vector = _vector(place, stored, positions, found_position, found_layer)
    name = place.stem if place.is_file() else place.resolve().name
    return Published(name, content_digest(place)[:8], found_position, found_layer, vector)


def _folder(place: Path) -> tuple[Tensor, Mapping[str, Any]]:
    file = place / VECTOR
    try:
        stored = tensor_of(file)  # the reference publishes no other format
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as a tensor and nothing else ({error}); give the vector alone, as "
            "torch.save(vector, FILE) writes it, or as safetensors."
        ) from error
    beside = place / METADATA
    if not beside.is_file():
        return stored, {}
    try:
        metadata: Any = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{beside} is no JSON ({error}); it says the place as {{'pos': -1, 'layer': 12}}.") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{beside} holds no object; it says the place as {{'pos': -1, 'layer': 12}}.")
    return stored, metadata


def _safetensors(place: Path) -> tuple[Tensor, Mapping[str, Any]]:
    try:
        with safe_open(place, "pt") as file:
            names = list(file.keys())
            wanted = [name for name in NAMES if name in names] or names
            if len(names) > 1 and wanted == names:
                raise InputError(
                    f"{place} holds {len(names)} tensors, none of them called {' or '.join(NAMES)}; keep the direction "
                    "alone."
                )
            return file.get_tensor(wanted[0]), file.metadata() or {}
    except (OSError, SafetensorError, IndexError) as error:
        raise InputError(
            f"{place} cannot be read as safetensors ({error}); method.transplant.source takes a run, a folder of runs, "
            f"a folder with {VECTOR}, or a .safetensors file."
        ) from error


def _number(place: Path, name: str, wanted: int | None, found: Any) -> int:
    if wanted is not None:
        return wanted
    try:
        return int(found)
    except (TypeError, ValueError):
        said = "does not say" if found is None else f"says {found!r} for"
        raise InputError(
            f"{place} {said} the {name} that it was found at; say it with method.transplant.{name}=NUMBER."
        ) from None


def _vector(place: Path, stored: Tensor, positions: list[int], position: int, layer: int) -> Vector:
    shape, part = list(stored.shape), stored
    try:
        if part.ndim == 3:
            part = part[positions.index(position) if positions else position]
        if part.ndim == 2:
            part = part[layer]
    except (IndexError, ValueError):
        raise InputError(
            f"{place} is of shape {shape}, and has no position {position}, layer {layer}; choose another."
        ) from None
    vector = part.double().numpy()
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise InputError(
            f"{place} is of shape {shape} and holds no direction at position {position}, layer {layer}: a direction "
            "is one vector of finite numbers that are not all zero."
        )
    return vector
