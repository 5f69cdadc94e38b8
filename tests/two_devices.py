"""Two devices for a machine that has none: tensors that compute on the CPU, and say that they lie elsewhere.

An operation between tensors of different devices fails, as it would between two GPUs; moving one is what it is there.
So a model whose layers lie on `rcmtest:0` and `rcmtest:1` gives real numbers, and finds whatever rcm leaves on the
wrong device. What no GPU does either is not imitated: memory, streams, kernels.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import accelerate.hooks
import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

NAME = "rcmtest"
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index")  # by indices on the CPU, too
TOGETHER = ("stack", "gather", "index_select", "embedding")  # by kernels that take no number of the CPU either
ACROSS = ("copy_", "_local_scalar_dense")  # what moves values


class Elsewhere(torch.Tensor):
    """A tensor with its values in `inner`, on the CPU, that says it lies on `device`."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> "Elsewhere":
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        made.inner = inner
        return made

    def __init__(self, inner: torch.Tensor, device: torch.device) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives, on the device where it happens."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    elsewhere = [one for one in given if isinstance(one, Elsewhere)]
    goal = next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)), None)
    if not elsewhere and (goal is None or goal.type != NAME):
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    if goal is None and name not in ACROSS:
        own = elsewhere[0].device
        there = [one.device for one in given if one.ndim or name in TOGETHER or isinstance(one, Elsewhere)]
        if name in INDEXED:
            own, there = args[0].device, [device for device in there if device.type != "cpu"]
        if any(device != own for device in there):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {set(map(str, there))}")
    found = func(*tree_map(values, args), **tree_map(values, kwargs))
    if name == "copy_":
        return args[0]
    if goal is not None and goal.type != NAME:
        return found
    place = goal or elsewhere[0].device
    known = {id(one.inner): one for one in elsewhere}

    def placed(result: Any) -> Any:
        if not isinstance(result, torch.Tensor):
            return result
        same = known.get(id(result))
        return same if same is not None and same.device == place else Elsewhere(result, place)

    return tree_map(placed, found)


def values(leaf: Any) -> Any:
    """What computes in place of an argument."""
    if isinstance(leaf, torch.device) and leaf.type == NAME:
        return torch.device("cpu")
    return leaf.inner if isinstance(leaf, Elsewhere) else leaf


class _Factories(TorchDispatchMode):
    """Tensors that are made on these devices from nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _PastDispatch(TorchFunctionMode):
    """What PyTorch does without asking any dispatch mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == NAME:
            return func(*args, **{key: value for key, value in kwargs.items() if key != "device"}).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].inner.tolist()
        taken_apart = func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
        if taken_apart and not any(isinstance(one, torch.Tensor) and one.requires_grad for one in args):
            return _indexed(func, *args)
        if taken_apart:  # with a gradient, which is PyTorch's to follow: only what it would make on the device is made
            return func(args[0], _with_tensors(args[1]), *args[2:])
        return func(*args, **kwargs)


def _with_tensors(index: Any) -> Any:
    """An index with tensors on the CPU in place of lists."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(torch.tensor(part) if isinstance(part, list | range) else part for part in parts)
    return made if isinstance(index, tuple) else made[0]


def _indexed(func: Any, tensor: torch.Tensor, index: Any, *new: Any) -> Any:
    """Indexing, which PyTorch takes apart before anybody is asked. Indices may lie on the CPU, and a new value may be
    a number from there."""
    others = [leaf for leaf in tree_leaves((index, new)) if isinstance(leaf, torch.Tensor)]
    for other in others:
        free = other.device.type == "cpu" and (other is not (new or (None,))[0] or not other.ndim)
        if other.device != tensor.device and not free:
            raise RuntimeError(f"Expected all tensors to be on {tensor.device}, but indexing got {other.device}")
    found = func(values(tensor), tree_map(values, index), *map(values, new))
    elsewhere = isinstance(tensor, Elsewhere) and isinstance(found, torch.Tensor)
    return Elsewhere(found, tensor.device) if elsewhere else found


@cache
def devices() -> tuple[torch.device, torch.device]:
    """Both. PyTorch knows the name from now on in this process, and finds none of them by itself."""

    class Hook(backend_registration._DummyPrivateUse1Hook):
        def is_available(self) -> bool:
            return False

    class Backend(backend_registration._DummyBackendModule):
        def is_available(self) -> bool:
            return False

        def device_count(self) -> int:
            return 0

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend(), hook=Hook())
    return torch.device(NAME, 0), torch.device(NAME, 1)


@contextmanager
def spread(hf: PreTrainedModel, places: Mapping[str, int]) -> Iterator[PreTrainedModel]:
    """The model with its parts on the two devices, with accelerate's hooks, as `dispatch_model` leaves it on two GPUs;
    the same object, which stays there."""
    both = devices()
    for name, place in places.items():
        _move(hf.get_submodule(name), both[place])
    put, accelerate.hooks.set_module_tensor_to_device = accelerate.hooks.set_module_tensor_to_device, _stays
    try:
        attach_align_device_hook_on_blocks(
            hf,
            execution_device={"": both[0], **{name: both[place] for name, place in places.items()}},
            offload=dict.fromkeys(places, False),
        )
    finally:
        accelerate.hooks.set_module_tensor_to_device = put
    with _Factories(), _PastDispatch():
        yield hf


def _stays(*_: Any, **__: Any) -> None:
    """In place of accelerate's moving of weights, which makes parameters anew: they lie there already."""


def _move(part: nn.Module, device: torch.device) -> None:
    for module in part.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and not isinstance(parameter.data, Elsewhere):
                module._parameters[name] = nn.Parameter(Elsewhere(parameter.data, device), requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and not isinstance(buffer, Elsewhere):
                module._buffers[name] = Elsewhere(buffer, device)
