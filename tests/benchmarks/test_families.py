"""What families of tiny models are planted with (whole runs take minutes: docs/claims.md)."""

from benchmarks.families import FAMILIES, OLD, prompts_of
from rcm.execution.passes import read_residuals
from rcm.prompts import texts

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
