"""LoRA adapters: checked against their base before weights load, then merged into it in memory.

An adapter folder is peft's: `adapter_config.json`, `adapter_model.safetensors`. One that `method=safety_tune` made also
has `card.json`, which lists digests of the prompts that it was trained on.
"""

import json
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from rcm.errors import InputError
from rcm.record.encoding import ADAPTER_CONFIG, WEIGHTS

LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"


def check_adapter(path: Path, config: PretrainedConfig, name: str) -> None:
    """Raise InputError unless the adapter at `path` is whole and fits a model of this config, called `name`."""
    for needed in (ADAPTER_CONFIG, WEIGHTS):
        if not (path / needed).is_file():
            raise InputError(f"The adapter {path} has no {needed}; model.adapter wants a folder that peft saved.")
    try:
        json.loads((path / ADAPTER_CONFIG).read_text())
    except ValueError as error:
        raise InputError(f"{path / ADAPTER_CONFIG} is damaged ({error}); make or copy it again.") from error
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    widths = {
        module_name: (module.weight.shape[::-1] if _is_conv1d(module) else module.weight.shape)
        for module_name, module in base.named_modules()
        if isinstance(getattr(module, "weight", None), nn.Parameter)
    }
    for target, (rows, columns) in _targets(path).items():
        if tuple(widths.get(target, ())) != (rows, columns):
            found = "x".join(map(str, widths[target])) if target in widths else "no such module"
            raise InputError(
                f"The adapter {path} was made for another base than {name}: it changes {target} of shape "
                f"{rows}x{columns}, and {name} has {found}; choose the model that it was trained on."
            )


def _is_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D"  # GPT-2's linear layer, which stores its weight transposed


def _targets(path: Path) -> dict[str, tuple[int, int]]:
    """The modules that the adapter changes, with (output, input) widths, read from the file's header alone."""
    shapes: dict[str, list[int]] = {}
    damaged = "The adapter file in {} is damaged ({}); make or copy it again."
    try:
        with safe_open(path / WEIGHTS, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                shapes[key] = file.get_slice(key).get_shape()
    except SafetensorError as error:
        raise InputError(damaged.format(path, error)) from error
    halves = [key.removesuffix(LORA_A) for key in shapes if key.endswith(LORA_A)]
    if not halves or any(half + LORA_B not in shapes for half in halves):
        raise InputError(damaged.format(path, f"no pairs of *{LORA_A} and *{LORA_B}"))
    return {
        half.removeprefix("base_model.model."): (shapes[half + LORA_B][0], shapes[half + LORA_A][1]) for half in halves
    }


def merged(hf: PreTrainedModel, path: Path) -> PreTrainedModel:
    """The model with the adapter added to its weights; the tree stays that of the base."""
    from peft import PeftModel

    return cast(PreTrainedModel, PeftModel.from_pretrained(hf, str(path)).merge_and_unload())


def trained_on(path: Path) -> frozenset[str]:
    """Digests of the prompts that the adapter was trained on; empty where its card does not say."""
    card = path / "card.json"
    return frozenset(json.loads(card.read_text()).get("trained_on", [])) if card.is_file() else frozenset()
