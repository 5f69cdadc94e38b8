"""What every data set gives: prompts in three parts, and what is known about them."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AfterValidator

from rcm.errors import InputError
from rcm.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

# A contrast set reports on its lookalikes also as the harmless prompts of its test part.
LOOKALIKES_OF = {"lookalike": "test.harmless"}


def _known_template(template: str) -> str:
    if template in ("chat", "plain", "no_thinking") or (template.startswith("of:") and template != "of:"):
        return template
    raise ValueError("choose chat, plain, no_thinking, or of:MODEL for the chat template of that model")


class Prompt(NamedTuple):
    """A request to a model, without any chat template. `category` is '' where the source has none."""

    text: str
    category: str


class Part(NamedTuple):
    """The prompts of one purpose."""

    harmful: tuple[Prompt, ...]
    harmless: tuple[Prompt, ...]

    def first(self, n: int | None) -> "Part":
        """As many of each class; None is all."""
        return Part(self.harmful[:n], self.harmless[:n])


@dataclass(frozen=True)
class Split:
    """Prompts to fit on (`train`), to choose by (`validation`) and to report on (`test`).

    `template`: whether a prompt is asked in the model's `chat` format, in that with thoughts closed (`no_thinking`), in
    that `of:MODEL`, or given as `plain` text.
    `paired`: `harmful[i]` and `harmless[i]` differ only in what makes the one harmful.
    `lookalike`: safe prompts that merely look unsafe, none of which is in `train` or `validation`.
    """

    train: Part
    validation: Part
    test: Part
    template: str
    paired: bool
    lookalike: tuple[Prompt, ...] = ()

    @property
    def everything(self) -> list[str]:
        """Every text of every part."""
        return [prompt.text for _, prompts in _places(self) for prompt in prompts]


class Dataset(Settings):
    """A source of prompts: its settings and one function."""

    template: Annotated[str, AfterValidator(_known_template)]

    @abstractmethod
    def load(self) -> Split:
        """The prompts. Raises InputError if the source cannot be had, is malformed or too small."""


def texts(prompts: Iterable[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def checked(split: Split, source: str) -> Split:
    """`split`, if no part and no prompt is empty. A text in two places makes figures doubtful and is warned of."""
    seen: dict[str, str] = {}
    for place, prompts in _places(split):
        if not prompts and place != "lookalike":
            raise InputError(f"{source} leaves {place} empty; every part needs at least one prompt, so add some.")
        for number, prompt in enumerate(prompts):
            if not prompt.text.strip():
                raise InputError(f"{source} has an empty text at {place}[{number}]; fill or remove it.")
            if "\0" in prompt.text:
                raise InputError(
                    f"{source} has a NUL at {place}[{number}], as files have after a crash; copy or mend it."
                )
            if any("\ud800" <= character <= "\udfff" for character in prompt.text):
                raise InputError(
                    f"{source} has half of a character (a lone surrogate) at {place}[{number}]; write it as UTF-8, or "
                    "escape both halves."
                )
            if (earlier := seen.setdefault(prompt.text, place)) not in (place, LOOKALIKES_OF.get(place)):
                log.warning("%s has the same text in %s and at %s[%d].", source, earlier, place, number)
    return split


def first(prompts: tuple[T, ...], n: int | None, size: str, source: str) -> tuple[T, ...]:
    """The first `n`, all if `n` is None. `size` is the setting that says how many."""
    if n is not None and n > len(prompts):
        raise InputError(f"{source} has no {n} prompts for dataset.{size}; set it to {len(prompts)} or less.")
    return prompts[:n]


def _places(split: Split) -> Iterator[tuple[str, tuple[Prompt, ...]]]:
    for name, part in {"train": split.train, "validation": split.validation, "test": split.test}.items():
        yield f"{name}.harmful", part.harmful
        yield f"{name}.harmless", part.harmless
    yield "lookalike", split.lookalike
