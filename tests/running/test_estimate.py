"""What a run will take, said before its weights load."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from rcm.errors import InputError
from rcm.execution.memory import weight_bytes
from rcm.execution.speed import Speed, speed
from rcm.execution.work import Scope, Work
from rcm.models.checkpoint import skeleton
from rcm.models.lending import asked
from rcm.packaged import CONF
from rcm.running import estimate
from rcm.running.chosen import Chosen, chosen_settings
from rcm.running.estimate import Estimate, estimated, rounded, seconds, span, stored, table
from rcm.running.run import foretold
from tests.planted import planted_model, planted_prompts
from tests.stubs import Method as Stub

ROOT = Path(__file__).parents[2]
RATE = Speed(1e9, 1e9)


def chosen(*overrides: str) -> Chosen:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return chosen_settings(compose("config", overrides=["experiment=smoke", *overrides]))


def of(settings: Chosen, **methods: Any) -> Estimate:
    prompts = settings.dataset.load()
    found = estimated(settings, prompts, asked(prompts.template), methods or settings.methods)
    assert found is not None
    return found


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says how many bytes are free."""

    def only(count: int) -> None:
        monkeypatch.setattr(estimate, "free_bytes", lambda device: count)

    return only


def test_more_is_estimated_to_take_longer() -> None:
    few, many = (of(chosen("method=behaviour", f"method.behaviour.max_new_tokens={n}")) for n in (4, 64))
    assert few.rows == many.rows
    assert many.tokens - few.tokens == few.rows * 60
    assert many.seconds[1] > 2 * few.seconds[1]
    assert few.seconds[0] <= few.seconds[1]
    assert many.beside > few.beside


def test_seconds_are_those_of_the_formula() -> None:
    """Of a work whose parts take known times at a known rate."""
    model, prompts = planted_model(), planted_prompts()
    scope = Scope.of(model.hf, prompts, model.template, batch_size=8, on_cpu=True)
    blocks = sum(one.numel() for layer in model.points.layers for one in layer.parameters())
    fast = estimate.REACHED[1]
    least, most = seconds([Work("", tokens=100.0, least=0.5)], model.hf, scope, 0, RATE)
    assert least == pytest.approx(0.5 * 100 * blocks / fast / 1e9)
    assert most == pytest.approx(100 * blocks / estimate.REACHED[0] / 1e9)
    back, _ = seconds([Work("", gradients=100.0)], model.hf, scope, 0, RATE)
    assert back == pytest.approx(estimate.BACK * 100 * blocks / fast / 1e9)
    unembedded, _ = seconds([Work("", logits=100)], model.hf, scope, 0, RATE)
    assert unembedded == pytest.approx(100 * scope.d_model * scope.vocabulary / fast / 1e9)
    passes, _ = seconds([Work("", passes=10)], model.hf, scope, 10**9, RATE)
    assert passes == pytest.approx(10 * (1 + estimate.OVERHEAD * scope.layers))


def test_weights_count_once_and_in_their_type() -> None:
    settings = chosen()
    hf = skeleton(settings.model.config())
    half = of(chosen("model.dtype=bfloat16", "method=behaviour"))
    assert stored(hf, None) == weight_bytes(hf) == of(settings).weights
    assert half.weights == pytest.approx(weight_bytes(hf) / 2, rel=0.01)
    assert stored(hf, "nf4") < stored(hf, "int8") < stored(hf, None)


def test_what_cannot_fit_is_refused_and_what_may_not_is_warned_of(free: Any, caplog: Any) -> None:
    settings = chosen("method=behaviour")
    prompts = settings.dataset.load()
    given = settings, prompts, asked(prompts.template), settings.methods
    weights = of(settings).weights
    free(weights // 2)
    with pytest.raises(InputError, match=r"^random-llama takes .* are free on cpu; .*device\.map=auto.*bfloat16"):
        foretold(*given)
    free(weights + 1)
    foretold(*given)
    assert "It may not fit: random-llama takes" in caplog.text
    caplog.clear()
    free(10**12)
    foretold(*given)
    assert "It may not fit" not in caplog.text


def test_a_method_that_does_not_say_is_named_and_another_kind_of_model_is_not_known() -> None:
    settings = chosen("method=behaviour")
    stub = Stub.model_construct()
    both = of(settings, **settings.methods, mine=stub)
    assert both.unknown == ["mine"]
    assert both.sentence.endswith("not known: mine")
    assert of(settings, mine=stub).sentence.endswith("what mine will take is not known")
    prompts = settings.dataset.load()
    assert estimated(settings._replace(model=stub), prompts, "chat", settings.methods) is None


def test_numbers_are_as_exact_as_they_can_be() -> None:
    assert [rounded(n) for n in (0, 99, 101, 41_234, 1_950_000)] == ["0", "99", "100", "41,000", "2,000,000"]
    assert span(1.0, 20.0) == "under a minute"
    assert span(20.0, 80.0) == "20 to 80 seconds"
    assert span(240.0, 480.0) == "4 to 8 minutes"
    assert span(3600.0, 9000.0) == "1 to 2.5 hours"
    assert span(7200.0, 7210.0) == "2 hours"


def test_the_device_is_measured() -> None:
    found = speed(torch.device("cpu"), torch.float32, 64, 128)
    assert found.multiplications > 1e7
    assert found.bytes > 1e7


def test_several_runs_make_one_table() -> None:
    one = of(chosen("method=behaviour"))
    told = table([("random", one), ("other", one)])
    assert told.count("random-llama") == 2
    assert "one after the other" in told


def test_the_command_says_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Of two models, in a folder of which nothing is left; with the exit code of what fits."""
    command = [sys.executable, str(ROOT / "launch.py"), "experiment=smoke", "method=behaviour", "estimate=true"]
    command += ["model.size.num_hidden_layers=2,3", "-m"]  # Hydra's parser takes no override behind such a flag
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("About ") == 2
    assert "one after the other" in done.stdout
    assert list(tmp_path.iterdir()) == []
