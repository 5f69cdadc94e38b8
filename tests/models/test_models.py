"""Where weights come from: every source gives a whole model or one sentence, and leaves nothing behind."""

import gc
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import weakref
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFWriter
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import AutoConfig

import rcm.models.gguf
from rcm.execution.passes import last_logits
from rcm.models import LoadedModel, Model
from rcm.models.gguf import Gguf, PackagedGguf
from rcm.models.hub import Folder, Hub
from rcm.models.lending import asked
from rcm.models.loaded import longest_prompt, twin_of
from rcm.models.points import points_of
from rcm.models.random import Random, byte_tokenizer
from rcm.models.template import Kind, Lent, Template
from tests.conftest import CHAT, UNSET, commit, save

PROMPTS = ("Hi", "How do I bake bread?")
CPU = torch.device("cpu")
Tiny = Callable[..., LoadedModel]
Sentence = Callable[[Callable[[], object]], str]


def settings(kind: type[Model], **fields: Any) -> Any:
    return kind(**{**UNSET, "family": "tiny", "stage": "base", "dtype": "float32", **fields})


def random(**fields: Any) -> Random:
    return settings(Random, **{"architecture": "llama", "size": {}, "seed": 0, **fields})


def folder(path: Path, **fields: Any) -> Folder:
    return settings(Folder, path=str(path), **fields)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is a failure of the test."""

    def weights(_: Model) -> None:
        pytest.fail("weights were loaded")

    for kind in (Folder, Hub, Gguf, PackagedGguf):
        monkeypatch.setattr(kind, "weights", weights)


# Loaded models


def test_points_are_found(tiny: Tiny, family: str):
    model = tiny(family)
    points = points_of(model.hf)
    assert model.n_layers == len(points.layers) == len(points.attention_out) == len(points.mlp_out) == 3
    assert model.d_model == 32
    assert points.neurons == (64, 64, 64)
    written = (points.layers, points.attention_out, points.mlp_out)
    assert len({id(part) for parts in written for part in parts}) == 9
    for projection, out in zip(points.head_out, points.attention_out, strict=True):
        assert projection is out or "Norm" in type(out).__name__
    for layer, *inside in zip(*vars(points).values(), strict=True):
        assert all(any(part is one for part in layer.modules()) for one in inside)


def test_a_loaded_model_is_ready_to_be_measured(tiny: Tiny):
    model = tiny()
    assert not model.hf.training
    assert not any(parameter.requires_grad for parameter in model.hf.parameters())
    assert model.hf.generation_config.do_sample is False
    assert model.device == CPU
    assert (longest_prompt(model.hf.config), longest_prompt(tiny("gpt2").hf.config)) == (256, 256)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "opt"])
def test_the_bridge_is_a_twin(tiny: Tiny, architecture: str):
    model = tiny(architecture)
    before = last_logits(model, PROMPTS)
    classes = {name: type(part) for name, part in model.hf.named_modules()}
    attention = model.hf.config._attn_implementation
    own = {name: parameter.data_ptr() for name, parameter in model.hf.named_parameters()}
    assert {name: parameter.data_ptr() for name, parameter in twin_of(model.hf).named_parameters()} == own
    tokens = torch.tensor([model.template.tokens(PROMPTS[1])])
    with torch.inference_mode():
        logits = model.bridge(tokens)[:, -1]
    assert (logits - before[1]).abs().max() < 1e-5 * before.abs().max()
    assert model.bridge is model.bridge
    # The raw tree is as it was, to the last bit: its classes, its attention, its numbers.
    assert {name: type(part) for name, part in model.hf.named_modules()} == classes
    assert model.hf.config._attn_implementation == attention
    assert torch.equal(last_logits(model, PROMPTS), before)
    fused = sum(p.numel() for name, p in model.hf.named_parameters() if "c_attn" in name or "query_key_value" in name)
    copied = sum(p.numel() for p in model.bridge.parameters() if p.data_ptr() not in own.values())
    assert copied <= fused  # TransformerLens splits fused queries, keys and values; all else is shared


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_dropped_model_is_freed(tiny: Tiny, architecture: str):
    model = tiny(architecture)
    model.bridge(torch.tensor([model.template.tokens("Hi")]))
    last_logits(model, PROMPTS)
    left = [weakref.ref(model), weakref.ref(model.hf), weakref.ref(model.bridge), weakref.ref(model.points.layers[0])]
    left += [weakref.ref(parameter) for parameter in model.hf.parameters()]
    del model
    gc.collect()
    assert not [reference for reference in left if reference() is not None]


def test_an_architecture_that_transformer_lens_does_not_know(tiny: Tiny, sentence: Sentence):
    class UnheardOfForCausalLM(type(tiny().hf)):
        pass

    unknown = tiny().hf
    unknown.__class__ = UnheardOfForCausalLM
    assert "UnheardOfForCausalLM" in sentence(lambda: points_of(unknown))


# Refusal tokens and checks before weights


def test_refusal_tokens_are_given_as_text_or_ids():
    model = random(size=SMALL, refusal_tokens=("I", 40)).load(CPU, "chat", 4)
    assert model.refusal_tokens == (byte_tokenizer()("I")["input_ids"][0], 40)
    assert random(size=SMALL).load(CPU, "chat", 4).refusal_tokens is None


@pytest.mark.parametrize("text", ["I am", ""])
def test_a_refusal_token_is_one_token(sentence: Sentence, text: str):
    message = sentence(lambda: random(size=SMALL, refusal_tokens=("I", text)).load(CPU, "chat", 4))
    assert repr(text) in message
    assert f"{len(text)} tokens" in message


SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"architecture": "lama"}, "lama"),
        ({"architecture": "t5"}, "causal"),
        ({"size": {"hidden_sise": 8}}, "hidden_sise"),
        ({"size": {"hidden_size": "wide"}}, "wide"),
        ({"size": {"hidden_size": 30, "num_attention_heads": 4}}, "(30)"),
        ({"size": {"max_position_embeddings": 24}}, "24"),
    ],
)
def test_random_weights_of_what_does_not_exist(sentence: Sentence, fields: dict[str, Any], told: str):
    message = sentence(lambda: random(**fields).check(PROMPTS, "chat"))
    assert told in message
    assert len(message) < 400


def test_random_weights_follow_the_seed_alone():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(len(os.urandom(1)))
        return random(size={**SMALL, "vocab_size": 300}, seed=seed).weights().hf.get_input_embeddings().weight

    assert weights(0).shape == (300, 8)
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


# The hub and folders


def test_the_hub_gives_weights_and_their_commit(hub_cache: Callable[..., Path]):
    name = "EleutherAI/pythia-160m"
    hub_cache(name)
    hub_cache(name, revision="step1000")
    first, last = (settings(Hub, name=name, revision=revision) for revision in ("step1000", None))
    models = []
    for model, revision in ((first, "step1000"), (last, "main")):
        model.check(PROMPTS, "chat")
        models.append(model.load(CPU, "chat", 4))
        assert models[-1].identity == {
            "name": name,
            "revision": commit(name, revision),
            "adapter": "",
            "dtype": "float32",
        }
    assert models[0].template.kind == "plain"
    assert not torch.equal(*(last_logits(model, PROMPTS) for model in models))
    half = settings(Hub, name=name, revision=None, dtype="bfloat16").load(CPU, "plain", 4)
    assert half.hf.dtype == torch.bfloat16
    assert last_logits(half, PROMPTS).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "revision"), [("google/gemma-2-2b-it", None), ("EleutherAI/pythia-160m", "step7"), ("a/b/c", None)]
)
@pytest.mark.parametrize("part", ["config", "tokenizer", "weights"])
def test_a_hub_out_of_reach(
    hub_cache: Callable[..., Path], sentence: Sentence, name: str, revision: str | None, part: str
):
    hub_cache("EleutherAI/pythia-160m")
    message = sentence(getattr(settings(Hub, name=name, revision=revision), part))
    assert repr(name) in message
    assert f"hf download {name}" in message
    assert "model.path=" in message


def test_a_folder_gives_what_was_saved(tiny: Tiny, tmp_path: Path):
    saved = tiny("gpt2")
    model = folder(save(saved, tmp_path))
    model.check(PROMPTS, "chat")
    loaded = model.load(CPU, "chat", 4)
    assert torch.equal(last_logits(loaded, PROMPTS), last_logits(saved, PROMPTS))
    assert (loaded.template.kind, loaded.identity["name"], loaded.trained_on) == ("chat", str(tmp_path), frozenset())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("config.json", Path.unlink),
        ("config.json", lambda file: file.write_text("{")),
        ("config.json", lambda file: file.write_text('{"model_type": "unheard_of"}')),
        ("config.json", lambda file: file.write_text('{"model_type": "gpt_neox", "hidden_size": "wide"}')),
        ("tokenizer.json", lambda file: file.write_text("{")),
        ("tokenizer.json", Path.unlink),
        ("model.safetensors", Path.unlink),
        ("model.safetensors", cut),
        ("model.safetensors", lambda file: file.write_bytes(b"x" * 99)),
    ],
)
def test_damaged_folders(tiny: Tiny, tmp_path: Path, sentence: Sentence, name: str, harm: Callable[[Path], object]):
    harm(save(tiny("gpt_neox"), tmp_path) / name)
    model = folder(tmp_path)

    def use() -> None:
        model.check(PROMPTS, "chat")
        model.load(CPU, "chat", 4)

    message = sentence(use)
    assert str(tmp_path) in message
    assert "model.path wants" in message


def test_a_folder_without_any_tokenizer(tiny: Tiny, tmp_path: Path, sentence: Sentence):
    tiny("gpt_neox").hf.save_pretrained(tmp_path)
    assert "vocabulary" in sentence(lambda: folder(tmp_path).check(PROMPTS, "chat"))


def test_no_folder_at_all(tmp_path: Path, sentence: Sentence):
    assert "model.path=FOLDER" in sentence(lambda: settings(Folder, path=None).check(PROMPTS, "chat"))
    assert str(tmp_path / "x") in sentence(lambda: folder(tmp_path / "x").check(PROMPTS, "chat"))


@pytest.mark.usefixtures("no_weights")
def test_prompts_are_checked_before_weights(tiny: Tiny, tmp_path: Path, sentence: Sentence):
    model = folder(save(tiny("gpt_neox", max_position_embeddings=64), tmp_path))
    model.check(PROMPTS, "chat")
    assert "Prompt 1" in sentence(lambda: model.check(["Hi", "x" * 50], "chat"))


@pytest.mark.usefixtures("no_weights")
def test_tokens_that_the_model_does_not_have_are_told_before_weights(tiny: Tiny, tmp_path: Path, sentence: Sentence):
    path = save(tiny(vocab_size=100), tmp_path)  # of 259 of the tokenizer's
    told = sentence(lambda: folder(path).check(["Hi"], "plain"))
    assert re.match(r"Prompt 0 \('Hi'...\) has the token \d+ \('.'\), and the model has embeddings of 100; give", told)
    whole = save(tiny(), tmp_path / "whole")
    for token in (-1, 259):
        told = sentence(lambda token=token: folder(whole, refusal_tokens=(40, token)).check(["Hi"], "chat"))
        assert f"model.refusal_tokens has the token {token}, and {whole} has 259, from 0 on" in told


# Adapters


def adapter(model: LoadedModel, path: Path) -> PeftModel:
    """A LoRA adapter whose every number is random, saved and still unmerged."""
    config = LoraConfig(r=2, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(model.hf, config)
    tuned.save_pretrained(path)
    return tuned.eval()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_a_merged_adapter_is_peft_unmerged(tiny: Tiny, tmp_path: Path, architecture: str):
    base = tiny(architecture)
    before = last_logits(base, PROMPTS)
    path = save(base, tmp_path / "base")
    tuned = adapter(base, tmp_path / "adapter")
    (tmp_path / "adapter/card.json").write_text('{"trained_on": ["abc"], "steps": 3}')
    with torch.inference_mode():
        wanted = torch.cat([tuned(torch.tensor([base.template.tokens(p)])).logits[:, -1] for p in PROMPTS])
    model = folder(path, adapter=str(tmp_path / "adapter"))
    model.check(PROMPTS, "chat")
    loaded = model.load(CPU, "chat", 4)
    scale = wanted.abs().max()
    assert (last_logits(loaded, PROMPTS) - wanted).abs().max() < 1e-5 * scale
    assert (wanted - before).abs().max() > 0.01 * scale
    assert {type(part).__module__.split(".")[0] for part in loaded.hf.modules()} <= {"torch", "transformers", "rcm"}
    assert loaded.identity["adapter"] == str(tmp_path / "adapter")
    assert loaded.trained_on == {"abc"}
    assert loaded.base is not None
    alone = loaded.base()
    assert (last_logits(alone, PROMPTS) - before).abs().max() < 1e-5 * scale
    assert alone.base is None
    assert (last_logits(loaded, PROMPTS) - wanted).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_that_an_adapter_brings_is_told_of(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
):
    base, beside = tiny(), tmp_path / "adapter"
    path = save(base, tmp_path / "base")
    adapter(base, beside)

    def check(template: Kind | Lent = "chat") -> str:
        caplog.clear()
        folder(path, adapter=str(beside)).check(PROMPTS, template)
        return caplog.text

    own = base.template.tokenizer.chat_template
    for brought, told in ((own, False), (own.replace("[", "<"), True)):
        (beside / where).write_text(brought if where.endswith("jinja") else json.dumps({"chat_template": brought}))
        assert (f"dataset.template=of:{beside} would ask in it" in check()) == told
    base.template.tokenizer.chat_template = own.replace("[", "<")
    base.template.tokenizer.save_pretrained(beside)
    lent = asked(f"of:{beside}")
    assert "would ask in it" not in check(lent)
    assert Template.of(base.template.tokenizer, lent).render("Hi") == base.template.render("Hi").replace("[", "<")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_a_tied_embedding_changes_that_one_alone(tiny: Tiny, tmp_path: Path, target: str):
    base = tiny("llama", tie_word_embeddings=True)
    path = save(base, tmp_path / "base")
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", target], init_lora_weights=False)
    tuned = get_peft_model(base.hf, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.inference_mode():
        wanted = torch.cat([tuned(torch.tensor([base.template.tokens(p)])).logits[:, -1] for p in PROMPTS])
    model = folder(path, adapter=str(tmp_path / "adapter"))
    model.check(PROMPTS, "chat")
    loaded = model.load(CPU, "chat", 4)
    assert (last_logits(loaded, PROMPTS) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    tokens = torch.tensor([loaded.template.tokens(PROMPTS[0])])
    assert torch.allclose(loaded.bridge(tokens)[:, -1], wanted[:1], atol=1e-4 * float(wanted.abs().max()))


def test_an_adapter_that_merging_would_change_is_told(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, monkeypatch: pytest.MonkeyPatch
):
    path = save(tiny(), tmp_path / "base")
    adapter(tiny(), tmp_path / "adapter")
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self: self.unload())
    model = folder(path, adapter=str(tmp_path / "adapter"))
    assert "gives other logits merged than beside its base" in sentence(lambda: model.load(CPU, "chat", 4))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("grown", "fields", "told"),
    [(264, {}, "after the vocabulary of its base had grown"), (0, {"lora_bias": True}, "has no biases")],
)
def test_adapters_that_do_not_merge_into_this_base(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, grown: int, fields: dict[str, Any], told: str
):
    path = save(tiny(), tmp_path / "base")
    trained = tiny().hf
    if grown:
        trained.resize_token_embeddings(grown, mean_resizing=False)
    tuned = get_peft_model(trained, LoraConfig(r=2, target_modules=["q_proj"], **fields))
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=bool(grown))
    model = folder(path, adapter=str(tmp_path / "adapter"))
    assert told in sentence(lambda: model.check(PROMPTS, "chat"))


# What is loaded is what was meant


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    from safetensors.torch import load_file, save_file

    file = path / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(part: str) -> Callable[[Path], None]:
    return lambda path: rewritten(path, lambda found: {k: v for k, v in found.items() if part not in k})


def configured(**changed: Any) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))

    return change


def not_a_number(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found["model.norm.weight"][3] = torch.nan
    return found


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (without("lm_head"), "lacks 1 of the model's tensors (lm_head.weight)"),
        (without("layers.1."), "lacks 9 of the model's tensors"),
        (lambda path: rewritten(path, lambda found: {f"base.{k}": v for k, v in found.items()}), "tensors"),
        (lambda path: rewritten(path, not_a_number), "1 values of model.norm.weight are infinite or not a number"),
        (configured(num_hidden_layers=2), "for which the model has no place"),
        (configured(intermediate_size=128), "config.json does not belong to the weights"),
        (configured(vocab_size=300), "config.json does not belong to the weights"),
    ],
    ids=["unembedding", "layer", "prefix", "nan", "fewer layers", "wider", "vocabulary"],
)
def test_a_checkpoint_that_is_not_whole_is_not_measured(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, harm: Callable[[Path], object], told: str
):
    path = save(tiny("llama"), tmp_path)
    harm(path)
    message = sentence(lambda: folder(path).load(CPU, "chat", 4))
    assert told in message
    assert str(path) in message


def test_buffers_of_older_versions_are_no_surplus(tiny: Tiny, tmp_path: Path):
    path = save(tiny("llama"), tmp_path)
    rewritten(path, lambda found: found | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert last_logits(folder(path).load(CPU, "chat", 4), PROMPTS).isfinite().all()


QUANTISED = ({"quant_method": "gptq", "bits": 4, "group_size": 128}, {"quant_method": "awq", "bits": 4})


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("quantised", QUANTISED, ids=["gptq", "awq"])
def test_a_quantised_checkpoint_says_what_it_needs(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, quantised: dict[str, Any]
):
    path = save(tiny("llama"), tmp_path)
    configured(quantization_config=quantised)(path)
    assert f"is quantised ({quantised['quant_method']})" in sentence(lambda: folder(path).check(PROMPTS, "chat"))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("kind", ["mamba", "lfm2"])
def test_layers_without_attention_are_told_before_weights(tmp_path: Path, sentence: Sentence, kind: str):
    shape = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2}
    if kind == "lfm2":
        shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}
    AutoConfig.for_model(kind, **shape).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert "keep a state beside or in place of keys and values" in sentence(
        lambda: folder(tmp_path).check(PROMPTS, "chat")
    )


@pytest.mark.usefixtures("no_weights")
def test_code_in_a_checkpoint_is_not_run(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, capsys: pytest.CaptureFixture[str]
):
    path = save(tiny("llama"), tmp_path)
    (path / "own.py").write_text("print('ran')\n")
    configured(model_type="own", auto_map={"AutoConfig": "own.Own"})(path)
    sentence(lambda: folder(path).check(PROMPTS, "chat"))
    assert "ran" not in capsys.readouterr().out


def without_pairs(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({key: value for key, value in load_file(file).items() if "lora_A" in key}, file)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "harm", "told"),
    [
        ("adapter_config.json", Path.unlink, "no adapter_config.json"),
        ("adapter_config.json", lambda file: file.write_text("{"), "adapter_config.json is damaged"),
        ("adapter_config.json", lambda file: file.write_text("[]"), "does not say its peft_type"),
        ("adapter_config.json", lambda file: file.write_text('{"r": 2}'), "does not say its peft_type"),
        ("adapter_config.json", lambda file: file.write_text('{"peft_type": "IA3"}'), "of the kind IA3"),
        ("adapter_model.safetensors", Path.unlink, "no adapter_model.safetensors"),
        ("adapter_model.safetensors", lambda file: file.write_bytes(b"x" * 99), "damaged"),
        ("adapter_model.safetensors", cut, "damaged"),
        ("adapter_model.safetensors", without_pairs, "damaged"),
        (".", shutil.rmtree, "no adapter_config.json"),
    ],
)
def test_damaged_adapters_are_told_before_weights(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, name: str, harm: Callable[[Path], object], told: str
):
    path = save(tiny(), tmp_path / "base")
    adapter(tiny(), tmp_path / "adapter")
    harm(tmp_path / "adapter" / name)
    model = folder(path, adapter=str(tmp_path / "adapter"))
    message = sentence(lambda: model.check(PROMPTS, "chat"))
    assert told in message
    assert str(tmp_path / "adapter") in message


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"hidden_size": 64}, "64x2 would fit"),
        ({"num_hidden_layers": 2}, "no place for model.layers.2"),
        ("gpt2", "not found in the base"),
    ],
)
def test_an_adapter_of_another_base(
    tiny: Tiny, tmp_path: Path, sentence: Sentence, other: dict[str, int] | str, told: str
):
    adapter(tiny(), tmp_path / "adapter")
    base = tiny(other) if isinstance(other, str) else tiny(**other)
    model = folder(save(base, tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    message = sentence(lambda: model.check(PROMPTS, "chat"))
    assert told in message
    assert "trained on" in message


@pytest.mark.usefixtures("no_weights")
def test_an_adapter_that_rcm_does_not_ship(sentence: Sentence):
    model = random(size=SMALL, adapter="packaged:nothing")
    assert str(Path(rcm.__file__).parent / "assets/nothing") in sentence(lambda: model.check(PROMPTS, "chat"))


# The packaged GGUF file

INNER = "fake_package/tiny.Q8.gguf"


def write_gguf(file: Path, architecture: str = "llama", without: str = "") -> None:
    """A llama of one layer, with the byte tokenizer, as llama.cpp would have it; `without` one of its tensors."""
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([3] * 3 + [1] * 256)
    writer.add_token_scores([0.0] * 259)
    writer.add_token_merges([])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT)
    draw = torch.Generator().manual_seed(0)

    def add(name: str, *shape: int) -> None:
        values = torch.randn(shape, generator=draw).numpy()
        if name != without:
            writer.add_tensor(name, values)

    add("token_embd.weight", 259, 32)
    add("output_norm.weight", 32)
    add("output.weight", 259, 32)
    for part in ("attn_norm", "ffn_norm"):
        add(f"blk.0.{part}.weight", 32)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        add(f"blk.0.{part}.weight", 32, 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q8.gguf"
    write_gguf(file)
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Pip:
    """Stands in for `pip download`: lays a wheel where pip would, or fails."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.failure: str | None = None
        self.wheel: Callable[[Path], object] = lambda path: None

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.failure is not None:
            return subprocess.CompletedProcess(command, 1, "", self.failure)
        self.wheel(Path(command[command.index("--dest") + 1]) / "fake_package-1.0-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, "", "")

    def serves(self, gguf: Path, name: str = INNER) -> None:
        def write(path: Path) -> None:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(gguf, name)

        self.wheel = write


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, gguf_file: Path) -> Iterator[Pip]:
    stand_in = Pip()
    stand_in.serves(gguf_file)
    monkeypatch.setattr(subprocess, "run", stand_in)
    return stand_in


def packaged(gguf: Path, **fields: Any) -> PackagedGguf:
    sha256 = hashlib.sha256(gguf.read_bytes()).hexdigest()
    given = {"package": "fake-package", "version": "1.0", "file": INNER, "sha256": sha256, "path": None}
    return settings(PackagedGguf, **{**given, **fields})


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Installed:
    """Stands in for a package that is installed here, wherever pip is."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version

    def locate_file(self, name: str) -> Path:
        return self.root / name


def test_an_installed_package_is_read_where_it_lies(
    pip: Pip, cache: Path, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / INNER).parent.mkdir()
    shutil.copy(gguf_file, tmp_path / INNER)
    for version, fetched in (("0.9", 1), ("1.0", 0)):
        monkeypatch.setattr(rcm.models.gguf, "distribution", lambda _, v=version: Installed(tmp_path, v))
        model = packaged(gguf_file)
        shutil.rmtree(cache, ignore_errors=True)
        assert model.load(CPU, "chat", 4).identity["name"] == "tiny.Q8"
        assert len(pip.calls) == fetched
        pip.calls.clear()


def test_a_cache_that_cannot_be_written_is_told(
    pip: Pip, gguf_file: Path, tmp_path: Path, sentence: Sentence, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "file"))
    told = sentence(lambda: packaged(gguf_file).check(PROMPTS, "chat"))
    assert told.startswith(f"Nothing can be kept in the cache {tmp_path / 'file'}")
    assert "RCM_CACHE=FOLDER" in told


def test_without_pip_the_cure_is_another(
    pip: Pip, cache: Path, gguf_file: Path, sentence: Sentence, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rcm.models.gguf, "find_spec", lambda name: None)
    told = sentence(lambda: packaged(gguf_file).check(PROMPTS, "chat"))
    assert "install it (`uv pip install --no-deps fake-package==1.0`), or give the GGUF file" in told
    assert not pip.calls


def test_a_gguf_is_fetched_and_converted_once(pip: Pip, cache: Path, gguf_file: Path):
    model = packaged(gguf_file)
    model.check(PROMPTS, "chat")
    loaded = model.load(CPU, "chat", 4)
    assert len(pip.calls) == 1
    assert pip.calls[0][-1] == "fake-package==1.0"
    assert {"--no-deps", "--only-binary"} <= set(pip.calls[0])
    (folder_made,) = cache.iterdir()
    assert folder_made.stat().st_mode & 0o077 == 0o077 & ~umask()
    assert [path.name for path in cache.iterdir()] == [f"tiny.Q8-{model.sha256[:12]}"]
    assert loaded.identity == {
        "name": "tiny.Q8",
        "revision": model.sha256[:12],
        "adapter": "",
        "dtype": "float32",
    }
    assert loaded.template.kind == "chat"
    assert loaded.template.tokens("Hi") == tokens_of(CHAT, "Hi")
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(loaded.hf.get_input_embeddings().weight, torch.randn((259, 32), generator=draw))
    assert last_logits(loaded, PROMPTS).isfinite().all()
    from_file = packaged(gguf_file, path=str(gguf_file))
    assert torch.equal(last_logits(from_file.load(CPU, "chat", 4), PROMPTS), last_logits(loaded, PROMPTS))


def own(path: Path, **fields: Any) -> Gguf:
    return settings(Gguf, path=str(path), **{"family": None, "stage": None, **fields})


def test_a_gguf_of_the_users_by_its_path_alone(cache: Path, gguf_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    model = own(gguf_file)
    model.check(PROMPTS, "chat")
    assert "model.family= and model.stage= would say with which" in caplog.text
    loaded = model.load(CPU, "chat", 4)
    digest = hashlib.sha256(gguf_file.read_bytes()).hexdigest()[:12]
    assert [path.name for path in cache.iterdir()] == [f"tiny.Q8-{digest}"]
    assert loaded.identity["revision"] == digest
    assert loaded.template.tokens("Hi") == tokens_of(CHAT, "Hi")
    same = packaged(gguf_file, path=str(gguf_file)).load(CPU, "chat", 4)
    assert torch.equal(last_logits(loaded, PROMPTS), last_logits(same, PROMPTS))
    caplog.clear()
    own(gguf_file, family="tiny", stage="chat").check(PROMPTS, "chat")
    assert "would say with which" not in caplog.text


def test_a_file_that_was_written_again_is_another(cache: Path, gguf_file: Path, tmp_path: Path):
    file = tmp_path / "tiny.gguf"
    shutil.copy(gguf_file, file)
    first = own(file).checkpoint
    file.write_bytes(file.read_bytes() + b" ")
    assert own(file).checkpoint != first


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: write_gguf(file, architecture="martian"), "martian"),
        (lambda file: write_gguf(file, without="blk.0.ffn_up.weight"), "lacks 1 of the model's tensors"),
        (lambda file: write_gguf(file, without="token_embd.weight"), "lacks 1 of the model's tensors"),
        (lambda file: file.write_text("not a model"), "cannot read"),
        (lambda file: file.write_bytes(b""), "cannot read"),
        (lambda file: (write_gguf(file), file.write_bytes(file.read_bytes()[:-4000])), "cannot read"),
        (lambda file: (write_gguf(file), file.write_bytes(file.read_bytes()[:900])), "cannot read"),
        (lambda file: None, "There is no file"),
    ],
    ids=["unknown family", "a tensor short", "no embedding", "text", "empty", "cut tensors", "cut header", "absent"],
)
def test_a_gguf_that_cannot_be_read(
    cache: Path, tmp_path: Path, sentence: Sentence, spoil: Callable[[Path], None], told: str
):
    file = tmp_path / "own.gguf"
    spoil(file)
    message = sentence(lambda: own(file).check(PROMPTS, "chat"))
    assert told in message
    assert str(file) in message
    assert not cache.exists() or not list(cache.iterdir())


def tokens_of(template: str, prompt: str) -> list[int]:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    chat = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]


def corrupt(path: Path, at: float) -> None:
    """Flip bytes at some part of a wheel."""
    content = bytearray(path.read_bytes())
    start = int(at * len(content))
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda pip, gguf: setattr(pip, "failure", "WARNING: retrying\nERROR: No matching distribution\n"),
            "No matching",
        ),
        (lambda pip, gguf: setattr(pip, "failure", ""), "no wheel came"),
        (lambda pip, gguf: setattr(pip, "wheel", lambda path: None), "no wheel came"),
        (lambda pip, gguf: pip.serves(gguf, "fake_package/other.gguf"), INNER),
        (lambda pip, gguf: setattr(pip, "wheel", lambda path: path.write_bytes(b"PK")), "no whole"),
        (lambda pip, gguf: pip.serves(Path(__file__)), "sha256"),
    ],
    ids=["no network", "silent pip", "no wheel", "another file", "no archive", "another content"],
)
def test_a_fetch_that_fails_leaves_nothing(
    pip: Pip, cache: Path, gguf_file: Path, sentence: Sentence, spoil: Callable[[Pip, Path], None], told: str
):
    spoil(pip, gguf_file)
    message = sentence(lambda: packaged(gguf_file).check(PROMPTS, "chat"))
    assert told in message
    assert "model.path=" in message or "pip cache purge" in message
    assert not list(cache.iterdir())


@pytest.mark.parametrize("at", [0.001, 0.3, 0.6])
def test_a_wheel_with_flipped_bits(pip: Pip, cache: Path, gguf_file: Path, sentence: Sentence, at: float):
    whole = pip.wheel

    def flipped(path: Path) -> None:
        whole(path)
        corrupt(path, at)

    pip.wheel = flipped
    assert "pip cache purge" in sentence(lambda: packaged(gguf_file).check(PROMPTS, "chat"))
    assert not list(cache.iterdir())


def test_a_cut_file_is_told_even_when_the_cache_is_full(
    pip: Pip, cache: Path, gguf_file: Path, tmp_path: Path, sentence: Sentence
):
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(gguf_file.read_bytes()[:-9])
    model = packaged(gguf_file, path=str(copy))
    for _ in range(2):
        message = sentence(lambda: model.check(PROMPTS, "chat"))
        assert "copy.gguf is damaged" in message
        assert "model.path" in message
        packaged(gguf_file).check(PROMPTS, "chat")
    assert "There is no file" in sentence(lambda: packaged(gguf_file, path=str(tmp_path / "x")).check(PROMPTS, "chat"))


def test_a_killed_conversion_does_not_count(pip: Pip, cache: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch):
    model = packaged(gguf_file)

    def killed(_: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(rcm.models.gguf, "_convert", killed)
        if (child := os.fork()) == 0:
            model.config()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not model.checkpoint.exists()
    assert json.loads(next(cache.rglob("config.json")).read_text()) == {}  # it was half-way
    assert model.config().num_hidden_layers == 1


@pytest.mark.parametrize("error", [RuntimeError("no such thing"), KeyboardInterrupt()])
def test_a_conversion_that_breaks_is_swept_up(
    pip: Pip, cache: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    def broken(_: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise error

    monkeypatch.setattr(rcm.models.gguf, "_convert", broken)
    with pytest.raises(type(error)):
        packaged(gguf_file).config()
    assert not list(cache.iterdir())


def test_the_packaged_model_converts_as_recorded(smollm2_folder: Path):
    config = json.loads((smollm2_folder / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["model_type"]) == (30, 576, "llama")
    assert "quantization_config" not in config


def test_all_modules_of_a_twin_hold_real_tensors(tiny: Tiny, family: str):
    twin: nn.Module = twin_of(tiny(family).hf)
    assert not [name for name, tensor in (*twin.named_parameters(), *twin.named_buffers()) if tensor.is_meta]
