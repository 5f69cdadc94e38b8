import json
from typing import Any

import numpy as np
import pytest
import torch

from rcm.circuits import search
from rcm.circuits.__main__ import importances_of
from rcm.circuits.reading import SOURCES
from rcm.directions.refusal_direction import RefusalDirection
from rcm.errors import InputError
from rcm.methods import circuit
from rcm.models import LoadedModel
from rcm.record.results import Diagram, Outcome, Result, Scalar, Tensors
from tests.conftest import tiny_model
from tests.planted import REFUSE, composed, known, method, planted_model, planted_prompts, reported, shuffled

QUICK = {
    "pairs": 8,
    "test_pairs": 8,
    "random_circuits": 60,
    "curve_circuits": 20,
    "reading_pairs": 4,
    "prompts": 6,
    "max_new_tokens": 3,
}


def refusing(model: LoadedModel) -> RefusalDirection:
    token = model.template.tokenizer(REFUSE)["input_ids"][0]
    return known(model, torch.eye(model.d_model)[1], 3, (token,))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    model = planted_model(heads=8)
    return reported(method("circuit", **QUICK), model, planted_prompts(), None, refusing(model))


def test_the_planted_head_is_the_circuit(found: dict[str, Any]) -> None:
    assert found["circuit/size"].value == 1
    assert found["circuit/nodes"].rows[0][:4] == (1, "head", 2, 0)
    assert found["circuit/outcome"].complete
    assert found["circuit/sufficiency"].value == pytest.approx(1, abs=0.1)
    assert found["circuit/left_without"].value == pytest.approx(0, abs=0.1)
    assert found["circuit/attribution_rank_correlation"].value > 0.5


def test_in_text_the_circuit_decides(found: dict[str, Any]) -> None:
    rate = {name: found[f"circuit/refusal_rate_{name}"].value for name in ("whole", "alone", "random_without")}
    assert rate == {"whole": 1.0, "alone": 1.0, "random_without": pytest.approx(1, abs=0.5)}
    said = {(row["condition"], row["completion"][0]) for row in found["circuit/transcripts"].rows}
    assert ("without the circuit", "A") in said
    assert ("only the circuit", "R") in said


def test_the_curve_rises_from_none_to_all(found: dict[str, Any]) -> None:
    alone, without, random, without_random = found["circuit/faithfulness_by_size"].lines
    assert (alone.y[0], alone.y[-1]) == (0, 1)
    assert (without.y[0], without.y[-1]) == (1, 0)
    assert alone.y[1] > 0.9 > random.y[1]
    assert without.y[1] < 0.1 < without_random.y[1]
    assert found["circuit/cpr"].value > 0.9
    assert found["circuit/cmd"].value < 0.1
    assert found["circuit/cpr"].null.p < 0.3  # one of eight random heads is the planted one


def test_the_picture_has_the_circuit_and_what_it_writes(found: dict[str, Any]) -> None:
    drawn: Diagram = found["circuit/diagram"]
    assert {node.name for node in drawn.nodes} >= {"2.0", "refusal"}
    (edge,) = [edge for edge in drawn.edges if (edge.source, edge.target) == ("2.0", "refusal")]
    assert edge.weight == pytest.approx(1, abs=0.3)
    read = {edge.source: edge.weight for edge in drawn.edges if edge.target == "2.0" and edge.source in SOURCES}
    assert read.pop("differing words") == pytest.approx(1, abs=0.1)
    assert max(map(abs, read.values())) < 0.1
    (row,) = found["circuit/sources"].rows
    assert row[:3] == (2, 0, pytest.approx(1, abs=0.1))


def test_it_is_written_in_the_benchmarks_format(found: dict[str, Any]) -> None:
    kept: Tensors = found["circuit/found"]
    made = json.loads(json.dumps(importances_of(kept)))
    assert made["cfg"] == {"n_layers": 6, "n_heads": 8, "d_model": 32, "parallel_attn_mlp": False}
    assert [name for name, node in made["nodes"].items() if node["in_graph"]] == ["input", "a2.h0", "logits"]
    heads, layers = 8, 6
    edges = sum((1 + at * (heads + 1)) * 3 * heads + 1 + at * (heads + 1) + heads for at in range(layers))
    assert len(made["edges"]) == edges + 1 + layers * (heads + 1)
    assert {name for name, edge in made["edges"].items() if edge["in_graph"]} == {
        *(f"input->a2.h0<{part}>" for part in "qkv"),
        "a2.h0->logits",
        "input->logits",
    }
    strongest = max(made["edges"], key=lambda name: abs(made["edges"][name]["score"]))
    assert strongest == "a2.h0->logits"


@pytest.mark.parametrize("ranking", ["exact", "attribution", "elimination"])
@pytest.mark.parametrize("ablation", ["interchange", "mean", "zero"])
def test_every_ranking_and_ablation(ranking: str, ablation: str) -> None:
    model = planted_model(heads=8)
    few = {"prompts": 0, "random_circuits": 29, "curve_circuits": 2, "reading_pairs": 1}  # which have no part in it
    asked = method("circuit", **QUICK | few, ranking=ranking, ablation=ablation)
    found = reported(asked, model, planted_prompts(), None, refusing(model))
    assert found["circuit/nodes"].rows[0][:4] == (1, "head", 2, 0)
    assert not any(name.startswith("circuit/refusal_rate") for name in found)


def test_labels_without_meaning_have_no_circuit() -> None:
    model = planted_model(heads=8)
    found = reported(method("circuit", **QUICK), model, shuffled(planted_prompts()), None, refusing(model))
    assert found["circuit/outcome"].value == "no_gap"
    assert "circuit/size" not in found


def test_few_training_pairs_tell_nothing() -> None:
    model = planted_model()
    found = reported(method("circuit", **QUICK | {"pairs": 7}), model, planted_prompts(), None, refusing(model))
    assert found["circuit/outcome"].value == "open"
    assert "7 training pairs are too few" in found["circuit/outcome"].because


def test_without_refusal_tokens_there_is_none() -> None:
    model = planted_model()
    found = reported(method("circuit"), model, planted_prompts(), None, known(model, torch.ones(32), 3))
    outcome: Outcome = found["circuit/outcome"]
    assert not outcome.complete
    assert list(found) == ["circuit/outcome"]


def test_too_few_random_circuits_are_refused_at_once() -> None:
    with pytest.raises(Exception, match="greater than or equal to 29"):
        composed("circuit", random_circuits=28)


def test_pairs_of_two_lengths_cannot_be_attributed() -> None:
    prompts = planted_prompts()
    model = planted_model()

    def unlike(part: Any) -> Any:
        longer = [type(one)(one.text + "bb", one.category) for one in part.harmful]
        return type(part)(longer, part.harmless)

    split = type(prompts)(
        *(unlike(part) for part in (prompts.train, prompts.validation, prompts.test)), template="chat", paired=True
    )
    asked = method("circuit", **QUICK | {"prompts": 0}, ranking="attribution")
    with pytest.raises(InputError, match="ranking=elimination"):
        reported(asked, model, split, None, refusing(model))
    other = reported(method("circuit", **QUICK | {"prompts": 0}), model, split, None, refusing(model))
    assert {edge.source for edge in other["circuit/diagram"].edges} == set(SOURCES)  # only what heads read is known
    assert importances_of(other["circuit/found"])["edges"] == {}


def test_where_attention_is_not_seen_the_circuit_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a model that takes it not from transformers' interface: no edges, and no words that heads read."""

    def unseen(*_: Any, **__: Any) -> Any:
        raise InputError("Attention is seen in 0 of 6 layers; choose another model.")

    monkeypatch.setattr(search, "attributed", unseen)
    monkeypatch.setattr(circuit, "reading", unseen)
    model = planted_model(heads=8)
    found = reported(method("circuit", **QUICK | {"prompts": 0}), model, planted_prompts(), None, refusing(model))
    assert found["circuit/nodes"].rows[0][:4] == (1, "head", 2, 0)
    for name in ("edges", "reading"):
        assert found[f"circuit/{name}"].value == "left_out"
        assert "seen in 0 of 6" in found[f"circuit/{name}"].because
    assert found["circuit/diagram"].edges == []
    by_gradients = method("circuit", **QUICK, ranking="attribution")
    with pytest.raises(InputError, match="seen in 0 of 6"):
        reported(by_gradients, model, planted_prompts(), None, refusing(model))


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "gpt_neox"])
def test_other_architectures(architecture: str) -> None:
    model = tiny_model(architecture)
    found = reported(
        method("circuit", **QUICK | {"random_circuits": 29}),
        model,
        planted_prompts(),
        None,
        known(model, torch.ones(model.d_model), 1, (70, 71)),
    )
    results: list[Result] = list(found.values())
    if found["circuit/outcome"].value != "no_gap":
        assert any(isinstance(one, Diagram) for one in results)
    assert all(np.isfinite(one.value) for one in results if isinstance(one, Scalar))
