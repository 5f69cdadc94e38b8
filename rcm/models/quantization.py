"""Weights in fewer bits, by bitsandbytes: int8 (Dettmers et al. 2022, LLM.int8) or nf4 (Dettmers et al. 2023, QLoRA).

Only linear layers of the blocks are quantised; what they compute comes out in the model's dtype. It is another model
than the one that was not quantised, so it belongs to the model's settings and to the run's identity.
"""

from importlib.util import find_spec
from typing import Any, Literal

import torch

from rcm.errors import InputError

Quantization = Literal["int8", "nf4"]


def check_quantization(wanted: Quantization | None) -> None:
    """Raise InputError where bitsandbytes is wanted and not installed."""
    if wanted is not None and find_spec("bitsandbytes") is None:
        raise InputError(
            f"model.quantization={wanted} needs bitsandbytes, which is not installed; install it with "
            '`pip install "rcm[quantization]"`, or leave it away.'
        )


def bitsandbytes_config(wanted: Quantization, dtype: str) -> Any:
    """transformers' settings for it."""
    from transformers import BitsAndBytesConfig

    if wanted == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )
