"""LoRA adapters: checked against their base before weights load, then merged into it in memory.

An adapter folder is peft's: `adapter_config.json`, `adapter_model.safetensors`. One that `method=safety_tune` made also
has `card.json`, which lists digests of the prompts that it was trained on. `hub:ORG/NAME` is such a folder on the hub,
of which nothing else is fetched.
"""

import json
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from rcm.errors import InputError, first_sentence
from rcm.models.checkpoint import by, skeleton
from rcm.models.points import device_of
from rcm.record.encoding import ADAPTER_CONFIG, CARD, WEIGHTS

PREFIX = "base_model.model."
HUB, AT = "hub:", "@"
FILES = (ADAPTER_CONFIG, WEIGHTS, CARD, "chat_template.jinja", "tokenizer_config.json")
# What peft and torch raise for an adapter that does not go into a model.
REFUSED = (ImportError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError)
# Of the largest logit, of merged against unmerged.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
PROBES = 16  # tokens that both are run on


@cache  # in a process, what was fetched stays what it is
def fetched(adapter: str) -> Path:
    """The folder of an adapter on the hub, `hub:ORG/NAME@REVISION`; raises InputError where it cannot be had."""
    name, _, revision = adapter.removeprefix(HUB).partition(AT)
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:  # a wrong name is a ValueError, everything else of the hub's an OSError
        raise InputError(
            f"Cannot read the adapter {adapter} ({first_sentence(error)}); connect once and run `hf download {name}` "
            "(gated ones: accept the licence, then `hf auth login`), or give a folder with model.adapter=FOLDER."
        ) from error


def check_adapter(path: Path, config: PretrainedConfig, name: str) -> None:
    """Raise InputError unless the adapter at `path` is whole and fits a model of this config, called `name`.

    What peft would make of its settings on the model's modules, without weights, must have the file's tensors.
    """
    for needed in (ADAPTER_CONFIG, WEIGHTS):
        if not (path / needed).is_file():
            raise InputError(f"The adapter {path} has no {needed}; model.adapter wants a folder that peft saved.")
    settings = _settings(path)
    trained_on(path)
    base = skeleton(config)
    own = {f"{PREFIX}{key}": list(tensor.shape) for key, tensor in base.state_dict().items()}
    stored = _stored_shapes(path)
    try:
        from peft import LoraConfig, get_peft_model
        from peft.utils import get_peft_model_state_dict

        made = LoraConfig.from_pretrained(str(path))
        made.inference_mode, made.init_lora_weights = True, True  # values are the file's: nothing is worked out here
        with _without_pefts_warning():
            expected = get_peft_model_state_dict(get_peft_model(base, made), save_embedding_layers=False)
    except REFUSED as error:
        raise InputError(_misfit(path, name, first_sentence(error))) from error
    wanted = {key: list(tensor.shape) for key, tensor in expected.items()}
    _check_shapes(path, name, stored, wanted, own)
    if settings.get("lora_bias") and any(_base_bias(base, key) is None for key in wanted if ".lora_B." in key):
        raise InputError(
            f"The adapter {path} has lora_bias=true, and {name} has no biases that it could be merged into; train one "
            "without."
        )


def _settings(path: Path) -> Mapping[str, Any]:
    file = path / ADAPTER_CONFIG
    try:
        settings: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); make or copy it again.") from error
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if not isinstance(kind, str):
        raise InputError(f"{file} does not say its peft_type; model.adapter wants a folder that peft saved.")
    if kind != "LORA":
        raise InputError(f"The adapter {path} is of the kind {kind}; model.adapter takes LoRA adapters only.")
    return settings


def _stored_shapes(path: Path) -> dict[str, list[int]]:
    """Of every tensor in the file, read from its header alone."""
    try:
        with safe_open(path / WEIGHTS, "pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InputError(f"The adapter file in {path} is damaged ({error}); make or copy it again.") from error


def _check_shapes(
    path: Path,
    name: str,
    stored: Mapping[str, list[int]],
    wanted: Mapping[str, list[int]],
    own: Mapping[str, list[int]],
) -> None:
    for key, shape in stored.items():
        target = key.removeprefix(PREFIX)
        of_base = key.replace(".base_layer.", ".")  # what peft saves of an embedding that it changes
        if key in wanted:
            if wanted[key] != shape:
                raise InputError(_misfit(path, name, f"{target} is {by(shape)}, where {by(wanted[key])} would fit"))
        elif of_base not in own:
            raise InputError(_misfit(path, name, f"its settings have no place for {target}"))
        elif own[of_base] != shape:  # peft saves the embeddings beside the adapter where they were resized
            raise InputError(
                f"The adapter {path} was trained after the vocabulary of its base had grown: {target} is {by(shape)}, "
                f"and that of {name} {by(own[of_base])}; give the base with that vocabulary, or the merged model."
            )
    if missing := sorted(set(wanted) - set(stored)):
        raise InputError(
            f"The adapter file in {path} is damaged: it lacks {len(missing)} tensors, {missing[0]} for one; make or "
            "copy it again."
        )


@contextmanager
def _without_pefts_warning() -> Generator[None, None, None]:
    """peft asks transformers for something by a name that transformers is about to drop, of which nobody who reads it
    can mend anything."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _misfit(path: Path, name: str, why: str) -> str:
    return f"The adapter {path} does not fit {name}: {why}; choose the model that it was trained on."


def _base_bias(base: nn.Module, key: str) -> Any:
    module = base.get_submodule(key.removeprefix(PREFIX).split(".lora_B.")[0])
    return getattr(getattr(module, "base_layer", module), "bias", None)


@torch.no_grad()
def merged(hf: PreTrainedModel, path: Path) -> PreTrainedModel:
    """The model with the adapter added to its weights; the tree stays that of the base.

    Checked against the adapter beside its base, as it was trained. Where input and output embedding are one tensor, and
    the adapter changes one of them, they become two: merged into both it would be another model.
    """
    from peft import PeftModel

    if hf.config.tie_word_embeddings and _changes_an_embedding(hf, path):
        _untie(hf)
    at = device_of(hf.get_input_embeddings())
    ids = torch.linspace(0, hf.config.get_text_config().vocab_size - 1, PROBES, device=at).long()[None]
    try:
        with _without_pefts_warning():
            beside = PeftModel.from_pretrained(hf, str(path)).eval()
        wanted = beside(input_ids=ids).logits
        made = cast(PreTrainedModel, beside.merge_and_unload())
    except REFUSED as error:
        raise InputError(_misfit(path, "its base", first_sentence(error))) from error
    if not wanted.isfinite().all():
        raise InputError(f"With the adapter {path} logits are infinite or not a number; make or copy it again.")
    found = made(input_ids=ids).logits
    off = ((found - wanted).abs().max() / wanted.abs().max()).item()
    if not off <= TOLERANCE[hf.dtype]:
        raise InputError(
            f"The adapter {path} gives other logits merged than beside its base, by {off:.1%} of the largest; give "
            "the merged model, as model=folder."
        )
    return made


def _changes_an_embedding(hf: PreTrainedModel, path: Path) -> bool:
    ends = [
        name for name, module in hf.named_modules() if module in (hf.get_input_embeddings(), hf.get_output_embeddings())
    ]
    return any(key.removeprefix(PREFIX).startswith(f"{end}.") for key in _stored_shapes(path) for end in ends)


def _untie(hf: PreTrainedModel) -> None:
    output = hf.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    hf.config.tie_word_embeddings = False


def brought_template(path: Path) -> str | None:
    """The chat template that lies beside the adapter, as trainers leave it there; None where none does."""
    alone, config = path / "chat_template.jinja", path / "tokenizer_config.json"
    try:
        if alone.is_file():
            return alone.read_text(encoding="utf-8")
        if config.is_file():
            template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
            return template if isinstance(template, str) else None
    except (ValueError, AttributeError):  # whatever it is, it is none
        return None
    return None


def trained_on(path: Path) -> frozenset[str]:
    """Digests of the prompts that the adapter was trained on; empty where it has no card that says so. Raises
    InputError for a card that cannot be read: what was trained on would be taken for unseen."""
    card = path / CARD
    if not card.exists():
        return frozenset()
    try:
        return frozenset(map(str, json.loads(card.read_text(encoding="utf-8")).get("trained_on", [])))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{card} is damaged ({first_sentence(error)}); make or copy the adapter again.") from error
