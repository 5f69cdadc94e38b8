"""How fast a device multiplies and reads, measured in less than a second.

Prompts are read as fast as large matrices are multiplied; a reply goes on as fast as all weights are read. Both are
measured on matrices of the model's own widths and in its dtype, by the library that its layers will go by
(`rcm.models.matrix_products`). The least of several times counts: others may be at work here, too.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from rcm.models.matrix_products import CLEARLY, by_onednn, onednn_speed

ROWS = 256  # of a pass, about as many tokens as a CPU multiplies well
LARGE = 64 * 2**20  # bytes, which no cache of a CPU core holds
PATIENCE = 0.1  # seconds for each of the two
FEWEST = 2  # times


class Speed(NamedTuple):
    """`multiplications` of two numbers, each with its addition, and `bytes` read, in a second."""

    multiplications: float
    bytes: float


@cache
@torch.inference_mode()
def speed(device: torch.device, dtype: torch.dtype, width: int, inner: int) -> Speed:
    """`width`: of the stream; `inner`: of the MLPs."""
    onednn = device.type == "cpu" and dtype == torch.float32 and onednn_speed() > CLEARLY
    product = by_onednn if onednn else linear
    tall = max(inner, LARGE // (width * dtype.itemsize))
    up, x = torch.ones(inner, width, device=device, dtype=dtype), torch.ones(ROWS, width, device=device, dtype=dtype)
    of_pass = _least(lambda: product(x, up), device)
    wide = torch.ones(tall, width, device=device, dtype=dtype)
    of_token = _least(lambda: product(x[:1], wide), device)
    return Speed(ROWS * inner * width / of_pass, tall * width * dtype.itemsize / of_token)


def _least(work: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of one time; the first, which makes plans, does not count."""
    work()
    times, began = list[float](), time.perf_counter()
    while len(times) < FEWEST or time.perf_counter() - began < PATIENCE:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
