"""Where refusing is decided: the critical layers and heads of patching, the nodes of a circuit."""

from typing import Any, NamedTuple

from rcm.api.findings import Finding
from rcm.api.shown import Rows


class Head(NamedTuple):
    """An attention head, and what it does alone: a share of the gap, below zero against refusing."""

    layer: int
    head: int
    share: float


class Layer(NamedTuple):
    """What attention or the MLP of a layer puts out: a share of the gap, below zero against refusing."""

    layer: int
    component: str
    share: float


class Patching(Finding):
    """Which components are critical alone: beyond chance over all of them (max-T), and certainly above `min_share`."""

    @property
    def critical_heads(self) -> list[Head]:
        """The strongest first; empty where none is critical."""
        return [Head(row["layer"], row["head"], row["share"]) for row in self._critical("heads")]

    @property
    def critical_layers(self) -> list[Layer]:
        """Attention and MLP outputs, the strongest first; the residual stream has a picture of its own."""
        rows = [row for row in self._critical("layers") if row["component"] != "residual"]
        return [Layer(row["layer"], row["component"], row["share"]) for row in rows]

    def _critical(self, table: str) -> list[dict[str, Any]]:
        name = f"{self.method}/{table}"
        return [row for row in Rows(self.results[name]).rows if row["critical"]] if name in self.results else []

    def _in_short(self) -> list[str]:
        return [f"{len(self.critical_heads)} critical heads", f"{len(self.critical_layers)} critical layers"]


class Circuit(Finding):
    """The smallest set of heads and MLPs that carries refusing. Which heads are critical, each by itself, is a question
    to patching: `rcm.patching(model).critical_heads`."""

    @property
    def heads(self) -> list[tuple[int, int]]:
        """(layer, head) of the circuit, in the order of the ranking."""
        return [(row["layer"], row["head"]) for row in self._nodes if row["kind"] == "head"]

    @property
    def mlps(self) -> list[int]:
        """The layers whose MLP belongs to the circuit, in the order of the ranking."""
        return [row["layer"] for row in self._nodes if row["kind"] == "mlp"]

    @property
    def layers(self) -> list[int]:
        """The layers that have a head or an MLP in the circuit, from below."""
        return sorted({row["layer"] for row in self._nodes})

    @property
    def _nodes(self) -> list[dict[str, Any]]:
        name = f"{self.method}/nodes"
        return Rows(self.results[name]).rows if name in self.results else []

    def _in_short(self) -> list[str]:
        return [f"{len(self.heads)} heads, {len(self.mlps)} MLPs"] if self._nodes else []

    def _missing(self, name: str) -> str:
        if name.startswith("critical_"):
            return f"circuit has no {name!r}: which components are critical alone says rcm.patching(model).{name}"
        return super()._missing(name)
