"""Linear layers on the CPU, by whichever of PyTorch's two libraries is faster there.

PyTorch multiplies float32 matrices by MKL, which on processors that Intel did not make takes AVX2 where they have
AVX-512, too; oneDNN, which PyTorch brings along and takes for bfloat16, then does twice as much. Which of them is
faster is measured once in a process, and whether both agree on a layer of each shape of the model; where oneDNN is not
clearly faster, or differs by more than rounding, everything stays with MKL. The weights stay as they are; oneDNN keeps
plans for each number of rows, and takes some hundred megabytes more where batches have many lengths.

Of the last tokens transformers hands the unembedding a slice. In bfloat16 PyTorch 2.13 multiplies a slice on the CPU a
hundred times as slowly as the same numbers side by side (0.34 s and 3 ms of 8 tokens of SmolLM2-135M, 28 s and 0.07 s
of a 7B model), so they are laid side by side first.
"""

import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad
from transformers import PreTrainedModel

log = logging.getLogger(__name__)

CLEARLY = 1.3  # times as fast
PROBE = (256, 576, 1536)  # rows, inputs, outputs: half a billion operations, about that of a small model's layer
REPEATS = 7
TOLERANCE = 1e-5  # of the largest output
EVEN, LARGE = 4, 2**22  # rows that divide well; outputs from which on a copy of what goes in costs nothing beside them


def use_contiguous(hf: PreTrainedModel) -> None:
    """Let the model's unembedding lay side by side what it gets."""
    head = hf.get_output_embeddings()
    if type(head) is nn.Linear and "forward" not in head.__dict__:
        head.__class__ = ContiguousLinear


def use_faster(hf: nn.Module) -> None:
    # One whose forward was replaced (accelerate does so, to fetch weights) is left alone.
    layers = [
        layer
        for layer in hf.modules()
        if type(layer) is nn.Linear and _is_eligible(layer.weight) and "forward" not in layer.__dict__
    ]
    if not layers or not onednn_speed() > CLEARLY:
        return
    one_of_each = {(layer.weight.shape, layer.bias is None): layer for layer in layers}
    errors = [_error(layer) for layer in one_of_each.values()]
    if not all(error <= TOLERANCE for error in errors):  # nor if one is NaN
        log.warning("Matrix products stay with MKL: oneDNN's differ by %.1g of the largest.", np.max(errors))
        return
    for layer in layers:
        layer.__class__ = OneDnnLinear
    log.info("Matrix products by oneDNN, here %.1f times as fast as MKL", onednn_speed())


def library_of(hf: nn.Module) -> str:
    """Which library multiplies, for people."""
    return "oneDNN" if any(isinstance(layer, OneDnnLinear) for layer in hf.modules()) else "PyTorch's own choice"


@cache
def onednn_speed() -> float:
    """How many times as fast as MKL; 0 where this PyTorch has no oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return 0.0
    rows, inputs, outputs = PROBE
    x, weight = torch.ones(rows, inputs), torch.ones(outputs, inputs)
    with torch.inference_mode():
        seconds = [(_seconds(linear, x, weight), _seconds(by_onednn, x, weight)) for _ in range(REPEATS)]
    mkl, onednn = (min(some) for some in zip(*seconds[1:], strict=True))  # the least: others may be at work here, too
    return mkl / onednn


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, without a gradient.

    oneDNN cuts the rows into equal blocks: 722, which is 2 x 19 x 19, take a third longer than 724. So where there are
    many outputs, rows that do not divide well are filled up.
    """
    rows = x.numel() // x.shape[-1]
    if rows % EVEN == 0 or rows * len(weight) < LARGE or x.shape[-1] > len(weight):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result
    filled = pad(x.reshape(rows, -1), (0, 0, 0, -rows % EVEN))
    return by_onednn(filled, weight, bias)[:rows].view(*x.shape[:-1], -1)


class _Frozen(torch.autograd.Function):
    """With a gradient for what goes in, none for the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return by_onednn(gradient, weight.t()), None, None


class OneDnnLinear(nn.Linear):
    """What a linear layer becomes; where its weights are trained, or have moved on, it does what any does."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        eligible = input.numel() and _is_eligible(input) and _is_eligible(weight)
        if not eligible or (trained and torch.is_grad_enabled()):
            return linear(input, weight, bias)
        if input.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, _Frozen.apply(input, weight, bias))
        return by_onednn(input, weight, bias)


class ContiguousLinear(nn.Linear):
    """What the unembedding becomes."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input.contiguous(), self.weight, self.bias)


def _is_eligible(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


@torch.inference_mode()
def _error(layer: nn.Linear) -> float:
    """Largest difference of an output, as a share of the largest one; NaN where an output is."""
    x = torch.linspace(-1, 1, 2 * layer.in_features).view(2, -1)
    exact = linear(x, layer.weight, layer.bias)
    return ((by_onednn(x, layer.weight, layer.bias) - exact).abs().max() / exact.abs().max().clamp(min=1e-30)).item()


def _seconds(by: Callable[..., Any], *given: Tensor) -> float:
    started = time.perf_counter()
    by(*given)
    return time.perf_counter() - started
