"""Prompts: an option of `conf/dataset`, or lists."""

import inspect
from collections.abc import Sequence
from typing import Any

from rcm.errors import InputError
from rcm.prompts import Split
from rcm.prompts.lists import divided
from rcm.running.composed import composed


def dataset(
    name: str | None = None,
    /,
    *,
    harmful: Sequence[Any] | None = None,
    harmless: Sequence[Any] | None = None,
    **settings: Any,
) -> Split:
    """The prompts of an option of `conf/dataset` (`pairs` if none is named) with its settings, such as the sizes
    `train`, `validation` and `test`; or lists of your own, `harmful` and `harmless`, of texts or (text, category),
    divided 3 : 1 : 1 (`rcm.prompts.lists`: `paired`, `seed`, and the sizes). Raises InputError for what is none."""
    if "template" in settings:
        raise InputError("A template belongs to the model: rcm.load(..., template=...) or rcm.wrap(..., template=...).")
    lists = {"harmful": harmful, "harmless": harmless}
    if all(one is None for one in lists.values()) or (name is not None and harmful is None):
        settings |= {key: one for key, one in lists.items() if one is not None}  # Benchmark has a setting `harmless`
        return composed({"dataset": name or "pairs", "method": ["direction"]}, {"dataset": settings}).dataset.load()
    if name is not None:
        raise InputError(f"dataset={name!r} has prompts of its own; leave it away, or leave away harmful=.")
    if missing := [kind for kind, one in lists.items() if one is None]:
        raise InputError(f"{missing[0]} is missing; give lists of both classes: harmful=[...], harmless=[...].")
    known = [one for one in inspect.signature(divided).parameters if one not in (*lists, "template")]
    if unknown := [key for key in settings if key not in known]:
        raise InputError(f"Prompts in lists have no setting {unknown[0]!r}: they have {', '.join(known)}.")
    return divided(harmful, harmless, **settings)  # type: ignore[arg-type]  # neither is None by now
