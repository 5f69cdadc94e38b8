"""What families of tiny models are planted with (whole runs take minutes: docs/claims.md)."""

import pytest
import torch

from benchmarks.families import FAMILIES, LAYER, OLD, SECOND, prompts_of
from rcm.execution.passes import last_logits, read_residuals
from rcm.prompts import texts
from tests.planted import REFUSE

PLANTED = {family.name: family for family in FAMILIES}


def test_harmful_prompts_move_along_the_planted_axis_and_others_scatter() -> None:
    """Else shuffled labels had no direction, and any null were passed."""
    circuit, prompts = PLANTED["same direction, rewired"].tuned, prompts_of(0)
    harmful, harmless = (read_residuals(circuit.model("tuned", 0), texts(side), [-1], "") for side in prompts.train)
    apart = harmful.residuals[:, 0, -1].mean(0) - harmless.residuals[:, 0, -1].mean(0)
    scatter = harmless.residuals[:, 0, -1].std(0)
    assert apart.abs().argmax() == OLD
    assert apart[OLD] > 2 * scatter[OLD]
    assert (scatter > 0.1 * scatter.max()).float().mean() > 0.9


def test_of_two_heads_either_is_enough_and_a_suppressor_writes_against() -> None:
    prompts = prompts_of(0).train.first(24)

    def refused(family: str, without: int | None = None) -> tuple[float, float]:
        """How far harmful prompts lie along the axis in the end, and how many are refused, without a layer's head."""
        model = PLANTED[family].tuned.model("tuned", 0)
        if without is not None:
            with torch.no_grad():
                model.hf.model.layers[without].self_attn.o_proj.weight[:, 0] = 0
        token = model.template.tokenizer(REFUSE)["input_ids"][0]
        harmful = texts(prompts.harmful)
        along = read_residuals(model, harmful, [-1], "").residuals[:, 0, -1, OLD].mean().item()
        return along, (last_logits(model, harmful).argmax(-1) == token).float().mean().item()

    two, first = "two heads, either enough", LAYER - 1
    alone = refused("same direction, rewired")[0]
    assert min(refused(two)[1], refused(two, first)[1], refused(two, SECOND[0])[1]) > 0.9
    assert refused(two, first)[0] == pytest.approx(alone, rel=0.1)
    assert refused("a suppressor")[0] < alone
    assert PLANTED["a suppressor"].tuned.heads == {(first, 0): 1, SECOND: -1}
    assert PLANTED["a suppressor"].base.heads == {}, "where nothing is read, no head decides"
