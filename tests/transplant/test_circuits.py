"""A planted circuit, brought into models that have it, have another, or have none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from rcm.circuits.conclusion import CIRCUIT, NO_GAP, OPEN, UNSPECIFIC
from rcm.circuits.described import FOUND
from rcm.models import LoadedModel
from rcm.prompts import Part, Split
from rcm.record.results import Tensors
from rcm.transplant.circuits import COLUMNS, NO_OWN, transplanted_circuits
from rcm.transplant.published import Published
from tests.methods.test_circuit import refusing
from tests.planted import by_name, method, planted_model, planted_prompts, reported

QUICK = {
    **{"ranking": "exact", "pairs": 8, "test_pairs": 8, "attribution_pairs": 1},
    **{"random_circuits": 29, "curve_circuits": 2, "prompts": 0},
}
HEADS, WIDTH = 60, 120  # so many that a random circuit rarely has the very head
CARRIED = ("carried", "alone", "left")


@dataclass(frozen=True, eq=False)
class Kept(Published):
    """A source that kept a circuit; `of`: of which model."""

    kept: Tensors | None = None
    of: str = ""

    def is_of(self, model: LoadedModel) -> bool:
        return model.identity["name"] == self.of

    def tensors(self, name: str) -> Tensors | None:
        return self.kept if name == FOUND else None


def planted(name: str, layer: int = 2) -> LoadedModel:
    """Head 0 of this layer writes refusal, and nothing else writes what is read."""
    model = planted_model(layer + 1, heads=HEADS, width=WIDTH)
    with torch.no_grad():
        for i, block in enumerate(model.points.layers):
            block.mlp.down_proj.weight[:4] = 0
            if i != layer:
                block.self_attn.o_proj.weight[:4] = 0
    return replace(model, identity={"name": name})


def base() -> LoadedModel:
    """The same without that head."""
    model = planted("base")
    with torch.no_grad():
        model.points.layers[2].self_attn.v_proj.weight.zero_()
    return model


def kept(model: LoadedModel) -> Kept:
    """A run of this model that found a circuit."""
    found = reported(method("circuit", **QUICK), model, planted_prompts(), None, refusing(model))[FOUND]
    name = str(model.identity["name"])
    return Kept(name, f"of-{name}", -1, 3, np.ones(model.d_model), kept=found, of=name)


@pytest.fixture(scope="module")
def source() -> Kept:
    return kept(planted("tuned"))


def brought(
    sources: Sequence[Published],
    model: LoadedModel,
    prompts: Split | None = None,
    pairs: int | None = 8,
    random_circuits: int = 29,
) -> dict[str, Any]:
    return by_name(transplanted_circuits(model, sources, prompts or planted_prompts(), pairs, random_circuits, seed=0))


def row_of(found: dict[str, Any]) -> dict[str, Any]:
    (row,) = found["transplant/circuits"].rows
    return dict(zip(COLUMNS, row, strict=True))


def test_in_a_twin_that_has_it_the_circuit_carries_refusing(source: Kept) -> None:
    found = brought([source], planted("twin"), random_circuits=200)
    row = row_of(found)
    assert (row["source"], row["run"], row["nodes"], row["outcome"]) == ("tuned", "of-tuned", 1, CIRCUIT)
    assert row["gap_low"] > 1
    assert row["alone"] == pytest.approx(1, abs=0.1)
    assert row["left"] == pytest.approx(0, abs=0.1)
    assert row["carried_low"] > 0.8 > row["carried_null"]
    assert row["carried_p"] < 0.05
    assert [row[f"{name}_n"] for name in ("gap", *CARRIED)] == [8] * 4
    for name in CARRIED:
        figure = found[f"transplant/circuit_{name}_from_tuned"]
        assert figure.null.draws == 200
        assert "at the last token" in figure.hint
        assert (figure.value, figure.interval, figure.null.p) == (
            row[name],
            (row[f"{name}_low"], row[f"{name}_high"]),
            row[f"{name}_p"],
        )
    outcome = found["transplant/circuit_from_tuned"]
    assert outcome.value == CIRCUIT
    assert outcome.because.endswith(f"The gap is {row['gap']:.2f} nats.")


def test_in_a_base_that_refuses_nothing_there_is_nothing_to_carry(source: Kept) -> None:
    found = brought([source], base())
    row = row_of(found)
    assert row["outcome"] == found["transplant/circuit_from_tuned"].value == NO_GAP
    assert abs(row["gap"]) < 0.5
    assert all(math.isnan(row[name]) and f"transplant/circuit_{name}_from_tuned" not in found for name in CARRIED)


def test_where_another_head_refuses_the_circuit_carries_no_more_than_others(source: Kept) -> None:
    model = planted("elsewhere", layer=3)
    row = row_of(brought([source, kept(model)], model))
    assert row["outcome"] == UNSPECIFIC
    assert row["gap_low"] > 1
    assert row["alone"] == pytest.approx(0, abs=0.1)
    assert row["left"] == pytest.approx(1, abs=0.1)
    assert (row["jaccard"], row["jaccard_p"]) == (0, 1)


def test_circuits_that_are_the_same_overlap_as_none_of_chance_do(source: Kept) -> None:
    twin = planted("twin")
    found = brought([source, replace(source, label="own", of="twin")], twin)
    row = row_of(found)
    assert row["source"] == "tuned"  # the own run is what it is compared with
    assert (row["jaccard"], row["rho"], row["no_jaccard"]) == (1, pytest.approx(1), "")
    assert row["jaccard_p"] < 3 / HEADS  # one in so many heads of that layer is the very one
    assert row["rho_p"] < 1e-3
    assert row["rho_n"] == row["jaccard_n"] == 6 * (HEADS + 1)


def test_without_an_own_circuit_ranks_are_told_and_no_overlap(source: Kept) -> None:
    """They are measured here: in the source's own model, on the pairs that its run chose on, they are the source's."""
    found = brought([source], planted("twin"))
    row = row_of(found)
    assert math.isnan(row["jaccard"])
    assert row["no_jaccard"] == NO_OWN
    assert "transplant/circuit_jaccard_from_tuned" not in found
    assert row["rho"] > 0.999
    assert row["rho_p"] < 1e-3
    assert np.isfinite(row_of(brought([source], base()))["rho"])


def test_circuits_of_two_kinds_of_ablation_are_not_compared(source: Kept) -> None:
    twin = planted("twin")
    assert source.kept is not None
    zero = replace(source.kept, metadata={**source.kept.metadata, "ablation": "zero"})
    row = row_of(brought([source, replace(source, kept=zero, of="twin")], twin))
    assert math.isnan(row["jaccard"])
    assert "zero ablation, that of tuned under interchange; find both under one" in row["no_jaccard"]
    assert row["rho"] > 0.999  # measured here, as the source's was


def test_where_harmful_prompts_are_refused_less_ranks_turn_around(source: Kept) -> None:
    prompts = planted_prompts()
    turned = replace(prompts, train=Part(*reversed(prompts.train)), test=Part(*reversed(prompts.test)))
    row = row_of(brought([source], planted("twin"), turned))
    assert row["outcome"] == NO_GAP
    assert row["gap_high"] < -1
    assert row["rho"] < -0.5


def test_too_few_pairs_leave_it_open(source: Kept) -> None:
    row = row_of(brought([source], planted("twin"), planted_prompts(sizes=(8, 8, 7)), None))
    assert (row["outcome"], row["gap_n"]) == (OPEN, 7)
    assert math.isnan(row["gap_low"])


def test_nothing_is_told_where_no_other_model_has_a_circuit(source: Kept) -> None:
    nothing = Published("vector", "abc", -1, 3, np.ones(WIDTH))
    assert brought([nothing], planted("base")) == {}
    assert brought([nothing, source], planted("tuned")) == {}  # its own run has tried it


@pytest.mark.parametrize("size", [{"heads": 2, "width": WIDTH}, {"heads": HEADS, "width": 2 * WIDTH}])
def test_a_circuit_of_another_shape_is_left_out_with_a_line(
    source: Kept, size: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    assert brought([source], planted_model(**size)) == {}
    assert "The circuit of tuned is left out: its model has 6 layers of 60 heads and width 120" in caplog.text
