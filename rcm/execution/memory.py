"""How much memory a pass takes beside the weights, and how much there is.

Counted, not calculated: every tensor that a pass makes is noted when it is made and when it is gone, in a model of any
architecture. On a skeleton (`rcm.models.checkpoint.skeleton`), whose tensors have shapes and no values, nothing is
computed, so the memory that a model of 70 billion parameters would take is known in a second.

What is not seen: what a kernel takes for itself while it works (fused attention keeps no scores), and what an allocator
holds back between tensors.
"""

import logging
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, PreTrainedModel

from rcm.control_groups import groups, text_of

ROOT = Path("/")


def peak_bytes(hf: PreTrainedModel, rows: int, tokens: int, keep: int = 1, cache: bool = True) -> int:
    """The most bytes that are alive at once, beside the weights, while so many rows of so many tokens are read.

    `keep`: at how many tokens of each there are logits; `cache`: whether keys and values are kept. A model that has its
    weights is run; of a skeleton the tensors are those that it would have on one device.
    """
    if not any(tensor.is_meta for tensor in _own(hf).values()):
        return max(peaks(hf, rows, tokens, keep, cache).values())
    try:
        with _quiet():
            return _of_skeleton(hf, rows, tokens, keep, cache, hf.dtype)
    except RuntimeError:
        if hf.dtype == torch.bfloat16:
            raise
        # PyTorch knows the shapes of a product of many experts in bfloat16 alone.
        halves = _of_skeleton(hf, rows, tokens, keep, cache, torch.bfloat16)
        return halves * hf.dtype.itemsize // torch.bfloat16.itemsize


def _of_skeleton(hf: PreTrainedModel, rows: int, tokens: int, keep: int, cache: bool, dtype: torch.dtype) -> int:
    mode, device = FakeTensorMode(), torch.device("cpu")  # not meta, where attention would not be the fused one
    held: dict[str, Tensor] = {
        name: FakeTensor(mode, one.detach().to(dtype if one.dtype == hf.dtype else one.dtype), device)
        for name, one in _own(hf).items()
    }
    with mode, torch.no_grad(), _Alive(held.values()) as alive:
        torch.func.functional_call(hf.eval(), held, (), _asked(hf, rows, tokens, keep, cache, device))
    return max(alive.peak.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a page of PyTorch's own about what is raised anyway."""
    log = logging.getLogger(FakeTensorMode.__module__)
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def peaks(hf: PreTrainedModel, rows: int, tokens: int, keep: int = 1, cache: bool = True) -> dict[torch.device, int]:
    """The same for each device that a model with weights lies on."""
    with _Alive(_own(hf).values()) as alive, torch.no_grad():
        hf(**_asked(hf, rows, tokens, keep, cache, hf.device))
    return dict(alive.peak)


def weight_bytes(hf: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Of the parameters and buffers, each tensor once, also where two modules share it. In `dtype` where one is named
    (of what holds floating-point numbers), else in their own."""
    return sum(
        one.numel() * (dtype if dtype is not None and one.is_floating_point() else one.dtype).itemsize
        for one in {id(one): one for one in (*hf.parameters(), *hf.buffers())}.values()
    )


def free_bytes(device: torch.device) -> int:
    """How much more this process can take on a device.

    On the CPU, what the system can give without swapping, and no more than its control groups leave. On CUDA also what
    PyTorch holds and has no tensor in.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, min([psutil.virtual_memory().available, *_left()]))


def _left() -> Iterator[int]:
    """What each control group leaves that this process is in; where one limits memory."""
    for folder in groups(ROOT, "memory"):
        limit = text_of(folder / "memory.max") or text_of(folder / "memory.limit_in_bytes")
        used = text_of(folder / "memory.current") or text_of(folder / "memory.usage_in_bytes")
        if limit.isdecimal() and used.isdecimal():
            # Files that were read lie in memory as long as nobody needs it, and count as used.
            stat = dict(line.split() for line in text_of(folder / "memory.stat").splitlines())
            yield int(limit) - int(used) + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _own(hf: PreTrainedModel) -> dict[str, Tensor]:
    return {**dict(hf.named_parameters()), **dict(hf.named_buffers())}


def _asked(hf: PreTrainedModel, rows: int, tokens: int, keep: int, cache: bool, device: torch.device) -> dict[str, Any]:
    """What a batch is asked with; the first row is one token shorter, so that none does without a mask."""
    mask = torch.ones(rows, tokens, dtype=torch.long, device=device)
    mask[0, : min(1, tokens - 1)] = 0
    return {
        "input_ids": torch.zeros(rows, tokens, dtype=torch.long, device=device),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "use_cache": cache,
        "past_key_values": DynamicCache(config=hf.config) if cache else None,
        "logits_to_keep": keep,
    }


class _Alive(TorchDispatchMode):
    """While it is at work, counts the bytes of all storages that operations make, by device."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak: Counter[torch.device] = Counter()
        self._now: Counter[torch.device] = Counter()
        self._held = [one.untyped_storage() for one in held]  # kept, since a number may be given anew to another
        self._known = set(map(id, self._held))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._note(result)
        return results

    def _note(self, made: Tensor) -> None:
        storage, device = made.untyped_storage(), made.device
        if id(storage) not in self._known:
            self._known.add(id(storage))
            self._now[device] += storage.nbytes()
            self.peak[device] = max(self.peak[device], self._now[device])
            weakref.finalize(storage, self._gone, id(storage), device, storage.nbytes())

    def _gone(self, number: int, device: torch.device, size: int) -> None:
        self._known.discard(number)
        self._now[device] -= size
