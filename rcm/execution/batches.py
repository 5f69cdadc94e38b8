"""Batches that fit into memory, and that get smaller where one does not.

How many rows go through the model at once is a matter of speed, as long as there is room for them. Room is half of what
is free once the weights are there; a row takes what a pass over the longest prompt with its reply takes
(`rcm.execution.memory`). Where memory runs out all the same, the batch is halved and done again, and later ones of the
same kind are no larger. No figure depends on it but by rounding.
"""

import copy
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from rcm.errors import InputError, first_sentence
from rcm.execution.memory import free_bytes, peak_bytes
from rcm.execution.progress import progress
from rcm.models import LoadedModel
from rcm.models.checkpoint import UNREADABLE, skeleton

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

# Rows of some dozen tokens, beyond which a device gains little: a CPU is busy with 32 of them; for CUDA a guess that no
# GPU has confirmed.
USEFUL = {"cpu": 32, "cuda": 128}
LONGER = 8  # times as many rows of one token each on a CPU, which multiplies 256 rows 1.6 times as fast as 32
# Of the free bytes. The rest is for what is not counted: what an allocator cannot use between tensors (on the CPU a
# pass of SmolLM2-135M took 1.8 times what its tensors do), copies that interventions make, logits in float32; and on
# the CPU for others, who take memory unasked: there, Linux ends a process that has taken too much without a word.
SHARE = 0.5

# Of CUDA itself and of its libraries, which PyTorch's allocator knows nothing of; accelerate does not look for these.
OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass
class _Room:
    """Of a model. `free`: bytes, and `row`: those that one takes; None where nobody has asked. `cut`: by what kind of
    batch, into how many parts each is divided since memory ran out. `within`: how many batches are under way, each a
    part of the one before."""

    free: int | None = None
    row: int | None = None
    cut: dict[str, Fraction] = field(default_factory=dict)
    within: int = 0

    def for_items(self, size: int) -> float:
        """How many things of so many bytes there is room for."""
        return math.inf if self.free is None else float(max(1, int(SHARE * self.free) // max(size, 1)))


_ROOMS: WeakKeyDictionary[LoadedModel, _Room] = WeakKeyDictionary()


def _room(model: LoadedModel) -> _Room:
    return _ROOMS.setdefault(model, _Room())


def find_batch_size(model: LoadedModel, tokens: int) -> None:
    """From what is free now and what a row of so many tokens takes, find how many rows go through the model at once,
    and say so. Nothing is looked for where `device.batch_size` was set."""
    if model.batch_size is not None:
        return
    room = _room(model)
    devices = {one.device for one in model.hf.parameters() if not one.is_meta}
    room.free = min(map(free_bytes, devices))
    room.row = _row_bytes(model, tokens)
    log.info(
        "Batches of %d prompts: a row of %d tokens takes %.3g MB, %.3g GB are free",
        *(rows_at_once(model), tokens, room.row / 1e6, room.free / 1e9),
    )


def _row_bytes(model: LoadedModel, tokens: int) -> int:
    config = copy.deepcopy(model.hf.config)
    if config._attn_implementation != "eager":  # what else there is keeps no scores, as PyTorch's own does not
        config._attn_implementation = "sdpa"
    try:
        return peak_bytes(cast(Any, skeleton(config)).to(model.hf.dtype), 1, tokens)
    except UNREADABLE as error:
        # What depends on values, as the choice of experts may, cannot go through a skeleton.
        log.debug("Counted on the weights, as the skeleton is not run: %s", error)
        return peak_bytes(model.hf, 1, tokens)


def rows_at_once(model: LoadedModel, longer: int = 1) -> int:
    """How many rows go through the model together: as many as are useful, or were set, and there is room for. `longer`:
    times as many are useful on a CPU."""
    device = model.device.type
    most = model.batch_size or USEFUL.get(device, USEFUL["cpu"])
    room = _room(model)
    return int(min(most * (longer if device == "cpu" else 1), room.for_items(room.row or 0)))


def at_most(model: LoadedModel, size: int) -> float:
    """For how many things of so many bytes there is room; infinite where `device.batch_size` was set."""
    return _room(model).for_items(size)


def in_batches(
    model: LoadedModel,
    items: Sequence[Item],
    at_once: int,
    work: Callable[[list[Item]], Result],
    kind: str,
    label: str | None = None,
    alike: Callable[[Item], Hashable] | None = None,
) -> Iterator[tuple[list[Item], Result]]:
    """`at_once` of the items after the other and what `work` makes of them, with progress under the `label`.

    Where memory runs out in `work`, half of them are given to it anew: so it must leave nothing behind but what it
    returns. `kind`: of items, in the plural, for the log; those of one kind keep to the smaller size. Raises InputError
    where there is no room for one alone, unless this itself is part of the `work` on several others: of them fewer are
    tried then. `alike`: only neighbours for which it gives the same go together.
    """
    room, start, failed = _room(model), 0, 0
    with progress(len(items), label) as done:
        while start < len(items):
            part = list(items[start : start + max(1, int(at_once // room.cut.get(kind, 1)))])
            if alike is not None:
                part = list(next(groupby(part, alike))[1])
            tried = _tried(room, work, part, kind)
            if not tried:
                failed = failed or len(part)
                room.cut[kind] = Fraction(at_once, len(part) // 2)
                clear_device_cache(garbage_collection=True)
                continue
            if failed:
                log.warning("Out of memory with %d %s at once: from now on %d.", failed, kind, len(part))
                failed = 0
            yield part, tried.pop()
            start += len(part)
            done(len(part))


def _tried(room: _Room, work: Callable[[list[Item]], Result], part: list[Item], kind: str) -> list[Result]:
    """What it makes of them; nothing where memory ran out, so that what the error holds is let go with this frame."""
    room.within += 1
    try:
        return [work(part)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or (len(part) == 1 and room.within > 1):
            raise
        if len(part) == 1:
            raise no_room(f"one of the {kind} alone", error) from error
        return []
    finally:
        room.within -= 1


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """For what is not divided: raise one InputError where memory runs out in it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise no_room(what, error) from error


def no_room(what: str, error: Exception) -> InputError:
    return InputError(
        f"Out of memory with {what} ({first_sentence(error)}); take a device with more, spread the model over several "
        "with device.map=auto, halve it with model.dtype=bfloat16, or ask for fewer tokens and positions."
    )


def is_out_of_memory(error: Exception) -> bool:
    """Of CUDA, of the CPU's allocator or of the system, and not some other failure of a pass."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return True
    return any(words in str(error) for words in OUT_OF_MEMORY)
