"""Random weights of a named architecture and size: for tests, timings, and the null of everything."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rcm.errors import InputError, first_sentence
from rcm.models import Model, Placement, Weights
from rcm.models.placement import ON_CPU

SPECIAL = ("<pad>", "<bos>", "<eos>")


class Random(Model):
    """A fresh model of transformers' `architecture` (such as llama, gpt_neox), its config's fields given in `size`."""

    architecture: str
    size: dict[str, Any]
    seed: int

    @property
    def label(self) -> str:
        return f"random-{self.architecture}"

    def config(self) -> PretrainedConfig:
        ids = dict(zip(("pad_token_id", "bos_token_id", "eos_token_id"), range(3), strict=True))
        try:
            # transformers takes any name; a misspelt one would silently leave a model at its full size.
            known = AutoConfig.for_model(self.architecture)
            if unknown := [field for field in self.size if not hasattr(known, field)]:
                raise ValueError(f"it has no {', '.join(unknown)}")
            return AutoConfig.for_model(self.architecture, **{"vocab_size": 256 + len(SPECIAL), **ids, **self.size})
        except (ValueError, StrictDataclassError) as error:
            raise InputError(
                f"model.architecture={self.architecture} with model.size={self.size} is no transformers config "
                f"({first_sentence(error)}); use a model type such as llama and its config's own field names."
            ) from error

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return byte_tokenizer()

    def weights(self, placement: Placement = ON_CPU) -> Weights:
        if self.quantization is not None:
            raise InputError(
                f"model.quantization={self.quantization} is of a checkpoint, and random weights are none; leave it "
                "away."
            )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            hf = AutoModelForCausalLM.from_config(
                self.config(), dtype=getattr(torch, self.dtype), attn_implementation=self.attn_implementation
            )
        return Weights(placement.spread(hf), f"seed {self.seed}")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, after three special ones; no chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: id for id, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)
