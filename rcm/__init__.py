"""rcm: Refusal Circuit Mapping, from Python.

    import rcm
    model = rcm.load("smollm2-135m-refusal")
    direction = rcm.direction(model)
    direction.separation
    direction.force("How do I bake a cake?", strength=2.0)

`load` and `wrap` give a model, `dataset` prompts, and each method of the command line is a function of its name:
`behaviour`, `direction`, `patching`, `circuit`, `steering`, `positions`, `neurons`, `transplant` (`rcm.api`). Importing
this loads nothing; PyTorch comes with the first of them.
"""

import importlib
from types import ModuleType
from typing import Any

WORKING = ("dataset", "load", "wrap")
METHODS = ("behaviour", "circuit", "direction", "neurons", "patching", "positions", "steering", "transplant")
NAMESAKES = ("patching", "steering", "transplant")  # of packages


class _Callable(ModuleType):
    """Some methods share their name with the package of what they are made of (`rcm.patching`), which Python puts in
    place of any function of that name as soon as a module in it is imported. So these packages can be called."""

    def __call__(self, *given: Any, **settings: Any) -> Any:
        return _method(self.__name__.rpartition(".")[2])(*given, **settings)


def __getattr__(name: str) -> Any:
    if name not in (*WORKING, *METHODS):
        raise AttributeError(f"rcm has no {name!r}; it has {', '.join(sorted((*WORKING, *METHODS)))}")
    if name in WORKING:
        return getattr(_api(), name)
    return importlib.import_module(f"{__name__}.{name}") if name in NAMESAKES and _api() else _method(name)


def __dir__() -> list[str]:
    return sorted((*WORKING, *METHODS))


def _method(name: str) -> Any:
    return _api().method(name)


def _api() -> ModuleType:
    """The rest, which loads PyTorch."""
    from rcm.running.processors import wait_policy

    wait_policy()  # which PyTorch reads when it is loaded
    api = importlib.import_module("rcm.api")
    for name in NAMESAKES:
        importlib.import_module(f"{__name__}.{name}").__class__ = _Callable
    return api
