"""beartype, which writes the check of a function once for each definition, not for each function that it makes.

Of every function, jaxtyping hands over an empty one with its signature. A hook is defined anew in every forward pass,
with the annotations of the time before; to write its check again takes longer than the pass of a tiny model.
"""

from collections.abc import Callable
from typing import Any

import beartype
from jaxtyping import AbstractArray

WRITTEN: dict[Any, Callable[..., Any]] = {}


def beartype_once(empty: Callable[..., Any]) -> Callable[..., Any]:
    """What `beartype.beartype` makes of this function without a body, or has made of its equal."""
    annotations = [(name, _meaning(annotation)) for name, annotation in empty.__annotations__.items()]
    defaults = (empty.__defaults__, *(empty.__kwdefaults__ or {}).items())
    definition = (empty.__module__, empty.__qualname__, empty.__code__, *annotations, *defaults)
    try:
        written = WRITTEN.get(definition)
    except TypeError:  # a default that cannot be hashed
        return beartype.beartype(empty)
    if written is None:
        written = WRITTEN[definition] = beartype.beartype(empty)
    return written


def _meaning(annotation: Any) -> Any:
    """`Float[Tensor, "row"]` is another class each time that it is written."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return annotation.array_type, annotation.dtypes, annotation.dim_str
    return annotation
