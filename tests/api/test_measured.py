"""Methods from Python: what was planted is found, nothing is found twice, and figures are the command line's."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rcm
from rcm.api.directions import Direction
from rcm.api.models import Model
from rcm.record.results import Scalar
from tests.planted import (
    LAYERS,
    planted_direction,
    planted_judge,
    planted_model,
    planted_prompts,
    shuffled,
)

ROOT = Path(__file__).parents[2]
QUICK = {"null_draws": 20, "null_directions": 2}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(planted_model(layer=3), "chat")


@pytest.fixture(scope="module")
def direction(model: Model) -> Direction:
    return rcm.direction(model, dataset=planted_prompts(), judge=planted_judge(), **QUICK)


def test_the_planted_direction_is_found(direction: Direction) -> None:
    assert (direction.outcome.value, direction.layer, direction.position) == ("selected", 3, -1)
    cosine = torch.nn.functional.cosine_similarity(direction.vector, planted_direction(), dim=0)
    assert cosine > 0.99
    assert direction.probe_accuracy.value == 1.0 > direction.probe_accuracy.null.value
    assert float(direction.separation) == direction.results["direction/separation"].value


def test_under_labels_without_meaning_none_is_found_and_nothing_is_steered(model: Model) -> None:
    found = rcm.direction(model, dataset=shuffled(planted_prompts()), judge=planted_judge(), **QUICK)
    assert found.outcome.value not in ("selected", "nearest_miss")
    for replies in (found.force("bcd"), found.suppress("b##d")):
        assert (len(replies), replies.outcome.value) == (0, found.outcome.value)
        assert "nothing is steered" in repr(replies)


def test_what_a_method_needs_is_found_once(
    model: Model, direction: Direction, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("rcm"), "propagate", True)
    caplog.set_level(logging.INFO, "rcm")
    given = {"dataset": planted_prompts(), "judge": planted_judge(), "random_sets": 20}
    patching = rcm.patching(model, direction=direction, judge=planted_judge(), random_sets=20)
    assert "finding it first" not in caplog.text
    assert patching.before["direction"] is direction
    assert rcm.patching(model, direction=direction, judge=planted_judge(), random_sets=20) is patching

    other = rcm.patching(model, **given)  # with the default settings of the direction, which has not been found yet
    assert "patching needs the direction: finding it first, with its default settings" in caplog.text
    assert other.before["direction"] is not direction
    caplog.clear()
    assert rcm.patching(model, **(given | {"random_sets": 21})).before == other.before
    assert "the direction was found before" in caplog.text
    again = rcm.direction(model, dataset=planted_prompts())
    assert again.finding is other.before["direction"].finding
    assert (again.study.judge, other.study.judge) != (planted_judge(), again.study.judge)  # whoever is asked to judge


def test_the_planted_head_is_critical(model: Model, direction: Direction) -> None:
    patching = rcm.patching(model, direction=direction, random_sets=20)
    assert [(one.layer, one.head) for one in patching.critical_heads][:1] == [(2, 0)]
    assert {(one.layer, one.component) for one in patching.critical_layers} == {(2, "attention")}
    assert all(one.share > 0.5 for one in patching.critical_heads[:1])


def test_the_planted_head_is_the_circuit(model: Model, direction: Direction) -> None:
    circuit = rcm.circuit(
        model, direction=direction, pairs=8, test_pairs=8, random_circuits=29, curve_circuits=4, prompts=0
    )
    assert circuit.heads[:1] == [(2, 0)]
    assert 2 in circuit.layers
    assert len(circuit.heads) + len(circuit.mlps) == circuit.size.value < LAYERS
    with pytest.raises(AttributeError, match=r"rcm\.patching\(model\)\.critical_heads"):
        _ = circuit.critical_heads


def test_what_was_found_in_another_model_or_on_other_prompts_is_refused(
    model: Model, direction: Direction, sentence
) -> None:
    other = Model(planted_model(layer=3), "chat")
    assert "another model" in sentence(lambda: rcm.circuit(other, direction=direction))
    assert "other prompts" in sentence(lambda: rcm.circuit(model, direction=direction, dataset=planted_prompts(1)))
    assert "another seed" in sentence(lambda: rcm.circuit(model, direction=direction, seed=1))
    assert "leave direction= away" in sentence(lambda: rcm.behaviour(model, direction=direction))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda model: rcm.direction(model, max_k=1), "did you mean 'max_kl': it has positions, filter,"),
        (lambda model: rcm.direction(model, max_kl=object()), "method.direction.max_kl cannot be a object"),
        (lambda model: rcm.direction(model, dataset="pears"), "There is no dataset 'pears'; did you mean 'pairs':"),
        (lambda model: rcm.direction(model, judge="strict"), "There is no judge 'strict'"),
        (lambda model: rcm.direction(model, dataset=planted_prompts(), test=8), "give those to rcm.dataset"),
        (lambda model: rcm.direction("planted"), "takes a model of rcm.load or rcm.wrap, not a str"),
    ],
)
def test_what_cannot_be_is_one_sentence(model: Model, call, told: str, sentence) -> None:
    assert told in sentence(lambda: call(model))


def test_a_value_of_another_type_is_named(model: Model) -> None:
    with pytest.raises(ValueError, match=r"^method\.direction\.positions=-1: [^\n]+$"):
        rcm.direction(model, positions=-1)


def test_importing_brings_no_pytorch_and_packages_of_one_name_stay_packages() -> None:
    script = (
        "import sys, rcm; assert 'torch' not in sys.modules; assert 'patching' in dir(rcm); load = rcm.load; "
        "import rcm.patching; from rcm.patching import Pairs; assert rcm.patching.Pairs is Pairs; "
        "assert callable(rcm.patching) and callable(rcm.transplant) and callable(rcm.neurons)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_rcm_has_not_is_told() -> None:
    with pytest.raises(AttributeError, match="rcm has no 'directon'; it has behaviour, circuit, dataset, direction"):
        _ = rcm.directon


@pytest.mark.slow
def test_figures_are_those_of_the_command_line(tmp_path: Path) -> None:
    given = ["model=random", "model.seed=3", "dataset.train=16", "dataset.validation=12", "dataset.test=12", "seed=5"]
    own = ["method.behaviour.max_new_tokens=6", "method.direction.null_draws=7", "method.direction.null_directions=1"]
    command = [sys.executable, str(ROOT / "launch.py"), *given, *own, "method=[behaviour,direction]"]
    done = subprocess.run(
        [*command, "device=cpu", "tracker=disk", "hydra.run.dir=run"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model = rcm.load("random", seed=3, device="cpu")
    few = rcm.dataset(train=16, validation=12, test=12)
    behaviour = rcm.behaviour(model, dataset=few, seed=5, max_new_tokens=6)
    direction = rcm.direction(model, behaviour=behaviour, null_draws=7, null_directions=1)
    compared = 0
    for name, result in {**behaviour.results, **direction.results}.items():
        if isinstance(result, Scalar):
            value = None if math.isnan(result.value) else result.value
            assert metrics[name] == value, name
            compared += value is not None
    assert compared > 5
