"""Tiny models whose refusal circuit at the last token we put there: one head, two copies, a suppressor."""

from typing import Literal

import torch

from rcm.execution.components import Component
from rcm.models import LoadedModel
from tests.planted import REFUSAL_AXIS, TRIGGER_AXIS, planted_model

Kind = Literal["single", "copies", "suppressor"]
HEADS, WIDTH = 140, 280  # so many that a random circuit rarely has the very head
STRENGTH = 0.4
WRITTEN: dict[Kind, float] = {"copies": STRENGTH, "suppressor": -STRENGTH / 3}  # by the second head


def planted_circuit(kind: Kind) -> tuple[LoadedModel, set[Component]]:
    """The model, and its circuit. Head 0 of layer 2 reads the trigger and writes refusal. Of two copies, another does
    so in layer 3, and either alone moves the last norm nearly as far; a suppressor there takes a third of it away."""
    model = planted_model(heads=HEADS, width=WIDTH)
    heads = {(2, 0): STRENGTH} | ({} if kind == "single" else {(3, 5): WRITTEN[kind]})
    with torch.no_grad():
        for layer, block in enumerate(model.points.layers):
            block.self_attn.o_proj.weight[:4] = 0  # idle weights write nothing that is read
            block.mlp.down_proj.weight[:4] = 0
            for (at, head), written in heads.items():
                if at == layer:
                    _plant(block.self_attn, head * WIDTH // HEADS, written)
    return model, {Component("head", *place) for place in heads}


def _plant(attention: torch.nn.Module, row: int, written: float) -> None:
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(attention, name).weight.zero_()
    attention.v_proj.weight[row, TRIGGER_AXIS] = 1.0
    attention.o_proj.weight[REFUSAL_AXIS, row] = written
