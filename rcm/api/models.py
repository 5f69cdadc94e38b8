"""A model in memory, and what was found in it so far."""

import logging
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rcm.errors import InputError
from rcm.execution.batches import find_batch_size
from rcm.execution.seeding import seed_everything
from rcm.execution.self_checks import self_checks
from rcm.models import LoadedModel
from rcm.models.devices import Device
from rcm.models.lending import asked
from rcm.models.loaded import longest_prompt, vocabulary
from rcm.models.wrapped import Wrapped
from rcm.prompts import Split
from rcm.running.composed import composed, options_of
from rcm.running.processors import set_threads

log = logging.getLogger(__name__)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
DEVICE = ("batch_size", "threads", "map", "max_memory", "offload")  # settings of the device


@dataclass(frozen=True, eq=False)
class Model:
    """`loaded`: what methods get. `template`: as it was asked for. `found`: by what a finding is of, the finding."""

    loaded: LoadedModel
    template: str
    found: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _checked: set[Hashable] = field(default_factory=set, repr=False)

    def __repr__(self) -> str:
        model, identity = self.loaded, self.loaded.identity
        adapter = f" with {identity['adapter']}" if identity.get("adapter") else ""
        return (
            f"<rcm model {identity['name']}{adapter}: {model.n_layers} layers, d_model {model.d_model}, "
            f"{str(model.hf.dtype).removeprefix('torch.')} on {model.device}, {model.template.described} template>"
        )

    def check(self, prompts: Split, reply: int) -> None:
        """Raise InputError for prompts that it cannot be asked, or where it gives a prompt other figures in a batch
        than alone. `reply`: how many tokens will be said at most."""
        key = repr(prompts), reply
        if key in self._checked:
            return
        template, config = self.loaded.template, self.loaded.hf.config
        template.check(prompts.everything, longest_prompt(config), reply, vocabulary(config))
        lengths = [len(template.tokens(one)) + reply for one in prompts.everything]
        find_batch_size(self.loaded, max(lengths))
        self_checks(self.loaded, lengths)
        self._checked.add(key)


def load(name: str | os.PathLike[str], /, *, template: str = "chat", device: str = "auto", **settings: Any) -> Model:
    """A model by the name of its option (`smollm2-135m-refusal`; the files in `conf/model`), or a folder that
    `save_pretrained` wrote, a GGUF file, or an ORG/NAME on the hub.

    `template`: how it is asked: `chat`, `plain`, `no_thinking` (chat, with thoughts closed), or `of:MODEL` for another
    model's chat template. `device`: auto, cpu or cuda. `settings`: those of the option (`revision`, `dtype`, `adapter`,
    `refusal_tokens`, ...), and those of the device (`batch_size`, `threads`, `map`, `max_memory`, `offload`). Raises
    InputError for what cannot work, before any weights load.
    """
    option, own = _option(os.fspath(name))
    of_device = {key: settings.pop(key) for key in DEVICE if key in settings}
    if twice := sorted(own.keys() & settings.keys()):
        raise InputError(f"{name} is the model's {twice[0]} already; leave {twice[0]}= away.")
    given = {"model": {**own, **settings}, "device": of_device}
    chosen = composed({"model": option, "device": device, "method": ["direction"]}, given)
    seed_everything(chosen.seed)
    where, why = chosen.device.resolve()
    log.info("Loading %s on %s: %s", name, where, why)
    log.info("%s", set_threads(chosen.device.threads))
    text = _asked(template)
    chosen.model.check([], text)
    return Model(chosen.model.load(chosen.device.placement(), text, chosen.device.batch_size), template)


def wrap(
    hf: Any,
    tokenizer: Any,
    *,
    template: str = "chat",
    name: str | None = None,
    batch_size: int | None = None,
    refusal_tokens: Sequence[int | str] | None = None,
) -> Model:
    """A Hugging Face causal language model that is in memory already, with its tokenizer, where it lies.

    It is put into eval mode, without gradients, and decodes greedily from now on: `hf` itself is changed in these
    three ways, its weights are not. `batch_size`: the most prompts at once; None finds how many. It goes through the
    checks of a model that is loaded. Raises InputError for what cannot be measured.
    """
    model = Wrapped.of(hf, tokenizer, name, refusal_tokens)
    device = Device(kind="auto", batch_size=batch_size, threads=None, map=None, max_memory=None, offload=None)
    seed_everything(0)
    log.info("%s", set_threads(device.threads))
    text = _asked(template)
    model.check([], text)
    return Model(model.load(hf.device, text, device.batch_size), template)


def _option(name: str) -> tuple[str, Mapping[str, Any]]:
    """The option of `model`, and what it needs to know."""
    options, place = options_of("model"), Path(name).expanduser()
    if name in options:
        return name, {}
    if place.is_dir():
        return "folder", {"path": name}
    if place.is_file():
        return "gguf", {"path": name}
    if HUB_ID.fullmatch(name):
        return "hub", {"name": name}
    raise InputError(
        f"There is no model {name!r}: it is no folder, no GGUF file, no ORG/NAME of the hub, and none of "
        f"{', '.join(options)}."
    )


def _asked(template: str) -> Any:
    if template not in ("chat", "plain", "no_thinking") and not template.startswith("of:"):
        raise InputError(
            f"There is no template {template!r}; choose chat, plain, no_thinking, or of:MODEL for that model's own."
        )
    return asked(template)
