"""A model that its user has in memory already, checked like one that is loaded."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import SkipValidation
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rcm.errors import InputError
from rcm.models import Model, Placement, Weights
from rcm.models.checkpoint import check_numbers
from rcm.models.loaded import LoadedModel
from rcm.models.placement import ON_CPU, stored
from rcm.models.template import Kind, Lent


class Wrapped(Model):
    """`hf`: the model, which stays where it is; `own_tokenizer`: what belongs to it. `name`: for people."""

    hf: SkipValidation[Any]
    own_tokenizer: SkipValidation[Any]
    name: str

    @classmethod
    def of(
        cls, hf: Any, tokenizer: Any, name: str | None = None, refusal_tokens: Sequence[int | str] | None = None
    ) -> "Wrapped":
        """Raises InputError for what is no model of transformers' with weights, or no tokenizer."""
        if not isinstance(hf, PreTrainedModel):
            merge = "; of an adapter pass model.merge_and_unload()" if hasattr(hf, "merge_and_unload") else ""
            raise InputError(f"rcm.wrap takes a PreTrainedModel of transformers, not a {type(hf).__name__}{merge}.")
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InputError(
                f"rcm.wrap takes the tokenizer of the model, not a {type(tokenizer).__name__}; pass what "
                "AutoTokenizer.from_pretrained gives."
            )
        if unread := [name for name, values in stored(hf) if values.is_meta]:
            raise InputError(f"The model has no values for {unread[0]}; load its weights before it is wrapped.")
        dtypes = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
        if hf.dtype not in dtypes:
            raise InputError(
                f"The model computes in {hf.dtype}; load it in float32, bfloat16 or float16, as with hf.float()."
            )
        return cls.model_validate(
            {
                "hf": hf,
                "own_tokenizer": tokenizer,
                "name": name or hf.config.name_or_path or type(hf).__name__,
                "dtype": dtypes[hf.dtype],
                "refusal_tokens": None if refusal_tokens is None else tuple(refusal_tokens),
                **dict.fromkeys(("family", "stage", "adapter", "quantization", "attn_implementation")),
            }
        )

    @property
    def label(self) -> str:
        return self.name

    def config(self) -> PretrainedConfig:
        return self.hf.config

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.own_tokenizer

    def weights(self, placement: Placement = ON_CPU) -> Weights:
        check_numbers(self.hf, self.label)
        return Weights(self.hf, "")

    def load(self, where: torch.device | Placement, template: Kind | Lent, batch_size: int | None) -> LoadedModel:
        """Ready to be measured, on the devices where it lies: `where` moves nothing."""
        hf, revision = self.weights(Placement.of(where))
        return LoadedModel.of(
            hf,
            self.tokenizer(),
            template,
            batch_size=batch_size,
            refusal_tokens=self._refusal_tokens(self.own_tokenizer),
            identity={"name": self.label, "revision": revision, "adapter": "", "dtype": self.dtype},
        )
