"""A model that is spread over devices gives what it gives whole: over the CPU and the disk, and over two devices."""

import copy
import gc
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from rcm.execution import interventions
from rcm.execution.components import Component, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import engine_of
from rcm.execution.interventions import Ablate, Add, Affine, Clamp, Intervention
from rcm.execution.likelihood import Text, cross_entropies, kl_divergences
from rcm.execution.metric import LogOdds
from rcm.execution.passes import last_logits, read_residuals
from rcm.execution.recording import cache_components
from rcm.models import LoadedModel, Placement, adapter, quantization
from rcm.models.devices import Device
from rcm.models.hub import Folder
from rcm.models.placement import stored, untested
from rcm.models.points import output_weight
from rcm.models.random import Random
from rcm.patching.contribution import contributions
from tests.conftest import FAMILIES, SIZE, UNSET, save, tiny_model
from tests.two_devices import spread

PROMPTS = ("Hi", "How do I bake a loaf of bread at home?", "Name a river, then a lake.", "Stop.")
CPU = torch.device("cpu")
UNLIKE = ("llama", "gpt2", "gemma2")  # shared keys; Conv1D; windows, and norms behind what is written
Sentence = Callable[[Callable[[], object]], str]


def folder(path: Path, **settings: Any) -> Folder:
    return Folder(**{"path": str(path), "dtype": "float32", **UNSET, **settings})


def on_disk(limit: str, offload: Path | None = None) -> Placement:
    return Placement(CPU, "auto", {"cpu": limit}, offload)


def measured(model: LoadedModel) -> dict[str, Any]:
    """What everything else is made of: logits, streams, replies, prices, rows and contributions."""
    vectors = torch.randn(len(PROMPTS), model.d_model, generator=torch.Generator().manual_seed(0))
    units = nn.functional.normalize(vectors, dim=-1)
    tokens = [model.template.tokens(prompt) for prompt in PROMPTS]
    base, source = (cache_components(model, rows, 2, neurons=True) for rows in (tokens, tokens[::-1]))
    engine = engine_of(model, base, source, 0)
    assert engine.path == "rows", engine.reason
    each = Rows.each(("head", "attention", "mlp", "residual"), engine.shape)
    first = [Component("neuron", layer) for layer in range(model.n_layers)]
    few = Rows.random_neurons(3, first, model.points.neurons, engine.shape, 0)
    rows = Rows.concat([each, few])
    texts = [Text(tuple(row), 2) for row in tokens]
    steered: list[Intervention] = [Affine(units[:1], torch.ones(1, model.n_layers)), Clamp(1, units[:1], torch.ones(1))]
    return {
        "logits": last_logits(model, PROMPTS),
        "steered": last_logits(model, PROMPTS, steered),
        "streams": read_residuals(model, PROMPTS, [-2, -1], "test").residuals,
        "added": reply_tokens(model, PROMPTS, 5, [Add(1, vectors)]),
        "ablated": reply_tokens(model, PROMPTS, 5, [Ablate(units)]),
        "kl": kl_divergences(model, texts[:2], 2, [Add(2, vectors)]),
        "loss": cross_entropies(model, texts[:2], 2, [Ablate(units)]),
        "rows": engine.measure(base, [base.at(-1), source.at(-1)], rows, LogOdds((70, 80))),
        "tail": engine.measure(base, [base.at(-2), source.at(-2)], each, LogOdds((70, 80)), tail=2),
        "written": contributions(model, base.at(-1), vectors[0]),
    }


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any], within: float = 1e-5) -> None:
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            off = (found[name].cpu() - value).abs().max() / value.abs().max().clamp(min=1)
            assert off <= within, (name, off)
        else:
            assert found[name] == value, name


@contextmanager
def over_two(model: LoadedModel) -> Iterator[LoadedModel]:
    """The same weights, the last layer on the second device and all else on the first."""
    twin = copy.deepcopy(model.hf)
    names = {id(module): name for name, module in model.hf.named_modules()}
    layers = [names[id(layer)] for layer in model.points.layers]
    own = {name for name, module in twin.named_modules() if [*module.parameters(False), *module.buffers(False)]}
    inside = tuple(f"{layer}." for layer in layers)
    places = {name: 0 for name in sorted(own) if not name.startswith(inside)}
    places |= {layer: int(layer == layers[-1]) for layer in layers}
    with spread(twin, places):
        yield LoadedModel.of(twin, model.template.tokenizer, "chat", batch_size=3, identity={"name": "spread"})


@pytest.mark.parametrize("architecture", UNLIKE)
def test_over_two_devices(architecture: str) -> None:
    whole = tiny_model(architecture)
    wanted = measured(whole)
    with over_two(whole) as model:
        lie = {parameter.device.index for parameter in model.hf.parameters()}
        assert lie == {0, 1}
        assert model.device.index == 0
        found = measured(model)
    assert_same(found, wanted)


def test_what_lies_on_the_wrong_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two devices find it where a vector stays behind: else the test above could not fail."""
    whole, vectors = tiny_model(), torch.ones(1, 32)
    with over_two(whole) as model:
        monkeypatch.setattr(interventions, "device_of", lambda module: model.device)
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            last_logits(model, PROMPTS, [Add(2, vectors)])


def test_a_number_of_the_cpu_goes_with_some_operations_only() -> None:
    """As on CUDA, which adds one to a tensor, and does not stack it with one."""
    with over_two(tiny_model()) as model:
        there, here = torch.ones((), device=model.device), torch.ones(())
        assert (there + here).item() == 2
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but stack"):
            torch.stack([there, here])


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_over_cpu_and_disk(architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = save(tiny_model(architecture), tmp_path / "model")
    whole = folder(path).load(CPU, "plain", 3)
    model = folder(path).load(on_disk("110KB", tmp_path / "offload"), "plain", 3)
    on_meta = [name for name, value in model.hf.named_parameters() if value.is_meta]
    assert 0 < len(on_meta) < len(list(model.hf.parameters()))
    assert re.search(r" on the CPU; .* on the disk", caplog.text)
    wanted = whole.hf.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in stored(model.hf))
    assert_same(measured(model), measured(whole))
    layer = model.n_layers - 1
    there, here = (output_weight(one.points.head_out[layer]) for one in (model, whole))
    assert (there - here).abs().max() < 1e-6


def test_half_the_bits_are_laid_on_the_disk_and_go_with_the_model(tmp_path: Path) -> None:
    path, offload = save(tiny_model(), tmp_path / "model"), tmp_path / "offload"
    model = folder(path, dtype="bfloat16").load(on_disk("55KB", offload), "plain", 3)
    assert any(value.is_meta for value in model.hf.parameters())
    assert {value.dtype for _, value in stored(model.hf)} == {torch.bfloat16}
    wanted = last_logits(folder(path, dtype="bfloat16").load(CPU, "plain", 3), PROMPTS)
    assert torch.equal(last_logits(model, PROMPTS), wanted)
    assert len(list(offload.iterdir())) == 1
    del model
    gc.collect()  # accelerate's hooks hold it in circles
    assert not list(offload.iterdir())


def test_random_weights_are_spread_as_well(tmp_path: Path) -> None:
    settings = Random(architecture="llama", size={**SIZE, **FAMILIES["llama"]}, seed=1, dtype="float32", **UNSET)
    model = settings.load(on_disk("110KB", tmp_path), "plain", 3)
    assert any(value.is_meta for value in model.hf.parameters())
    assert_same({"": last_logits(model, PROMPTS)}, {"": last_logits(settings.load(CPU, "plain", 3), PROMPTS)})


def test_numbers_are_checked_wherever_they_lie(tmp_path: Path, sentence: Sentence) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.hf.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    path = save(broken, tmp_path / "model")
    said = sentence(lambda: folder(path).load(on_disk("110KB"), "plain", 3))
    assert "1 values of model.layers.2.mlp.down_proj.weight are infinite or not a number" in said


def test_an_adapter_goes_into_weights_on_the_disk(tmp_path: Path) -> None:
    path = save(tiny_model(), tmp_path / "model")
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["o_proj"], r=2, init_lora_weights=False)
    get_peft_model(tiny_model().hf, config).save_pretrained(tmp_path / "adapter")
    settings = folder(path, adapter=str(tmp_path / "adapter"))
    whole, model = (settings.load(where, "plain", 3) for where in (CPU, on_disk("110KB")))
    assert any(value.is_meta for value in model.hf.parameters())
    assert_same({"": last_logits(model, PROMPTS)}, {"": last_logits(whole, PROMPTS)})
    plain = last_logits(folder(path).load(CPU, "plain", 3), PROMPTS)
    assert (last_logits(whole, PROMPTS) - plain).abs().max() > 0.01


def test_an_adapter_does_not_go_into_what_is_quantised_and_spread(tmp_path: Path, sentence: Sentence) -> None:
    settings = folder(tmp_path, adapter=str(tmp_path), quantization="nf4")
    assert "leave away device.map or model.quantization" in sentence(lambda: settings.load(on_disk("1GB"), "plain", 3))


def test_what_needs_the_whole_model_says_so(tmp_path: Path, sentence: Sentence) -> None:
    path = save(tiny_model(), tmp_path / "model")
    model = folder(path).load(on_disk("110KB"), "plain", 3)
    assert "load it with device.map=null" in sentence(lambda: model.bridge)


def test_places_that_cannot_be(tmp_path: Path, sentence: Sentence) -> None:
    unset: dict[str, Any] = dict.fromkeys(("batch_size", "threads", "map", "max_memory", "offload"))
    device = Device(kind="cpu", **{**unset, "max_memory": {"cpu": "1GiB"}})
    assert sentence(device.placement) == "device.max_memory is for a model that is spread; add device.map=auto."
    path, file = save(tiny_model(), tmp_path / "model"), tmp_path / "file"
    file.write_text("")
    assert f"device.offload={file}" in sentence(lambda: folder(path).load(on_disk("110KB", file), "plain", 3))
    partly = Placement(CPU, {"model.embed_tokens": "cpu"})
    assert "places model.embed_tokens, and not model.layers.0." in sentence(
        lambda: folder(path).load(partly, "plain", 3)
    )
    offload = tmp_path / "offload"
    offload.mkdir()
    for_parts = Placement(CPU, {"model.embed_tokens": "cpu"}, offload=offload)
    assert "and not model.layers.0." in sentence(lambda: for_parts.spread(tiny_model().hf))
    assert not list(offload.iterdir())


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_quantised_weights_are_measured_as_they_are(bits: str, tmp_path: Path) -> None:
    """On the CPU, where bitsandbytes runs, too: rows are those of the loop, and a layer is seen by what it does."""
    pytest.importorskip("bitsandbytes")
    path = save(tiny_model(hidden_size=64, intermediate_size=128), tmp_path / "model")
    plain, model = (folder(path, quantization=one).load(CPU, "plain", 3) for one in (None, bits))
    assert model.identity["quantization"] == bits
    projection = model.points.head_out[0]
    assert not projection.weight.is_floating_point()
    tokens = [model.template.tokens(prompt) for prompt in PROMPTS]
    base, source = (cache_components(model, rows) for rows in (tokens, tokens[::-1]))
    engine = engine_of(model, base, source, 0)
    assert engine.path == "rows", engine.reason
    weights = [output_weight(one.points.head_out[0]) for one in (plain, model)]
    off = (weights[0] - weights[1]).abs().max() / weights[0].abs().max()
    assert 0 < off < (0.02 if bits == "int8" else 0.2)
    vector = torch.ones(64)
    written = contributions(model, base.at(-1), vector)[0]
    assert (written - (base.at(-1).head[0] * (vector @ weights[1]).unflatten(-1, (4, 16))).sum(-1)).abs().max() < 1e-4


def test_bitsandbytes_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, sentence: Sentence) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    said = sentence(lambda: quantization.check_quantization("nf4"))
    assert 'install it with `pip install "rcm[quantization]"`' in said
    quantization.check_quantization(None)


def test_what_nobody_has_tried_is_said() -> None:
    gpu, disk = torch.device("cuda", 0), torch.device("meta")
    assert untested({CPU}, None) is untested({CPU}, "nf4") is untested({CPU, disk}, None) is None
    assert "makers: a GPU. Its" in str(untested({gpu}, None))
    told = str(untested({gpu, torch.device("cuda", 1)}, "int8"))
    assert "a GPU, several devices, one of them a GPU, int8 weights on a GPU" in told


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_of_choice(attention: str, tmp_path: Path) -> None:
    path = save(tiny_model(), tmp_path / "model")
    model = folder(path, attn_implementation=attention).load(CPU, "plain", 3)
    assert model.hf.config._attn_implementation == attention
    assert_same({"": last_logits(model, PROMPTS)}, {"": last_logits(folder(path).load(CPU, "plain", 3), PROMPTS)})


def test_float16_is_exact_by_its_own_measure(tmp_path: Path) -> None:
    path = save(tiny_model(), tmp_path / "model")
    half = folder(path, dtype="float16").load(CPU, "plain", 3)
    tokens = [half.template.tokens(prompt) for prompt in PROMPTS]
    base, source = (cache_components(half, rows) for rows in (tokens, tokens[::-1]))
    assert engine_of(half, base, source, 0).path == "rows"
    whole = last_logits(folder(path).load(CPU, "plain", 3), PROMPTS)
    assert 0 < (last_logits(half, PROMPTS) - whole).abs().max() < 1e-2 * whole.abs().max()


def test_an_adapter_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence: Sentence) -> None:
    """Put where the hub's cache would have it, at a revision; one that is not there is said in one sentence."""
    path, sha = save(tiny_model(), tmp_path / "model"), "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["o_proj"], r=2, init_lora_weights=False)
    own = tmp_path / "hub" / "models--someone--adapter"
    get_peft_model(tiny_model().hf, config).save_pretrained(own / "snapshots" / sha)
    (own / "refs").mkdir()
    (own / "refs" / "v2").write_text(sha)
    settings = folder(path, adapter="hub:someone/adapter@v2")
    monkeypatch.setattr(adapter, "fetched", adapter.fetched.__wrapped__)  # nothing stays behind for other tests
    settings.check(PROMPTS, "plain")
    assert settings.adapter_commit == sha
    by_path = folder(path, adapter=str(own / "snapshots" / sha)).load(CPU, "plain", 3)
    assert torch.equal(last_logits(settings.load(CPU, "plain", 3), PROMPTS), last_logits(by_path, PROMPTS))
    said = sentence(lambda: folder(path, adapter="hub:no/body").check(PROMPTS, "plain"))
    assert "hf download no/body" in said


LARGER = """
import resource, sys, torch
from rcm.models import Placement
from rcm.models.hub import Folder
from rcm.execution.engine import engine_of
from rcm.execution.recording import cache_components
from rcm.execution.components import Rows
from rcm.execution.metric import LogOdds
from rcm.execution.passes import last_logits, read_residuals

path, map, budget = sys.argv[1], sys.argv[2], int(sys.argv[3])
unset = dict.fromkeys(("family", "stage", "quantization", "attn_implementation", "adapter", "refusal_tokens"))
settings = Folder(path=path, dtype="float32", **unset)
settings.check([], "plain")
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used + budget, used + budget))
cpu = torch.device("cpu")
where = cpu if map == "null" else Placement(cpu, map, {"cpu": "40MB"})
model = settings.load(where, "plain", 2)
prompts = ["Name a river", "Stop now, please"]
tokens = [model.template.tokens(one) for one in prompts]
base, source = (cache_components(model, rows) for rows in (tokens, tokens[::-1]))
engine = engine_of(model, base, source, 0)
effects = engine.measure(base, [base.at(-1), source.at(-1)], Rows.each(("attention",), engine.shape), LogOdds((70,)))
streams = read_residuals(model, prompts, [-1], "test").residuals
torch.save([engine.path, last_logits(model, prompts), effects, streams], sys.argv[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is of Linux")
def test_a_model_larger_than_memory_is_mapped_from_the_disk(tmp_path: Path) -> None:
    """150 MB of weights in a process that may take 200 MB more than its imports do: the files, which count
    while they are mapped, and 70 MB.."""
    size = {**SIZE, "hidden_size": 512, "num_hidden_layers": 12, "intermediate_size": 1024, "num_key_value_heads": 4}
    large = Random(architecture="llama", size=size, seed=0, dtype="float32", **UNSET)
    whole, path = large.load(CPU, "plain", 2), tmp_path / "model"
    whole.hf.save_pretrained(path, max_shard_size="20MB")  # a file is mapped as a whole, and counts
    whole.template.tokenizer.save_pretrained(path)
    assert sum(file.stat().st_size for file in path.glob("*.safetensors")) > 120e6

    def run(map: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", LARGER, str(path), map, str(200 * 10**6), str(tmp_path / f"{map}.pt")]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert run("null").returncode != 0
    done = run("auto")
    assert done.returncode == 0, done.stderr
    way, logits, effects, streams = torch.load(tmp_path / "auto.pt", weights_only=True)
    assert way == "rows"
    prompts = ["Name a river", "Stop now, please"]
    tokens = [whole.template.tokens(one) for one in prompts]
    base, source = (cache_components(whole, rows) for rows in (tokens, tokens[::-1]))
    engine = engine_of(whole, base, source, 0)
    rows = Rows.each(("attention",), engine.shape)
    wanted = [
        last_logits(whole, prompts),
        engine.measure(base, [base.at(-1), source.at(-1)], rows, LogOdds((70,))),
        read_residuals(whole, prompts, [-1], "test").residuals,
    ]
    assert_same(dict(enumerate([logits, effects, streams])), dict(enumerate(wanted)))
