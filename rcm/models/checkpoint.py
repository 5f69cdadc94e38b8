"""What is loaded is what was meant: the architecture before any weights, every tensor, and numbers in all of them.

transformers draws a tensor that a checkpoint lacks at random, leaves out one that the model has no place for, and says
so in a table on stderr. A measuring instrument must not go on from there.
"""

import logging
import re
import shutil
from collections.abc import Callable, Sequence
from pickle import UnpicklingError
from typing import Any, Protocol, cast, runtime_checkable

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.quantizers.auto import AutoHfQuantizer

from rcm.errors import InputError, first_sentence
from rcm.models.placement import Placement, cleared, stored
from rcm.models.points import points_of
from rcm.models.quantization import Quantization, bitsandbytes_config

log = logging.getLogger(__name__)

# Buffers that older versions of transformers stored beside the weights; the model makes its own.
BUFFERS = re.compile(
    r"(rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|attn\.(masked_)?bias|attention\.(masked_)?bias)$"
)
# What transformers and its parts raise for files that are absent, damaged, or of another kind: nearly anything.
UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, ArithmeticError, AssertionError),
    *(ImportError, StrictDataclassError, SafetensorError, UnpicklingError, EOFError),
)
MOST_LAYERS = 10_000  # no model has as many, and to build them would take for ever


@runtime_checkable
class HowToLoad(Protocol):
    """Of a model's settings, what reading its weights takes."""

    @property
    def label(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def quantization(self) -> Quantization | None: ...

    @property
    def attn_implementation(self) -> str | None: ...


def check_architecture(config: PretrainedConfig, name: str) -> None:
    """Raise InputError unless a model called `name`, of this config, can be measured; without its weights."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{name} is of type {config.model_type}, which is no causal language model; choose one.")
    _check_quantisation(config, name)
    layers: Any = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise InputError(f"{name}: its config says {layers} layers, as many as no model has; mend config.json.")
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in DynamicCache(config=config).layers):
        raise InputError(
            f"{name} has layers that keep a state beside or in place of keys and values (type {config.model_type}); "
            "what they write is neither attention's nor an MLP's, so rcm cannot localise it: choose another model."
        )
    try:
        built = skeleton(config)
    except UNREADABLE as error:
        raise InputError(
            f"{name}: of its config transformers can build no model ({first_sentence(error)}); mend config.json."
        ) from error
    points_of(built)


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model's modules, whose tensors have shapes and no values."""
    with torch.device("meta"):
        return cast(PreTrainedModel, AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def _check_quantisation(config: PretrainedConfig, name: str) -> None:
    quantisation: Any = getattr(config, "quantization_config", None)
    if quantisation is None:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else type(quantisation).__name__
    try:
        AutoHfQuantizer.from_config(quantisation, pre_quantized=True).validate_environment(dtype=torch.float32)
    except UNREADABLE as error:
        raise InputError(
            f"{name} is quantised ({method}), which cannot be read here: {first_sentence(error)}; install what it "
            "names, or choose a checkpoint that is not quantised."
        ) from error


def whole_model(
    source: str, settings: HowToLoad, placement: Placement, unreadable: Callable[[str], InputError], **where: Any
) -> PreTrainedModel:
    """The model that `from_pretrained` reads from the source, straight to where it is to lie; raises InputError where
    it is not the checkpoint's, the `unreadable` one with the reason where nothing can be read."""
    how = placement.arguments()
    if settings.quantization is not None:
        how["quantization_config"] = bitsandbytes_config(settings.quantization, settings.dtype)
    if settings.attn_implementation is not None:
        how["attn_implementation"] = settings.attn_implementation
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, settings.dtype),
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told of them in a sentence of ours
            **how,
            **where,
        )
    except UNREADABLE as error:
        log.debug("Reading %s", source, exc_info=True)
        if folder := how.get("offload_folder"):
            shutil.rmtree(folder, ignore_errors=True)
        raise unreadable(first_sentence(error)) from error
    hf, found = read
    if folder := how.get("offload_folder"):
        cleared(hf, folder)
    placement.check(hf)
    check_loading(found, settings.label)
    check_numbers(hf, settings.label)
    return cast(PreTrainedModel, hf)


def check_loading(found: Any, name: str) -> None:
    """Raise InputError for tensors of another shape, too few or too many; `found` is transformers' loading info."""
    if mismatched := sorted(map(tuple, found["mismatched_keys"])):
        tensor, stored, wanted = mismatched[0]
        raise InputError(
            f"{name}: config.json does not belong to the weights: {tensor} is {by(stored)} in the file and "
            f"{by(wanted)} by the config; give the config of this very checkpoint."
        )
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"{name} lacks {len(missing)} of the model's tensors ({_some(missing)}); they would be drawn at random: "
            "give the whole checkpoint, an adapter that is not merged with model.adapter=FOLDER."
        )
    if surplus := sorted(key for key in found["unexpected_keys"] if not BUFFERS.search(key)):
        raise InputError(
            f"{name} holds {len(surplus)} tensors for which the model has no place ({_some(surplus)}); they would be "
            "left out: give the config of this very checkpoint."
        )


def check_numbers(hf: PreTrainedModel, name: str) -> None:
    """Raise InputError where a weight is infinite or not a number."""
    for tensor, values in stored(hf):
        if values.is_floating_point() and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values)).sum())
            raise InputError(
                f"{name}: {bad} values of {tensor} are infinite or not a number; copy the checkpoint again, or load it "
                "as it was stored (model.dtype)."
            )


def by(shape: Sequence[int]) -> str:
    """A shape for people."""
    return "x".join(map(str, shape))


def _some(names: Sequence[str]) -> str:
    """The first, and the last where there are several."""
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
