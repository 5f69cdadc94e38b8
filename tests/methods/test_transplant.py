"""Directions and activations of one planted model, brought into others."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rcm.errors import InputError
from rcm.execution.components import Rows
from rcm.execution.recording import shape_of
from rcm.methods.transplant import _cosine
from rcm.models import LoadedModel
from rcm.prompts import texts
from rcm.record.identity import prompt_digest
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.transplant.activations import WRITTEN_KINDS, Donor, kept_activations
from rcm.transplant.mapping import like_depth, mapped
from tests import planted
from tests.conftest import tiny_model
from tests.planted import MAP, composed, method, planted_model, planted_prompts, reported

PLACE = (2, 0)  # of the planted head, which writes the direction


def headless(model: LoadedModel | None = None) -> LoadedModel:
    """The untuned twin: it would refuse, did anything tell it what is harmful."""
    model = model or planted_model()
    model.hf.model.layers[2].self_attn.v_proj.weight[0, planted.TRIGGER_AXIS] = 0
    return replace(model, identity={"name": "headless"})


def deaf() -> LoadedModel:
    """The other untuned twin: it knows what is harmful, and has no words for refusing."""
    model = planted_model()
    model.hf.get_output_embeddings().weight[model.template.tokenizer(planted.REFUSE)["input_ids"][0]] = 0
    return replace(model, identity={"name": "deaf"})


QUICK = {"max_new_tokens": 3, "kl_prompts": 2, "compared_prompts": 2, "plain_texts": 2, "strengths": [1.0]}


def run_of(
    model: LoadedModel, folder: Path, name: str = "tuned", job: tuple[str, ...] = ("direction",), **settings: Any
) -> Path:
    """A finished run of this model."""
    run = Run(
        name[:8],
        folder / name,
        {"model": name, "method": ",".join(job)},
        {"model": {"name": name}, "method": dict.fromkeys(job)},
        {"started": name},
    )
    run.directory.mkdir(parents=True)
    methods = composed(*job, **settings | (QUICK | {"pairs": 10, "random_sets": 10} if job == MAP else {}))
    with Store(run) as store:
        for result in reported(methods, model, planted_prompts()).values():
            store.save(result)
    return run.directory


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(planted_model(), tmp_path_factory.mktemp("runs"), job=MAP)


def transplanted(source: Path, model: LoadedModel, of_seed: int = 0, **overrides: Any) -> dict[str, Any]:
    """On prompts of this seed."""
    # At this strength none of nineteen random directions refuses, in so narrow a model.
    quick = {"strength": 0.15, "null_directions": 19, "max_new_tokens": 3, "random_sets": 10, "refits": 3}
    settings = method("transplant", source=str(source), **quick | overrides)
    return reported(settings, model, planted_prompts(of_seed))


def test_a_direction_forces_where_refusing_waits_for_it(tuned: Path) -> None:
    found = transplanted(tuned, headless())
    force = found["transplant/force_rate_from_tuned"]
    assert force.value == 1
    assert force.null.value < force.interval[0]
    assert (force.null.draws, force.null.p) == (19, 0.05)
    assert np.isnan(found["transplant/suppress_rate_from_tuned"].value)
    assert found["transplant/outcome_from_tuned"].value == "forces"


def test_the_planted_head_alone_restores_refusal(tuned: Path) -> None:
    found = transplanted(tuned, headless())
    heads, layers = found["transplant/heads_from_tuned"], found["transplant/layers_from_tuned"]
    assert list(heads.marked) == [PLACE]
    assert heads.values[PLACE] == pytest.approx(1, abs=0.05)
    assert np.abs(np.delete(heads.values.flatten(), PLACE[0] * 2)).max() < 0.05
    assert list(layers.marked) == [(2, 0)]
    assert found["transplant/last_token_from_tuned"].value == pytest.approx(1, abs=1e-3)
    together = found["transplant/critical_heads_from_tuned"]
    assert together.value == pytest.approx(1, abs=0.05)
    assert together.null.value < 0.1


def test_at_home_a_direction_steers_and_nothing_is_patched(tuned: Path) -> None:
    found = transplanted(tuned, planted_model())
    assert found["transplant/outcome_from_tuned"].value == "steers"
    assert found["transplant/cosine_from_tuned"].value == pytest.approx(1, abs=1e-4)
    assert "transplant/heads_from_tuned" not in found


def test_a_direction_does_nothing_where_no_word_follows_from_it(tuned: Path) -> None:
    found = transplanted(tuned, deaf())
    assert found["transplant/outcome_from_tuned"].value == "nothing"
    assert found["transplant/force_rate_from_tuned"].value == 0
    assert found["transplant/cosine_from_tuned"].value == pytest.approx(1, abs=1e-2)


def test_a_folder_gives_a_row_for_each_model(tmp_path: Path) -> None:
    run_of(planted_model(), tmp_path, "tuned")
    run_of(deaf(), tmp_path, "deaf")
    found = transplanted(tmp_path, planted_model(), prompts=8)
    rows = {
        row[0]: dict(zip(found["transplant/matrix"].columns, row, strict=True))
        for row in found["transplant/matrix"].rows
    }
    assert set(rows) == {"deaf"}  # its own run has steered it with its own direction
    assert rows["deaf"]["place"] == "this model's choice"
    assert rows["deaf"]["outcome"] == "steers"  # the same representation, here wired to refusing
    assert rows["deaf"]["layer"] == 3
    assert rows["deaf"]["force_p"] == 0.05
    assert rows["deaf"]["force_n"] == 8
    parts = [
        dict(zip(found["transplant/decomposition"].columns, row, strict=True))
        for row in found["transplant/decomposition"].rows
    ]
    assert [(row["source"], row["operation"]) for row in parts] == [("deaf", "ablate"), ("deaf", "add")]
    assert all(row["along"] > 0.9 and row["own_low"] > 1 for row in parts)  # it had the direction, and no word for it
    replies = found["transplant/transcripts"].rows
    assert {row["source"] for row in replies} == {"deaf"}
    assert {row["kind"] for row in replies} == {"harmful", "harmless"}


def test_recordings_meet_their_prompts_whatever_the_order() -> None:
    """Some of the prompts, recorded in another order, give those prompts' figures."""
    prompts = texts(planted_prompts().test.harmful)
    model, other = tiny_model("llama"), tiny_model("llama")
    with torch.no_grad():
        for weight in other.hf.parameters():
            weight.mul_(1.3)
    patches = Rows.each(WRITTEN_KINDS, shape_of(model))

    def under(recorded: Sequence[str]) -> torch.Tensor:
        return Donor.of(kept_activations(other, recorded, (7,)), prompts).into(model, patches, seed=0).under

    whole = under(prompts)
    order = random.Random(1).sample(range(len(prompts)), 7)
    some = under([prompts[i] for i in order])
    assert torch.allclose(some, whole[sorted(order)], atol=1e-4)
    assert not torch.allclose(some, whole[order], atol=1e-4)


def test_own_recordings_change_nothing() -> None:
    prompts, model = texts(planted_prompts().test.harmful), planted_model()
    token = model.template.tokenizer(planted.REFUSE)["input_ids"][0]
    donor = Donor.of(kept_activations(model, prompts, (token,)), prompts)
    patched = donor.into(model, Rows.each(WRITTEN_KINDS, shape_of(model)), seed=0)
    assert np.abs(patched.effects).max() < 1e-3
    assert np.abs(patched.gap).max() < 1e-3
    assert len(patched.shares(1.0)) == 0


def test_the_cosine_stands_out_from_shuffled_labels_or_does_not() -> None:
    draw = np.random.default_rng(0)
    axis, other = np.eye(30)[:2]
    harmful, harmless = (draw.standard_normal((60, 30)) + sign * axis for sign in (1, -1))
    cosine, null = _cosine(axis, harmful, harmless, 200, seed=0)
    assert cosine > 0.85
    assert 0.2 < null < 0.6
    assert abs(_cosine(other, harmful, harmless, 200, seed=0)[0]) < null


# Sources


def test_what_is_no_source_is_told_before_anything_is_loaded(tmp_path: Path, tuned: Path) -> None:
    behaved = run_of(planted_model(), tmp_path / "elsewhere", "behaved", ("behaviour",))
    for source, why in (
        (None, r"method\.transplant\.source=null names no run"),
        (tmp_path / "missing", "There is no folder"),
        (tmp_path, r"No finished run in .* looked for a direction; run one first"),
        (behaved, "did not look for a direction"),
    ):
        with pytest.raises(InputError, match=why):
            method("transplant", source=source and str(source)).check()
    method("transplant", source=str(tuned)).check()


def test_a_source_of_another_shape_is_refused_with_the_cure(tuned: Path) -> None:
    with pytest.raises(
        InputError, match=r"6 layers of width 32, this model 6 of 48; method\.transplant\.across_shapes=true"
    ):
        transplanted(tuned, planted_model(width=48))


def test_a_source_with_another_template_is_refused(tuned: Path) -> None:
    model = planted_model()
    model.template.tokenizer.chat_template = planted.TEMPLATE + " "
    with pytest.raises(InputError, match="another template"):
        transplanted(tuned, LoadedModel.of(model.hf, model.template.tokenizer, "chat"))


# Across shapes


def test_a_map_takes_a_direction_across(tuned: Path) -> None:
    """The wide model's axes are the narrow one's first, so the planted direction is where it was."""
    found = transplanted(tuned, planted_model(width=48), across_shapes=True)
    row = dict(zip(found["transplant/matrix"].columns, found["transplant/matrix"].rows[0], strict=True))
    assert row["place"] == "mapped"
    assert "transplant/heads_from_tuned" not in found
    assert np.isfinite(row["cosine"])


def test_a_map_is_that_of_the_activations() -> None:
    draw = np.random.default_rng(0)
    here, matrix = draw.standard_normal((200, 12)), draw.standard_normal((12, 20))
    vector = draw.standard_normal(12)
    there = here @ matrix + 3 + 0.01 * draw.standard_normal((200, 20))
    assert mapped(vector, here, there) == pytest.approx(vector @ matrix, abs=0.05)
    assert np.linalg.norm(mapped(vector, here, draw.permutation(there))) < 0.5 * np.linalg.norm(vector @ matrix)


def test_prompts_that_were_not_shared_cannot_be_mapped_on(tmp_path: Path) -> None:
    source = run_of(planted_model(), tmp_path)
    with pytest.raises(InputError, match="share 0 harmless training prompts, too few to fit a map"):
        transplanted(source, planted_model(width=48), across_shapes=True, of_seed=1)


@pytest.mark.parametrize(("layer", "layers", "of", "there"), [(0, 30, 12, 0), (22, 30, 12, 9), (29, 30, 12, 11)])
def test_like_depth(layer: int, layers: int, of: int, there: int) -> None:
    assert like_depth(layer, layers, of) == there


def test_prompts_are_named_by_their_digest() -> None:
    prompts = texts(planted_prompts().test.harmful)
    kept = kept_activations(planted_model(), prompts, (1,))
    assert json.loads(kept.metadata["prompts"]) == [prompt_digest(prompt) for prompt in prompts]
    assert kept.tensors["head"].shape[:2] == (planted.LAYERS, len(prompts))


def test_a_direction_without_a_place_of_its_own_takes_this_models_length(tmp_path: Path) -> None:
    """The deaf twin selected nothing; brought to the length that refuses here, its direction refuses here."""
    run_of(planted_model(), tmp_path, "tuned")
    quiet = deaf()
    quiet.hf.model.layers[2].self_attn.o_proj.weight[planted.REFUSAL_AXIS, 0] /= 20
    run_of(quiet, tmp_path, "deaf")
    found = transplanted(tmp_path, planted_model(), prompts=8)
    assert found["transplant/outcome_from_deaf"].value == "steers"


def test_a_nearest_miss_is_decomposed_and_told_as_one(tmp_path: Path) -> None:
    run_of(planted_model(), tmp_path, "tuned", max_kl=0.0)
    run_of(deaf(), tmp_path, "deaf")
    found = transplanted(tmp_path, planted_model(), prompts=8)
    matrix = found["transplant/matrix"]
    assert dict(zip(matrix.columns, matrix.rows[0], strict=True))["place"] == "this model's choice (nearest miss)"
    assert "(place: this model's choice (nearest miss))" in found["transplant/outcome_from_deaf"].because
    assert len(found["transplant/decomposition"].rows) == 2
    assert found["transplant/decomposition"].caveat == "nearest miss"


# Circuits


@pytest.fixture(scope="module")
def with_circuit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the tuned model that found its circuit."""
    folder = tmp_path_factory.mktemp("circuits")
    few = {"pairs": 8, "test_pairs": 8, "random_circuits": 29, "curve_circuits": 2, "prompts": 0}
    return run_of(planted_model(), folder, job=("direction", "circuit"), **few).parent


@pytest.fixture(scope="module")
def without_circuit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that looked for a direction alone."""
    return run_of(planted_model(), tmp_path_factory.mktemp("runs"))


FEW = {"prompts": 4, "circuit_pairs": 8, "random_circuits": 29}


def test_the_circuit_of_a_run_is_tried_in_a_twin_and_compared_with_its_own(with_circuit: Path) -> None:
    alone = transplanted(with_circuit, replace(planted_model(), identity={"name": "twin"}), **FEW)
    assert alone["transplant/circuit_gap_from_tuned"].interval[0] > 1
    assert alone["transplant/circuit_alone_from_tuned"].value == pytest.approx(1, abs=0.1)
    assert alone["transplant/circuit_left_from_tuned"].value == pytest.approx(0, abs=0.1)
    assert alone["transplant/circuit_rank_correlation_from_tuned"].value > 0.999
    assert "transplant/circuit_jaccard_from_tuned" not in alone
    table = alone["transplant/circuits"]
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert row["source"] == "tuned"
    assert row["home_gap"] == pytest.approx(row["gap"], rel=1e-4)  # the very weights and pairs


def test_the_circuit_of_a_run_carries_nothing_in_the_untuned_twin(with_circuit: Path) -> None:
    """Its idle weights do a little to the word for refusing, and that head has no part in it."""
    found = transplanted(with_circuit, headless(), **FEW)
    table = found["transplant/circuits"]
    (row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert 0 < row["gap"] < 0.2 * row["home_gap"]
    because = found["transplant/circuit_from_tuned"].because
    assert f"The gap is {row['gap']:.2f} nats, {row['home_gap']:.2f} where it was found." in because
    assert (row["outcome"], row["alone"]) == ("unspecific", pytest.approx(0, abs=0.1))
    assert row["left"] == pytest.approx(1, abs=0.1)


def circuits_in(found: dict[str, Any]) -> list[str]:
    return [name for name in found if name.startswith("transplant/circuit")]


def test_without_a_circuit_of_another_model_there_is_nothing_to_try(with_circuit: Path, without_circuit: Path) -> None:
    assert not circuits_in(transplanted(without_circuit, headless(), **FEW))
    assert not circuits_in(transplanted(with_circuit, planted_model(), **FEW))  # the run's own model


def test_a_circuit_is_no_circuit_in_another_shape(with_circuit: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = transplanted(with_circuit, planted_model(width=48), across_shapes=True, **FEW)
    assert not circuits_in(found)
    assert len(found["transplant/matrix"].rows) == 1
    assert "The circuit of tuned is left out: its model has 6 layers of 2 heads and width 32" in caplog.text


# Directions that somebody else found


def test_this_models_own_direction_from_a_file_is_found_to_be_its_own(tmp_path: Path) -> None:
    model = planted_model()
    direction = reported(method("direction"), model, planted_prompts())["direction/directions"]
    row, layer = 0, 3
    vector = direction.tensors["mean_difference"][row, layer]
    own, noise = tmp_path / "own.safetensors", tmp_path / "noise.safetensors"
    place = {"position": "-1", "layer": str(layer)}
    save_file({"direction": vector / vector.norm()}, own, place)
    save_file({"direction": torch.randn(32, generator=torch.Generator().manual_seed(0))}, noise, place)
    found, chance = transplanted(own, model), transplanted(noise, model)
    assert found["transplant/cosine_from_own"].value == pytest.approx(1, abs=0.01)
    assert found["transplant/outcome_from_own"].value == "steers"
    assert "as long as this model's mean difference there" in found["transplant/outcome_from_own"].because
    assert chance["transplant/outcome_from_noise"].value == "nothing"
    cosine = chance["transplant/cosine_from_noise"]
    assert abs(cosine.value) < cosine.null.value
    assert "transplant/decomposition" not in found  # no run of this model chose a place
    assert not circuits_in(found)
