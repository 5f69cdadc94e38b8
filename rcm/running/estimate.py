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

from rcm.circuits.attribution import WIDTHS
from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.batches import SHARE, USEFUL
from rcm.execution.memory import free_bytes, peak_bytes, weight_bytes
from rcm.execution.speed import Speed, speed
from rcm.execution.work import Scope, Work, together
from rcm.methods import Method
from rcm.models import Model
from rcm.models.checkpoint import UNREADABLE, skeleton
from rcm.models.points import points_of
from rcm.models.template import Kind, Lent, Template
from rcm.prompts import Split
from rcm.running.chosen import Chosen

log = logging.getLogger(__name__)

REACHED = (0.4, 0.85)  # of the rate of large matrices, in passes
BACK = 3  # forward passes that one with its backward takes as long as
OVERHEAD = 2e-4  # seconds of a pass and layer that no product takes: Python, hooks, norms
COPIED = 4  # times that keys and values are read or written at each token of a reply
FITTED = 4e6  # numbers that a logistic probe is fitted to in a second, with the other fits at its place
COUNTED = 4  # rows of the pass that is counted
FLOAT32 = 4
GB = 10**9
SMALLER = {"int8": 4, "nf4": 8}  # times smaller than float32 are the linear layers of blocks


# What this process was only asked to estimate: for each job the model's option, and what it will take.
TOLD = list[tuple[str, "Estimate"]]()


@dataclass(frozen=True)
class Estimate:
    """`work`: of each method by name; `unknown`: methods that do not say. Bytes: of the weights, of the largest pass
    and what lies beside it, and what is free on the device. `seconds`: at the least and at the most."""

    model: str
    dtype: str
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
        memory = f"{(self.weights + self.beside) / GB:.1f} of {self.free / GB:.1f} GB free"
        if not self.work:
            return f"{memory} for the weights on {self.device}; what {', '.join(self.unknown)} will take is not known"
        missing = f"; not known: {', '.join(self.unknown)}" if self.unknown else ""
        return f"About {self._counts}, {memory}, {span(*self.seconds)} on {self.device}{missing}"

    @property
    def _counts(self) -> str:
        return f"{rounded(self.rows)} rows, {rounded(self.tokens)} tokens"

    @property
    def row(self) -> tuple[str, ...]:
        """Of a table."""
        memory = f"{(self.weights + self.beside) / GB:.1f} of {self.free / GB:.1f}"
        fits = "yes" if self.fits else "no"
        return self.model, rounded(self.rows), rounded(self.tokens), memory, span(*self.seconds), fits

    @property
    def cure(self) -> str:
        """What to change where it does not fit."""
        half = "load it in half of the bytes with model.dtype=bfloat16, " if self.dtype == "float32" else ""
        return (
            f"{self.model} takes {self.weights / GB:.1f} GB for its weights and up to {self.beside / GB:.1f} beside "
            f"them, and {self.free / GB:.1f} are free on {self.device}; spread it with device.map=auto, {half}or ask "
            "for less at once with device.batch_size=8."
        )


def table(told: Sequence[tuple[str, Estimate]]) -> str:
    """Of several runs, for the log."""
    rows = [
        ("model", "checkpoint", "rows", "tokens", "GB", "time", "fits"),
        *((option, *one.row) for option, one in told),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    least, most = (sum(one.seconds[end] for _, one in told) for end in (0, 1))
    return "\n  ".join(["Together:", *lines, f"one after the other: {span(least, most)}"])


def rounded(count: int | float) -> str:
    """To two digits, for people."""
    if count < 100:
        return f"{count:.0f}"
    digits = len(f"{count:.0f}") - 2
    return f"{round(count / 10**digits) * 10**digits:,}"


def span(least: float, most: float) -> str:
    """From so many seconds to so many, as exactly as anybody can know: below a minute other things take longer."""
    if most < 30:
        return "under a minute"
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
    mapped = getattr(chosen.device, "map", None) is not None
    hf = skeleton(chosen.model.config()).to(dtype)
    weights, free = stored(hf, getattr(chosen.model, "quantization", None)), free_everywhere(device, mapped)
    bound = Template.of(chosen.model.tokenizer(), template)
    longest = max(len(bound.tokens(text)) for text in prompts.everything)
    of_token = bytes_of_token(hf, longest)
    useful = USEFUL.get(device.type, USEFUL["cpu"])
    room = int(SHARE * (free - weights) / (of_token * longest))
    direction = next((one for one in methods.values() if one.gives is RefusalDirection), None)
    places = getattr(direction, "positions", None)
    scope = Scope.of(
        hf,
        prompts,
        bound,
        batch_size=chosen.device.batch_size or max(1, min(useful, room)),
        on_cpu=device.type == "cpu",
        positions=None if places is None else len(places),
        controls=getattr(direction, "null_directions", 0),
    )
    counted = {name: method.work(scope) for name, method in methods.items()}
    work = {name: parts for name, parts in counted.items() if parts is not None}
    parts = [part for of in work.values() for part in of]
    logits = scope.vocabulary * (dtype.itemsize + FLOAT32)  # as they come, and as they are counted with
    passes = (one for part in parts for one in part.largest)
    peak = max((one.rows * (one.tokens * of_token + one.keep * logits) for one in passes), default=0.0)
    return Estimate(
        model=chosen.model.label,
        dtype=chosen.model.dtype,
        device=device.type,
        work=work,
        unknown=[name for name, of in counted.items() if of is None],
        weights=weights,
        beside=round(peak) + max((part.held for part in parts), default=0),
        free=free,
        seconds=seconds(parts, hf, scope, weights, speed(device, dtype, scope.d_model, scope.neurons)),
        mapped=mapped,
    )


def bytes_of_token(hf: PreTrainedModel, longest: int) -> float:
    """That a pass takes for one of a prompt's, counted on the skeleton."""
    try:
        return peak_bytes(hf, COUNTED, longest) / COUNTED / longest
    except UNREADABLE as error:
        # What depends on values, as the choice of experts may, cannot go through a skeleton.
        log.debug("Not counted, as the skeleton is not run: %s", error)
        width = int(hf.config.get_text_config().hidden_size)
        return float((WIDTHS * width + 4 * (max(points_of(hf).neurons, default=0) or 4 * width)) * FLOAT32)


def free_everywhere(device: torch.device, mapped: bool) -> int:
    """Bytes on the device; with a map on all of them, and in the host's memory."""
    host = torch.device("cpu")
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if device.type == "cuda" else []
    return sum(map(free_bytes, [*devices, host])) if mapped else free_bytes(device)


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
