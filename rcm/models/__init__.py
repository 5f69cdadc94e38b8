"""Models: where the weights come from, and what a method gets.

One class for each source; one YAML in `conf/model/` for each checkpoint. `check` is cheap and comes before anything
loads; `load` gives a `LoadedModel`.
"""

import gc
import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rcm.errors import InputError
from rcm.models.adapter import HUB, brought_template, check_adapter, fetched, merged, trained_on
from rcm.models.checkpoint import check_architecture
from rcm.models.loaded import LoadedModel, longest_prompt, vocabulary
from rcm.models.placement import ON_CPU, Placement, described, untested
from rcm.models.quantization import Quantization, check_quantization
from rcm.models.template import Kind, Lent, Template
from rcm.packaged import located
from rcm.record.run import Stage
from rcm.settings import Settings

__all__ = ["LoadedModel", "Model", "Placement", "Template", "Weights"]

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """A checkpoint in memory, before adapter and template; and which one it is."""

    hf: PreTrainedModel
    revision: str


class Model(Settings):
    """What every checkpoint says of itself; subclasses add where it comes from.

    `family`: models that may be compared with one another; null stands alone. `stage`: what training it has behind it;
    null is not known. `adapter`: a LoRA
    folder, `packaged:NAME` for one that rcm ships, or `hub:ORG/NAME`, also at `@REVISION`. `quantization`: weights in
    fewer bits, by bitsandbytes. `attn_implementation`: transformers' name of one; null is its choice. `refusal_tokens`:
    the tokens that open a refusal, as text or ids; null finds them.
    """

    family: str | None
    stage: Stage | None
    dtype: Literal["float32", "bfloat16", "float16"]
    quantization: Quantization | None
    attn_implementation: str | None
    adapter: str | None
    refusal_tokens: tuple[int | str, ...] | None

    @property
    @abstractmethod
    def label(self) -> str:
        """The checkpoint's name for people."""

    @abstractmethod
    def config(self) -> PretrainedConfig:
        """The architecture, without weights; raises InputError where the checkpoint cannot be had."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's own tokenizer."""

    @abstractmethod
    def weights(self, placement: Placement = ON_CPU) -> Weights:
        """The checkpoint in `dtype`, where it is to lie."""

    @property
    def adapter_path(self) -> Path | None:
        """The adapter's folder; raises InputError where one of the hub cannot be had."""
        if self.adapter is None:
            return None
        return fetched(self.adapter) if self.adapter.startswith(HUB) else located(self.adapter)

    @property
    def adapter_commit(self) -> str:
        """What the revision of an adapter on the hub stands for; empty of any other."""
        return path.name if self.adapter and self.adapter.startswith(HUB) and (path := self.adapter_path) else ""

    def check(self, prompts: Sequence[str], template: Kind | Lent, reply: int = 0) -> None:
        """Raise InputError for what cannot work, before any weights load. `reply`: how many tokens will be said."""
        config = self.config()
        check_quantization(self.quantization)
        check_architecture(config, self.label)
        tokenizer = self.tokenizer()
        bound = Template.of(tokenizer, template)
        if template in ("chat", "no_thinking") and bound.kind == "plain":
            log.warning(
                "%s has no chat template: it is asked in plain text. dataset.template=of:MODEL lends it another's.",
                self.label,
            )
        bound.check(prompts, longest_prompt(config), reply, vocabulary(config))
        if bound.closing:
            log.info(
                "Thoughts are closed in the prompt, which ends in %r: the first token is the answer's.", bound.closing
            )
        for token in self._refusal_tokens(tokenizer) or ():
            if not 0 <= token < vocabulary(config):
                raise InputError(
                    f"model.refusal_tokens has the token {token}, and {self.label} has {vocabulary(config)}, from 0 "
                    "on; name another."
                )
        if self.adapter_path is not None:
            check_adapter(self.adapter_path, config, self.label)
            if template == "chat" and brought_template(self.adapter_path) not in (None, tokenizer.chat_template):
                log.warning(
                    "The adapter %s brings a chat template that is not %s's; dataset.template=of:%s would ask in it.",
                    *(self.adapter_path, self.label, self.adapter_path),
                )
        if unsaid := [f"model.{name}=" for name in ("family", "stage") if getattr(self, name) is None]:
            log.info("%s is compared with no other model; %s would say with which.", self.label, " and ".join(unsaid))

    def load(self, where: torch.device | Placement, template: Kind | Lent, batch_size: int | None) -> LoadedModel:
        """Load onto the device, or spread over several, in eval mode and without gradients. A model that is spread goes
        through the host's memory as a whole where it has an adapter."""
        placement = Placement.of(where)
        if placement.map is not None and self.quantization is not None and self.adapter is not None:
            raise InputError(
                f"model.adapter={self.adapter} cannot be merged into weights that are quantised and spread; leave away "
                "device.map or model.quantization, or give the merged model."
            )
        if placement.map is not None:
            gc.collect()  # of models that were spread before: accelerate's hooks hold them in circles
        alone = self.model_copy(update={"adapter": None})
        tokenizer = self.tokenizer()
        if self.adapter_path is None:
            hf, revision = self.weights(placement)
        else:  # peft merges into weights that lie somewhere, and spreads none
            hf, revision = self.weights(ON_CPU if placement.map is not None else placement)
            hf = merged(hf, self.adapter_path)
            hf = placement.spread(hf) if placement.map is not None else hf
        if spread := described(hf):
            log.info("%s", spread)
        if untried := untested({parameter.device for parameter in hf.parameters()}, self.quantization):
            log.warning("%s", untried)
        return LoadedModel.of(
            hf,
            tokenizer,
            template,
            batch_size=batch_size,
            refusal_tokens=self._refusal_tokens(tokenizer),
            identity={"name": self.label, "revision": revision, "adapter": self.adapter or "", "dtype": self.dtype}
            | ({"quantization": self.quantization} if self.quantization else {}),
            trained_on=trained_on(self.adapter_path) if self.adapter_path else frozenset(),
            base=partial(alone.load, placement, template, batch_size) if self.adapter_path else None,
        )

    def _refusal_tokens(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...] | None:
        if self.refusal_tokens is None:
            return None
        # Each once: text and id may name the same, which would count twice.
        return tuple(dict.fromkeys(_token(tokenizer, token) for token in self.refusal_tokens))


def _token(tokenizer: PreTrainedTokenizerBase, token: int | str) -> int:
    if isinstance(token, int):
        return token
    ids: Any = tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InputError(
            f"model.refusal_tokens has {token!r}, which this tokenizer splits into {len(ids)} tokens; "
            "give single tokens, as text or as ids."
        )
    return ids[0]
