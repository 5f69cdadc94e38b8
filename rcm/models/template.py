"""How a prompt becomes tokens, and which tokens end every instruction.

`chat` renders the tokenizer's own chat template, or one that another model lends (`rcm.models.lending`): so a base
without one is asked in the words of what was tuned from it. `plain` renders `User: ...` and `Assistant:`, for models
without one and for comparing base and chat models on the same text.

The *end-of-instruction* tokens are those that follow the instruction in every prompt; directions and patches live
there, because they are the first place where the model has read the whole request (Arditi et al. 2024, section 2.3).
They are found by comparing rendered prompts, not listed.

A reasoning model writes thoughts between <think> and </think> first, and its first token says nothing of its answer. So
thoughts are closed in the prompt, as the field does it (`<think>`, an empty line, `</think>`): by the chat template
itself where it can be asked to (Qwen3's `enable_thinking=False`), behind it where it opens them in any case
(DeepSeek-R1's), and with `no_thinking` behind any other, for a model that opens them by itself.
"""

import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import groupby, takewhile
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rcm.errors import InputError, first_sentence

Kind = Literal["chat", "plain", "no_thinking"]
THINK, THOUGHT = "<think>", "</think>"
PLAIN = "User: {prompt}\nAssistant:"
NEXT_TURN = "\nUser:"
TODAY = date(2024, 7, 26)  # as Llama 3's own template has it where it is not told

# Prompts that end in unlike characters, so that a token which only some of them share is not taken for the template's.
PROBES = ("Name a river", "Is this a question?", "Stop.", "Count to 10", 'Say "yes"', "Wait!", "(maybe)", "a, b, c;")


class Batch(NamedTuple):
    """Prompts as tokens, padded on the left so that the last token of every prompt is at -1."""

    input_ids: Int[Tensor, "prompt token"]
    attention_mask: Int[Tensor, "prompt token"]

    @property
    def position_ids(self) -> Int[Tensor, "prompt token"]:
        """Positions that do not count the padding; without them a padded prompt gets other logits than one alone."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)


class Lent(NamedTuple):
    """A chat template, in Jinja, and the name of the model whose it is."""

    text: str
    owner: str


@dataclass(frozen=True)
class Template:
    """A tokenizer and the kind of text that prompts are put into. `lent`: another model's chat template, and whose it
    is; of a chat template of its own, None. `no_thinking`: whether thoughts are closed behind it although it opens
    none."""

    tokenizer: PreTrainedTokenizerBase
    kind: Literal["chat", "plain"]
    lent: Lent | None = None
    no_thinking: bool = False

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, wanted: "Kind | Lent") -> "Template":
        """The wanted kind, or `plain` where the tokenizer has no chat template (the page prints which it was)."""
        if isinstance(wanted, Lent):
            return cls(tokenizer, "chat", wanted)
        kind: Literal["chat", "plain"] = "chat" if wanted != "plain" and tokenizer.chat_template else "plain"
        return cls(tokenizer, kind, no_thinking=kind == "chat" and wanted == "no_thinking")

    @property
    def described(self) -> str:
        """For people."""
        kind = f"chat, of {self.lent.owner}" if self.lent else self.kind
        return f"{kind}, thoughts closed" if self.closing else kind

    def render(self, prompt: str) -> str:
        """The text that the model reads."""
        return self.own_text(prompt) + self.closing

    def own_text(self, prompt: str) -> str:
        """The same as the template itself puts it, which may open thoughts."""
        if self.kind == "plain":
            return PLAIN.format(prompt=prompt)
        return self._rendered(_parts(prompt) if self._in_parts else prompt)

    @cached_property
    def closing(self) -> str:
        """What closes thoughts behind the template's own text, so that the first token is the answer's; '' where none
        are open."""
        after = self.own_text(PROBES[0]).rpartition(PROBES[0])[2]
        if after.rfind(THINK) > after.rfind(THOUGHT):
            return f"\n{THOUGHT}\n\n" if after.endswith("\n") else f"\n\n{THOUGHT}\n\n"
        return f"{THINK}\n\n{THOUGHT}\n\n" if self.no_thinking and THOUGHT not in after else ""

    @cached_property
    def _without_clock(self) -> str:
        """The chat template, with what it would ask the clock itself written in (transformers lends it no other)."""
        return _without_clock(self.lent.text if self.lent else self.tokenizer.get_chat_template())

    def _check_text(self) -> None:
        """Raise InputError for a chat template that a prompt cannot be put into."""
        if self.kind == "plain":
            return
        try:
            rendered = self.render(PROBES[0])
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"The chat template does not take a prompt of the user's ({first_sentence(error)}); ask in "
                "plain text with dataset.template=plain, or lend it another's with dataset.template=of:MODEL."
            ) from error
        if PROBES[0] not in rendered:
            raise InputError(
                "The chat template leaves out what the user says; ask in plain text with dataset.template=plain, or "
                "lend it another's with dataset.template=of:MODEL."
            )

    @cached_property
    def _in_parts(self) -> bool:
        """Whether it wants what is said as a list of parts, and prints nothing of a plain text."""
        try:
            return PROBES[0] not in self._rendered(PROBES[0]) and PROBES[0] in self._rendered(_parts(PROBES[0]))
        except (TemplateError, ValueError, TypeError, KeyError):
            return False

    def _rendered(self, content: Any, reply: str | None = None) -> str:
        # Some templates print today's date or open a chain of thought: both would change the tokens from day to day or
        # from model to model, so they are pinned. Templates that know neither variable ignore them.
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}, *([{"role": "assistant", "content": reply}] if reply else [])],
            chat_template=self._without_clock,
            tokenize=False,
            add_generation_prompt=reply is None,
            date_string=TODAY.strftime("%d %b %Y"),
            enable_thinking=False,
        )
        assert isinstance(text, str)
        return text

    def tokens(self, prompt: str) -> list[int]:
        """Token ids; a chat template writes its special tokens itself, a plain prompt gets the tokenizer's own."""
        return self.tokenizer(self.render(prompt), add_special_tokens=self.kind == "plain")["input_ids"]

    def transformers_tokens(self, prompt: str) -> list[int]:
        """The same by the tokenizer's own chat template, rendered and read by transformers alone, with the date and
        thoughts as they are pinned here."""
        found = self.tokenizer.apply_chat_template(
            cast(Any, [{"role": "user", "content": _parts(prompt) if self._in_parts else prompt}]),
            chat_template=_without_clock(self.tokenizer.get_chat_template()),
            tokenize=not self.closing,
            return_dict=False,
            add_generation_prompt=True,
            date_string=TODAY.strftime("%d %b %Y"),
            enable_thinking=False,
        )
        if isinstance(found, str):
            return self.tokenizer(found + self.closing, add_special_tokens=False)["input_ids"]
        return cast(list[int], found)

    def batch(self, prompts: Sequence[str], device: torch.device | str = "cpu", skip: int = 0) -> Batch:
        """Left-padded tokens with their mask, without the first `skip` tokens of each."""
        return self.padded([self.tokens(prompt)[skip:] for prompt in prompts], device)

    def padded(self, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu", beginning: int = 0) -> Batch:
        """Token rows, padded on the left (after the `beginning` that all share), with their mask."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            rest = width - len(tokens) + beginning
            ids[row, :beginning], ids[row, rest:] = torch.tensor(tokens).tensor_split([beginning])
            mask[row, :beginning] = mask[row, rest:] = 1
        return Batch(ids.to(device), mask.to(device))

    @property
    def pad(self) -> int:
        """Any id will do, because the mask hides it; tokenizers of base models often have none of their own."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(id for id in ids if isinstance(id, int))

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """The token ids before the instruction, the same for every prompt (the system prompt, for one)."""
        return tuple(common_beginning(self.tokens(probe) for probe in PROBES))

    @cached_property
    def end_of_instruction(self) -> tuple[int, ...]:
        """The token ids after the instruction, the same for every prompt."""
        common = common_beginning(self.tokens(probe)[::-1] for probe in PROBES)
        if not common:
            raise InputError(
                f"The {self.kind} template of this tokenizer ends no two prompts in the same token; "
                "ask for the plain one with dataset.template=plain."
            )
        return tuple(reversed(common))

    @property
    def end_of_turn(self) -> int | None:
        """The token that closes a turn: what closes the user's in a chat template, else the tokenizer's end of text."""
        closing = self.end_of_instruction[0]
        if self.kind == "chat" and closing in self.tokenizer.all_special_ids:
            return closing
        return self.tokenizer.eos_token_id

    @cached_property
    def end_of_reply(self) -> int | None:
        """The special token that a chat template writes next behind a reply, which is what the model learnt to end its
        turn with; None where it writes none, or takes no reply."""
        if self.kind == "plain":
            return None
        try:
            text = self._rendered(_parts(PROBES[0]) if self._in_parts else PROBES[0], reply=PROBES[2])
        except (TemplateError, ValueError, TypeError, KeyError):
            return None
        behind = text.rpartition(PROBES[2])[2] if PROBES[2] in text else ""
        ids = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        return ids[0] if ids and ids[0] in self.tokenizer.all_special_ids else None

    @cached_property
    def end_of_instruction_text(self) -> list[str]:
        """Each end-of-instruction token as readable text, for the axes of pictures."""
        return [repr(self.tokenizer.decode([id]))[1:-1] for id in self.end_of_instruction]

    @cached_property
    def digest(self) -> str:
        """Twelve hex digits over the rendered text and its tokens: equal digests, equal prompts for the model."""
        text = self.render("{prompt}") + repr((self.beginning, self.end_of_instruction))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def check(self, prompts: Sequence[str], longest: int, reply: int = 0, vocabulary: int = sys.maxsize) -> None:
        """Raise InputError for a prompt that with a reply of so many tokens is longer than `longest`, whose end of
        instruction is another, or which has tokens that a model of this `vocabulary` has no embedding for."""
        self._check_text()
        for index, prompt in enumerate(prompts):
            tokens = self.tokens(prompt)
            if len(tokens) + reply > longest:
                more = f", and a reply of {reply} makes it {len(tokens) + reply}" if reply else ""
                raise InputError(
                    f"Prompt {index} ({prompt[:40]!r}...) has {len(tokens)} tokens{more}, and the model reads "
                    f"{longest}; shorten or drop it{', or ask for less with max_new_tokens' if reply else ''}."
                )
            if (strange := max(tokens)) >= vocabulary:
                raise InputError(
                    f"Prompt {index} ({prompt[:40]!r}...) has the token {strange} "
                    f"({self.tokenizer.decode([strange])!r}), and the model has embeddings of {vocabulary}; give the "
                    "tokenizer that belongs to it."
                )
            begins = tuple(tokens[: len(self.beginning)]) == self.beginning
            if not begins or tuple(tokens[-len(self.end_of_instruction) :]) != self.end_of_instruction:
                raise InputError(
                    f"Prompt {index} ({prompt[:40]!r}...) merges with the template's own tokens "
                    f"around it, which end in {self.end_of_instruction_text}; drop control characters from its ends."
                )

    def reply(self, tokens: Sequence[int]) -> str:
        """The model's own turn as text: without special tokens, without a last character of which only the first bytes
        were generated, and cut where a base model writes the next turn. Where thoughts begin and end stays in it, also
        where the tokenizer has special tokens for that, so that nobody takes them for the answer."""
        added = self.tokenizer.get_added_vocab()
        marks = {added[mark]: mark for mark in (THINK, THOUGHT) if mark in added}
        text = "".join(
            mark or str(self.tokenizer.decode(list(part), skip_special_tokens=True))
            for mark, part in groupby(tokens, lambda token: marks.get(token, ""))
        )
        return (text.split(NEXT_TURN)[0] if self.kind == "plain" else text).rstrip("\ufffd").strip()


def _without_clock(template: Any) -> Any:
    return re.sub(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""", lambda call: repr(TODAY.strftime(call[2])), template)


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def common_beginning(rows: Iterable[Sequence[int]]) -> list[int]:
    """The longest beginning that all rows share."""
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))]
