"""Which code made a result, by content: of our own what measures, and of others' what the settings name.

What only shows (`report`, `tracking`), compares (`comparison`), hands on (`formats`) or orders what is run (`running`)
does not count: a changed page changes no figure. Of others' code counts the file that a `_target_` names, and every
module that it imports, wherever in it, that is of the same package or is not installed; of what is installed the
version counts.
"""

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rcm.packaged import ASSETS, PACKAGE
from rcm.record.digests import content_digest, file_digest
from rcm.record.provenance import version_of

OURS = PACKAGE.name
NOT_MEASURING = ("comparison", "formats", "report", "tracking", "running", "conf", "launch.py")
# Whose versions change figures; ours is told by its content.
PACKAGES = (
    *("torch", "transformers", "transformer-lens", "peft", "tokenizers", "safetensors", "gguf"),
    *("numpy", "scipy", "scikit-learn"),
)
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def sources_digest(settings: Any, *, now: bool = False) -> str:
    """Sixteen hex digits that name our code and that of every `_target_` in these settings: as it was when this process
    first asked, or as it is `now`. Where these differ, nobody knows which of it is loaded."""
    own, of_target = (_own.__wrapped__, _of_target.__wrapped__) if now else (_own, _of_target)
    digest = hashlib.sha256(own().encode())
    for target in sorted(set(_targets(settings))):
        digest.update(of_target(target).encode())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str | None]:
    """Of the packages that figures depend on; None of one that is not there."""
    return {name: version_of(name) for name in PACKAGES}


@cache
def _own() -> str:
    digest = hashlib.sha256(content_digest(ASSETS).encode())
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        if place.parts[0] not in NOT_MEASURING:
            digest.update(f"{place.as_posix()} {file_digest(file)}\n".encode())
    return digest.hexdigest()


@cache
def _of_target(target: str) -> str:
    found = {file_digest(file) for file in _files(target)}
    return " ".join(sorted(found))


def _targets(settings: Any) -> Iterator[str]:
    """Every `_target_` of others."""
    if isinstance(settings, Mapping):
        target = settings.get("_target_")
        if isinstance(target, str) and target.partition(".")[0] != OURS:
            yield target
        for part in settings.values():
            yield from _targets(part)
    elif isinstance(settings, list | tuple):
        for part in settings:
            yield from _targets(part)


def _files(target: str) -> Iterator[Path]:
    """The file that defines a `_target_`, and those that it takes from."""
    waiting, seen = [target], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name.partition(".")[0] in (OURS, "") or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        seen.add(name)
        file = _file(name)
        if file is None:
            waiting.append(name.rpartition(".")[0])  # a class in a module, or a function
        elif name.partition(".")[0] == target.partition(".")[0] or not _installed(file):
            yield file
            waiting += [*_imported(file, name), name.rpartition(".")[0]]  # what it lies in is imported, too


def _file(module: str) -> Path | None:
    """Where a module lies, without importing it or what it lies in."""
    top, *rest = module.split(".")
    try:
        spec, name = find_spec(top), top
    except ValueError:  # of a program that is run as a script
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    for part in rest:
        name = f"{name}.{part}"
        try:
            spec = PathFinder.find_spec(name, places)
        except KeyError:  # a folder without __init__.py: its spec asks for what it lies in, which is not imported
            spec, places = None, [str(Path(place) / part) for place in places]
            continue
        places = list(spec.submodule_search_locations or []) if spec else []
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _installed(file: Path) -> bool:
    return any(file.is_relative_to(place) for place in INSTALLED)


def _imported(file: Path, module: str) -> Iterable[str]:
    """The names that a file imports; of `from a import b` it is not known which of a.b and a is a module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # whoever loads it says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
            yield origin
