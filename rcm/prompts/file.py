"""Your own prompts, in parts that you chose."""

from pathlib import Path
from typing import cast

from rcm.errors import InputError
from rcm.prompts.sources import document, local
from rcm.prompts.split import Dataset, Part, Prompt, Split, checked

PARTS = ("train", "validation", "test")
TEXT_FIELDS = ("prompt", "instruction", "text")


class File(Dataset):
    """One JSON file, of yours or on the hub (`rcm.prompts.sources`), taken exactly as it stands:

        {"train": {"harmful": [...], "harmless": [...]}, "validation": {...}, "test": {...}}

    A prompt is a text or an object with the text under `prompt`, `instruction` or `text` and, if you like, `category`.
    Optional beside the parts: `"paired": true` if `harmful[i]` and `harmless[i]` belong together in every part, and
    `"lookalike": [...]`, safe prompts that merely look unsafe.
    """

    path: str | None

    def load(self) -> Split:
        if self.path is None:
            raise InputError("dataset=file reads a file of yours; pass dataset.path=X.json.")
        file = local(self.path, "dataset.path=X.json")
        if file.suffix.lower() != ".json":
            raise InputError(f"{self.path} is no .json file with its parts; dataset=table takes a table of prompts.")
        content = _fields(document(file), str(file), PARTS, ("paired", "lookalike"))
        train, validation, test = (_part(content[name], f"{file}: {name}") for name in PARTS)
        split = Split(
            train=train,
            validation=validation,
            test=test,
            template=self.template,
            paired=_paired(content.get("paired", False), file),
            lookalike=_prompts(content.get("lookalike", []), f"{file}: lookalike"),
        )
        return checked(_evenly_paired(split, file), str(file))


def _fields(value: object, place: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InputError(f"{place} is {_kind(value)}; write an object with {', '.join(required)}.")
    fields = cast(dict[str, object], value)
    for name in required:
        if name not in fields:
            raise InputError(f"{place} has no field {name!r}; add it.")
    known = required + optional
    for name in fields:
        if name not in known:
            raise InputError(f"{place} has the unknown field {name!r}; remove it or call it one of {', '.join(known)}.")
    return fields


def _part(value: object, place: str) -> Part:
    fields = _fields(value, place, ("harmful", "harmless"))
    return Part(*(_prompts(fields[name], f"{place}.{name}") for name in ("harmful", "harmless")))


def _prompts(value: object, place: str) -> tuple[Prompt, ...]:
    if not isinstance(value, list):
        raise InputError(f"{place} is {_kind(value)}; write a list of prompts.")
    return tuple(_prompt(item, f"{place}[{number}]") for number, item in enumerate(cast(list[object], value)))


def _prompt(item: object, place: str) -> Prompt:
    if isinstance(item, str):
        return Prompt(item, "")
    fields = cast(dict[str, object], item) if isinstance(item, dict) else {}
    texts = [fields[name] for name in TEXT_FIELDS if name in fields]
    category = fields.get("category") or ""
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise InputError(f"{place} is no prompt; write a text, or an object with one of {', '.join(TEXT_FIELDS)}.")
    if not isinstance(category, str):
        raise InputError(f"{place}.category is {_kind(category)}; write a text or leave it out.")
    return Prompt(texts[0], category)


def _paired(value: object, file: Path) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{file}: paired is {_kind(value)}; write true or leave it out.")
    return value


def _evenly_paired(split: Split, file: Path) -> Split:
    for name, part in zip(PARTS, (split.train, split.validation, split.test), strict=True):
        harmful, harmless = len(part.harmful), len(part.harmless)
        if split.paired and harmful != harmless:
            raise InputError(
                f"{file}: {name} has {harmful} harmful and {harmless} harmless prompts; pair them all or drop `paired`."
            )
    return split


def _kind(value: object) -> str:
    """The JSON kind of a value, for people."""
    kinds: dict[type[object], str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")
