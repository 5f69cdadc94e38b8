"""What a run will take, said before its weights load: rows, gigabytes, minutes, and whether that fits.

Methods count their work (`rcm.methods.Method.work`), the device is measured for a moment (`rcm.execution.speed`), and

    seconds = multiplications of the blocks x (tokens + generated + BACK x gradients) / rate
            + multiplications of the unembedding x logits / rate
            + passes x (OVERHEAD x layers + bytes of the weights / bytes a second)
            + COPIED x bytes of keys and values x context / bytes a second
            + numbers that probes are fitted to / FITTED

with the rate a share of what large matrices reach, between the two of `REACHED`: as measured on whole runs
(`benchmarks/cost.py`, docs/scale.md). The least work over the higher rate is the lower end of what is said, the most
over the lower one the upper end. Judging replies, drawing and writing are in none of it.

Memory is that of the weights, once each, of what methods hold, and of the largest pass, counted on a skeleton
(`rcm.execution.memory`).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.memory import free_bytes, peak_bytes, weight_bytes
from rcm.execution.speed import Speed, speed
from rcm.execution.work import Pass, Scope, Work, together
from rcm.methods import Method
from rcm.models import Model
from rcm.models.checkpoint import skeleton
from rcm.models.points import points_of
from rcm.models.template import Kind, Lent, Template
from rcm.prompts import Split
from rcm.running.chosen import Chosen

log = logging.getLogger(__name__)

REACHED = (0.35, 0.75)  # of the rate of large matrices, in passes
BACK = 3  # forward passes that one with its backward takes as long as
OVERHEAD = 2e-4  # seconds of a pass and layer that no product takes: Python, hooks, norms
COPIED = 4  # times that keys and values are read or written at each token of a reply
FITTED = 4e6  # numbers that a logistic probe is fitted to in a second, with the other fits at its place
COUNTED = 4  # rows of the pass that is counted
FLOAT32 = 4
GIB = 2**30
SMALLER = {"int8": 4, "nf4": 8}  # times smaller than float32 are the linear layers of blocks


@dataclass(frozen=True)
class Estimate:
    """`work`: of each method by name; `unknown`: methods that do not say. Bytes: of the weights, of the largest pass
    and what lies beside it, and what is free on the device. `seconds`: at the least and at the most."""

    model: str
    device: str
    work: Mapping[str, Sequence[Work]]
    unknown: Sequence[str]
    weights: int
    beside: int
    free: int
    seconds: tuple[float, float]
    mapped: bool

    @property
    def rows(self) -> int:
        return self._all.rows

    @property
    def tokens(self) -> float:
        """Of all rows, in passes through the whole model."""
        return self._all.tokens + self._all.generated + self._all.gradients

    @property
    def _all(self) -> Work:
        return together("", (part for parts in self.work.values() for part in parts))

    @property
    def impossible(self) -> bool:
        """Whether not even the weights fit, wherever they might lie."""
        return self.weights > self.free and not self.mapped

    @property
    def fits(self) -> bool:
        return self.weights + self.beside <= self.free or self.mapped

    @property
    def sentence(self) -> str:
        """One line for the log."""
        each = f" of {self.tokens / self.rows:.0f} tokens" if self.rows else ""
        memory = f"{(self.weights + self.beside) / GIB:.1f} of {self.free / GIB:.1f} GiB free"
        missing = f"; not known: {', '.join(self.unknown)}" if self.unknown else ""
        return f"About {rounded(self.rows)} rows{each}, {memory}, {span(*self.seconds)} on {self.device}{missing}"

    @property
    def cure(self) -> str:
        """What to change where it does not fit."""
        return (
            f"{self.model} takes {self.weights / GIB:.1f} GiB for its weights and up to {self.beside / GIB:.1f} beside "
            f"them, and {self.free / GIB:.1f} are free on {self.device}; spread it with device.map=auto, load it in "
            "half of the bytes with model.dtype=bfloat16, or ask for less at once with device.batch_size=8."
        )


def rounded(count: float) -> str:
    """To two digits, for people."""
    if count < 100:
        return f"{count:.0f}"
    digits = len(f"{count:.0f}") - 2
    return f"{round(count / 10**digits) * 10**digits:,}"


def span(least: float, most: float) -> str:
    """From so many seconds to so many, as exactly as anybody can know."""
    if most < 90:
        low, high, unit = least, most, "seconds"
    elif most < 90 * 60:
        low, high, unit = least / 60, most / 60, "minutes"
    else:
        low, high, unit = least / 3600, most / 3600, "hours"
    first, last = (
        f"{rounded(max(1, part))}" if part >= 10 or unit == "seconds" else f"{max(part, 0.1):.2g}"
        for part in (low, high)
    )
    return f"{first} {unit}" if first == last else f"{first} to {last} {unit}"


def estimated(chosen: Chosen, prompts: Split, template: Kind | Lent, methods: Mapping[str, Method]) -> Estimate | None:
    """Of those of the methods that are still to run; None where the model is no checkpoint of ours, whose shape nobody
    here knows."""
    if not isinstance(chosen.model, Model):
        return None
    device, dtype = chosen.device.resolve().device, getattr(torch, chosen.model.dtype)
    hf = skeleton(chosen.model.config()).to(dtype)
    direction = next((one for one in methods.values() if one.gives is RefusalDirection), None)
    places = getattr(direction, "positions", None)
    scope = Scope.of(
        hf,
        prompts,
        Template.of(chosen.model.tokenizer(), template),
        batch_size=chosen.device.batch_size,
        on_cpu=device.type == "cpu",
        positions=None if places is None else len(places),
        controls=getattr(direction, "null_directions", 0),
    )
    counted = {name: method.work(scope) for name, method in methods.items()}
    work = {name: parts for name, parts in counted.items() if parts is not None}
    parts = [part for of in work.values() for part in of]
    peak = largest_pass(hf, (one for part in parts for one in part.largest), scope.vocabulary)
    weights = stored(hf, getattr(chosen.model, "quantization", None))
    rate = speed(device, dtype, scope.d_model, scope.neurons)
    return Estimate(
        model=chosen.model.label,
        device=device.type,
        work=work,
        unknown=[name for name, of in counted.items() if of is None],
        weights=weights,
        beside=peak + max((part.held for part in parts), default=0),
        free=free_bytes(device),
        seconds=seconds(parts, hf, scope, weights, rate),
        mapped=getattr(chosen.device, "map", None) is not None,
    )


def stored(hf: PreTrainedModel, quantization: str | None) -> int:
    """Bytes of the weights, each once; quantised are the linear layers of the blocks."""
    whole = weight_bytes(hf)
    if quantization is None:
        return whole
    linear = sum(
        one.weight.numel() for layer in points_of(hf).layers for one in layer.modules() if isinstance(one, nn.Linear)
    )
    return whole - linear * hf.dtype.itemsize + 4 * linear // SMALLER[quantization]


def seconds(parts: Iterable[Work], hf: PreTrainedModel, scope: Scope, weights: int, rate: Speed) -> tuple[float, float]:
    """At the least and at the most."""
    of_blocks = sum(one.numel() for layer in points_of(hf).layers for one in layer.parameters())
    least, most = 0.0, 0.0
    for part in parts:
        through = part.tokens + part.generated + BACK * part.gradients
        products = (of_blocks * through + scope.d_model * scope.vocabulary * part.logits) / rate.multiplications
        rest = part.passes * (OVERHEAD * scope.layers + weights / rate.bytes)
        rest += COPIED * scope.kv_bytes * part.context / rate.bytes + part.fitted / FITTED
        slow, fast = REACHED
        least += part.least * (products / fast + rest)
        most += products / slow + rest
    return least, most


def largest_pass(hf: PreTrainedModel, passes: Iterable[Pass], vocabulary: int) -> int:
    """Bytes of the largest, from one that is counted on the skeleton: what a token takes is the same in all."""
    some = list(passes)
    if not some:
        return 0
    longest = max(one.tokens for one in some)
    of_row = peak_bytes(hf, COUNTED, longest) / COUNTED
    logits = vocabulary * (hf.dtype.itemsize + FLOAT32)  # as they come, and as they are counted with
    return max(round(one.rows * (of_row * one.tokens / longest + logits * one.keep)) for one in some)
