"""A model in memory, as methods get it."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rcm.errors import InputError
from rcm.models.matrix_products import use_contiguous, use_faster
from rcm.models.placement import whole_on
from rcm.models.points import Points, device_of, points_of
from rcm.models.template import Kind, Lent, Template

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Weights, tokenizer and template.

    `hf` is the raw Hugging Face tree in eval mode, without gradients: fast attention, generation, the patching engine.
    `batch_size`: the most prompts at once, where the settings say so (`rcm.execution.batches` finds how many).
    `refusal_tokens` are ids that the model's settings fix; None asks for them to be discovered
    (`rcm.directions.refusal_tokens`). `identity` tells which weights these are. `base` loads the model that an adapter
    was added to, anew and beside this one; None where none was.
    """

    hf: PreTrainedModel
    template: Template
    batch_size: int | None
    refusal_tokens: tuple[int, ...] | None
    identity: dict[str, str]
    trained_on: frozenset[str] = frozenset()
    base: Callable[[], "LoadedModel"] | None = None

    @classmethod
    def of(
        cls,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: Kind | Lent,
        *,
        batch_size: int | None = 32,
        refusal_tokens: tuple[int, ...] | None = None,
        identity: dict[str, str] | None = None,
        trained_on: frozenset[str] = frozenset(),
        base: Callable[[], "LoadedModel"] | None = None,
    ) -> "LoadedModel":
        """Make any causal model ready to be measured: eval mode, no gradients, greedy decoding to the end of turn."""
        bound = Template.of(tokenizer, template)
        hf.eval().requires_grad_(False)
        use_faster(hf)
        use_contiguous(hf)
        # A checkpoint's own generation settings (temperature, repetition penalty, ...) would otherwise be merged into
        # every call, and two checkpoints of a family often differ in them.
        stops = sorted(_stop_tokens(hf, bound))
        hf.generation_config = GenerationConfig(do_sample=False, eos_token_id=stops or None, pad_token_id=bound.pad)
        return cls(hf, bound, batch_size, refusal_tokens, identity or {}, trained_on, base)

    @property
    def device(self) -> torch.device:
        """Where tokens go in, and logits come out."""
        return device_of(self.hf.get_input_embeddings())

    @property
    def n_layers(self) -> int:
        return len(self.points.layers)

    @property
    def config(self) -> PretrainedConfig:
        """Of the language model, where the checkpoint has eyes and ears beside it."""
        return self.hf.config.get_text_config()

    @property
    def d_model(self) -> int:
        return int(self.config.hidden_size)

    @cached_property
    def points(self) -> Points:
        """Where activations are read and changed."""
        return points_of(self.hf)

    @cached_property
    def bridge(self) -> "TransformerBridge":
        """TransformerLens' view of the same weights, for its own tools.

        Booting a bridge replaces the modules of the tree that it wraps, so it gets a second tree whose parameters are
        the very same tensors: no memory, and `hf` stays as it is. It takes tokens, not text: given the tokenizer, it
        would read it anew from disk or hub, changed so that it prepends BOS. Raises InputError for a model that is
        spread over several devices.
        """
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        if whole_on(self.hf) is None:
            raise InputError(
                "TransformerLens' view takes a model that lies whole on one device, and this one is spread by "
                "device.map; load it with device.map=null."
            )
        twin = twin_of(self.hf)
        return build_bridge_from_module(twin, type(twin).__name__, hf_config=twin.config)


def longest_prompt(config: PretrainedConfig) -> int:
    """How many tokens a model reads at most; models without positions read any number."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def vocabulary(config: PretrainedConfig) -> int:
    """How many tokens a model has embeddings of."""
    return getattr(config.get_text_config(), "vocab_size", None) or sys.maxsize


def _stop_tokens(hf: PreTrainedModel, template: Template) -> set[int]:
    """Every token that ends the model's turn: the checkpoint's, the tokenizer's, and the template's.

    The last is needed for base models that carry a chat template: their end-of-text token is not its end of turn.
    """
    configured: int | list[int] | None = getattr(hf.generation_config, "eos_token_id", None)
    stops = [configured] if isinstance(configured, int) else configured or []
    return {stop for stop in (*stops, template.tokenizer.eos_token_id, template.end_of_turn) if isinstance(stop, int)}


def twin_of(hf: PreTrainedModel) -> PreTrainedModel:
    """A second module tree over the same parameter tensors."""
    # With a config of its own: choosing the attention here would choose it for `hf` too.
    config = copy.deepcopy(hf.config)
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(config, dtype=hf.dtype, attn_implementation="eager")
    twin.load_state_dict(hf.state_dict(), assign=True)
    twin.tie_weights()
    # Buffers outside the state dict (rotary frequencies) are still on the meta device.
    buffers = dict(hf.named_buffers())
    for name, buffer in list(twin.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            twin.get_submodule(owner)._buffers[leaf] = buffers[name]
    return twin.eval().requires_grad_(False)
