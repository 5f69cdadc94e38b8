"""In which order the methods of a run go: each after those whose findings it takes."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import rcm.methods
from rcm.errors import InputError
from rcm.methods import Method
from rcm.packaged import CONF


def in_order(methods: Mapping[str, Method]) -> dict[str, Method]:
    """The methods by name, as given as far as findings allow; raises InputError where a finding that one needs is given
    by none of them, or where some wait for each other."""
    for name, method in methods.items():
        for need in method.needs:
            if not any(other.gives is need for place, other in methods.items() if place != name):
                raise InputError(_missing(name, need, methods))
    waiting, ordered = dict(methods), dict[str, Method]()
    while waiting:
        ready = next((name for name, method in waiting.items() if not _awaits(method, name, waiting)), None)
        if ready is None:
            raise InputError(f"method=[{','.join(waiting)}] wait for each other's findings; leave one of them away.")
        ordered[ready] = waiting.pop(ready)
    return ordered


def _awaits(method: Method, name: str, waiting: Mapping[str, Method]) -> bool:
    """Whether a finding that it takes is still to come."""
    taken = (*method.needs, *method.uses)
    return any(other.gives in taken for place, other in waiting.items() if place != name)


def _missing(name: str, need: type, methods: Mapping[str, Method]) -> str:
    by = sorted(set(givers(need)))
    if not by:
        return f"method={name} needs a {need.__name__}, which no method gives."
    cures = (f"method=[{','.join([giver, *methods])}]" for giver in by)
    return f"method={name} needs a {need.__name__}, which {' or '.join(by)} gives; run {' or '.join(cures)}."


def givers(need: type) -> Iterator[str]:
    """The options of all methods, ours and those loaded from elsewhere, that give a finding."""
    for module in pkgutil.iter_modules(rcm.methods.__path__):
        importlib.import_module(f"rcm.methods.{module.name}")
    targets = {yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"]: path.stem for path in _options()}
    for kind in _subclasses(Method):
        if kind.gives is need:
            place = f"{kind.__module__}.{kind.__qualname__}"
            yield targets.get(place, place)  # an option that lies outside is known by its class


def _options() -> Iterator[Path]:
    """Our YAML files of single methods."""
    return (path for path in (CONF / "method").glob("*.yaml") if "_target_:" in path.read_text(encoding="utf-8"))


def _subclasses(kind: Any) -> Iterator[type[Method]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)
