"""Judges that are models: classifiers of refusals, and language models that are asked.

They run where the run does (`Judge.on`); by themselves on a GPU where there is one. Weights come from the hub or a
local folder, straight to that device, and are let go when a method that asked has ended (`Judge.release`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils.memory import clear_device_cache
from pydantic import PositiveInt, PrivateAttr
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rcm.errors import InputError
from rcm.execution.progress import track
from rcm.judges.base import Judge, Verdict
from rcm.models.checkpoint import UNREADABLE
from rcm.models.placement import Placement


class Neural(Judge):
    """`name`: a hub id, at `revision`, or a folder. `batch_size`: completions at once."""

    name: str
    revision: str | None
    batch_size: PositiveInt

    _device: torch.device | None = PrivateAttr(None)

    @property
    def device(self) -> torch.device:
        return self._device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def on(self, device: torch.device) -> "Neural":
        placed = cast(Neural, super().on(device)).model_copy()
        placed.__dict__.pop("_model", None)  # which may lie on another
        placed._device = device
        return placed

    def release(self) -> None:
        super().release()
        if self.__dict__.pop("_model", None) is not None:
            clear_device_cache()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._fetched(AutoTokenizer.from_pretrained)

    @property
    def commit(self) -> str:
        """What `revision` stands for; empty for a folder. Fetches the config where it is not cached."""
        return "" if Path(self.name).is_dir() else str(self._fetched(AutoConfig.from_pretrained)._commit_hash)

    def _fetched(self, load: Callable[..., Any], **settings: object) -> Any:
        try:
            return load(self.name, revision=self.revision, trust_remote_code=False, **settings)
        except UNREADABLE as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"judge.name={self.name} cannot be loaded ({reason}); give a hub id or a folder."
            ) from error

    @property
    def _placed(self) -> dict[str, Any]:
        """What `from_pretrained` needs, so that the weights go straight to the device."""
        return Placement(self.device).arguments()

    def _batches(self, n: int, label: str) -> list[range]:
        starts = list(range(0, n, self.batch_size))
        return [range(start, min(start + self.batch_size, n)) for start in track(starts, label)]


class Classifier(Neural):
    """A sequence classifier. It reads `text`, in which {prompt} and {completion} are put, cut to `max_tokens` from its
    beginning; `labels` says which verdict each of its own labels is."""

    text: str
    labels: Mapping[str, Verdict]
    max_tokens: PositiveInt

    @torch.inference_mode()
    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for batch in self._batches(len(prompts), "judge"):
            texts = [filled(self.text, prompts[i], completions[i]) for i in batch]
            tokens = self.tokenizer(
                texts, return_tensors="pt", padding=True, truncation=True, max_length=self.max_tokens
            ).to(self.device)
            verdicts += [self._verdict_of[label] for label in self._model(**tokens).logits.argmax(-1).tolist()]
        return verdicts

    @cached_property
    def _model(self) -> PreTrainedModel:
        return self._fetched(AutoModelForSequenceClassification.from_pretrained, **self._placed).eval()

    @cached_property
    def _verdict_of(self) -> dict[int, Verdict]:
        own = cast(dict[int, str], self._fetched(AutoConfig.from_pretrained).id2label)
        if set(own.values()) != set(self.labels):
            labels = ", ".join(sorted(map(str, own.values())))
            raise InputError(f"judge.labels must say a verdict for each label of {self.name}, which are: {labels}.")
        return {index: self.labels[label] for index, label in own.items()}


class Rubric(Neural):
    """A chat model that is asked by a `rubric`, in which {prompt} and {completion} are put. It must answer with one of
    the three words and nothing else; whatever it says otherwise leaves the completion unscored."""

    rubric: str
    max_new_tokens: PositiveInt

    @torch.inference_mode()
    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for batch in self._batches(len(prompts), "judge"):
            texts = [self._asked(prompts[i], completions[i]) for i in batch]
            tokens = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.device)
            generated = self._model.generate(**tokens, max_new_tokens=self.max_new_tokens, do_sample=False)
            replies = self.tokenizer.batch_decode(
                generated[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True
            )
            verdicts += [parsed(reply) for reply in replies]
        return verdicts

    def _asked(self, prompt: str, completion: str) -> str:
        text = filled(self.rubric, prompt, completion)
        if self.tokenizer.chat_template is None:
            return text
        turn = [{"role": "user", "content": text}]
        return cast(str, self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))

    @cached_property
    def _model(self) -> Any:
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        return self._fetched(AutoModelForCausalLM.from_pretrained, dtype="auto", **self._placed).eval()


def filled(text: str, prompt: str, completion: str) -> str:
    """Both put in at once: a completion that says {prompt} is not filled in again."""
    return re.sub(r"\{(prompt|completion)\}", lambda found: prompt if found[1] == "prompt" else completion, text)


def parsed(reply: str) -> Verdict:
    """The verdict, if the reply is one of the three words, in any case and with a full stop or quotes at most."""
    word = reply.strip().strip("\"'*.`").lower()
    known = {verdict.value: verdict for verdict in (Verdict.REFUSAL, Verdict.PARTIAL, Verdict.COMPLIANCE)}
    return known.get(word, Verdict.INVALID)
