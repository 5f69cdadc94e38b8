"""The chat template that `dataset.template` asks for: a model's own, or `of:MODEL`, which another model lends.

A base model often has no chat template. Asked in plain text it reads other words than the model that was tuned from it,
and decides at other tokens; asked in the tuned model's template, both read the same. The base's own tokenizer renders
it: where that does not know the template's special tokens, the template's digest differs, and the page says so.
"""

from pathlib import Path
from pydoc import locate
from typing import Any, cast

import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rcm.errors import InputError, first_sentence
from rcm.models import Model
from rcm.models.gguf import Gguf
from rcm.models.template import Kind, Lent
from rcm.packaged import CONF, located

OF = "of:"


def asked(template: str) -> Kind | Lent:
    """What a data set's `template` asks for; raises InputError where another model has none to lend."""
    if not template.startswith(OF):
        return cast(Kind, template)
    owner = template.removeprefix(OF)
    found: Any = tokenizer_of(owner, f"dataset.template={template}").chat_template
    if not isinstance(found, str):
        raise InputError(
            f"dataset.template={template}: {owner} has {'several chat templates' if found else 'no chat template'}; "
            "name a model that has one, or ask in plain text with dataset.template=plain."
        )
    return Lent(found, Path(owner).name)


def tokenizer_of(owner: str, setting: str) -> PreTrainedTokenizerBase:
    """Of a model that a setting names: an option of `model`, a folder, or a GGUF file; raises InputError for none."""
    option = CONF / "model" / f"{owner}.yaml"
    if option.is_file():
        settings = yaml.safe_load(option.read_text(encoding="utf-8"))
        if "???" in settings.values():
            prefix = OF if OF in setting else ""
            raise InputError(f"{setting}: say which one, as {prefix}FOLDER or {prefix}FILE.gguf.")
        return cast(type[Model], locate(settings.pop("_target_")))(**settings).tokenizer()
    place = located(owner)
    if place.is_file():
        values: dict[str, Any] = dict.fromkeys(
            ("family", "stage", "quantization", "attn_implementation", "adapter", "refusal_tokens")
        )
        return Gguf(path=owner, dtype="float32", **values).tokenizer()
    if not place.is_dir():
        raise InputError(
            f"{setting} names no model; give an option of `model` that --help lists, a folder, or a GGUF file."
        )
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # tokenizers' own
        raise InputError(f"{setting}: cannot read its tokenizer ({first_sentence(error)}).") from error
