"""Checkpoints in Hugging Face's format: on the hub, at any revision, or in a local folder."""

from abc import abstractmethod
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from rcm.errors import InputError, first_sentence
from rcm.models import Model, Placement, Weights
from rcm.models.checkpoint import UNREADABLE, whole_model
from rcm.models.placement import ON_CPU
from rcm.packaged import located


class Pretrained(Model):
    """What `from_pretrained` reads."""

    @property
    @abstractmethod
    def source(self) -> str:
        """A hub id or a folder."""

    @property
    @abstractmethod
    def cure(self) -> str:
        """What to do when the source cannot be read."""

    @property
    def wanted_revision(self) -> str | None:
        return None

    @property
    def commit(self) -> str:
        """What `wanted_revision` stood for when it was read; empty for a folder."""
        return ""

    @property
    def label(self) -> str:
        return self.source

    def config(self) -> PretrainedConfig:
        try:
            return AutoConfig.from_pretrained(
                self.source, revision=self.wanted_revision or "main", trust_remote_code=False
            )
        except UNREADABLE as error:
            raise self._unreadable(first_sentence(error)) from error

    def tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.source, revision=self.wanted_revision or "main", trust_remote_code=False
            )
            tokenizer("whether it can be called at all")
        except Exception as error:  # which is what the tokenizers' Rust raises of a file that it cannot read
            raise self._unreadable(first_sentence(error)) from error
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            # What transformers makes of a checkpoint without tokenizer files, instead of an error.
            raise self._unreadable("its tokenizer has no vocabulary")
        return tokenizer

    def weights(self, placement: Placement = ON_CPU) -> Weights:
        hf = whole_model(self.source, self, placement, self._unreadable, revision=self.wanted_revision or "main")
        return Weights(hf, self.commit)

    def _unreadable(self, reason: str) -> InputError:
        return InputError(f"Cannot read the model {self.source!r}: {reason}; {self.cure}.")


class Hub(Pretrained):
    """A checkpoint on the Hugging Face hub. `revision`: a branch, tag or commit, such as Pythia's `step1000`."""

    name: str
    revision: str | None

    @property
    def source(self) -> str:
        return self.name

    @property
    def wanted_revision(self) -> str | None:
        return self.revision

    @property
    def commit(self) -> str:
        file = try_to_load_from_cache(self.name, "config.json", revision=self.revision or "main")
        return Path(file).parent.name if isinstance(file, str) else ""

    @property
    def cure(self) -> str:
        return (
            f"connect once and run `hf download {self.name}` (gated models: accept the licence, then `hf auth login`), "
            "or use model=folder model.path=FOLDER"
        )


class Folder(Pretrained):
    """A checkpoint in a local folder that `save_pretrained` wrote."""

    path: str | None

    @property
    def source(self) -> str:
        if self.path is None:
            raise InputError("model=folder needs a folder; say which with model.path=FOLDER.")
        return str(located(self.path))

    @property
    def cure(self) -> str:
        return "model.path wants a folder with config.json, model.safetensors and tokenizer.json"

    def config(self) -> PretrainedConfig:
        if not (Path(self.source) / "config.json").is_file():
            raise InputError(f"The folder {self.source} has no config.json; {self.cure}.")
        return super().config()
