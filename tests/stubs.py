"""A model, a data set and a method that cost nothing, for the tests of what lies around them."""

import os
import time
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import PositiveInt

import rcm.methods
from rcm.errors import InputError
from rcm.methods import Study
from rcm.record.results import (
    SHUFFLED_LABELS,
    Adapter,
    Curve,
    Diagram,
    Edge,
    Heatmap,
    Line,
    Node,
    Null,
    Outcome,
    Result,
    Scalar,
    Scatter,
    Table,
    Tensors,
    Transcripts,
)
from rcm.settings import Settings

OPTIONS = {
    "model/stub.yaml": "_target_: tests.stubs.Model\nfamily: stub\nstage: base\npath: null\n",
    "dataset/stub.yaml": "_target_: tests.stubs.Prompts\nsize: 4\n",
    "method/stub.yaml": "# @package method.stub\n_target_: tests.stubs.Method\ntop_k: 3\ngranularity: head\n"
    "fails_at: null\n"
    "places: [-1]\ninner:\n  rate: 0.5\n",
}
BLOCK = "RCM_STUB_BLOCKS"  # set in the environment, the method stops half-way for ever


def write_options(folder: Path) -> Path:
    """A config folder for `--config-dir` with an option `stub` for model, dataset and method."""
    for name, text in OPTIONS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


class Loaded:
    """A model of which the tests can tell whether it still lives."""

    born: list["weakref.ref[Loaded]"] = []  # noqa: RUF012 (it is the whole point that it is shared)

    def __init__(self) -> None:
        self.weights = torch.zeros(8)
        self.born.append(weakref.ref(self))

    @classmethod
    def alive(cls) -> int:
        return sum(model() is not None for model in cls.born)


class Model(Settings):
    family: str
    stage: str
    path: str | None

    def check(self, prompts: list[str], template: str, reply: int = 0) -> None:
        if self.path is not None and not Path(self.path).exists():
            raise InputError(f"There is no file {self.path}; give one that exists with model.path=FILE.")

    def load(self, device: torch.device, template: str, batch_size: int | None) -> Loaded:
        return Loaded()


class Split(NamedTuple):
    template: str
    everything: list[str]


class Prompts(Settings):
    size: PositiveInt

    def load(self) -> Split:
        return Split("chat", ["one", "two"])


class Inner(Settings):
    rate: float


class Method(rcm.methods.Method):
    """One result of each kind, then more figures; breaks with the seed `fails_at`."""

    top_k: PositiveInt
    granularity: Literal["head", "layer"]
    fails_at: int | None
    places: tuple[int, ...] | None
    inner: Inner

    def run(self, study: Study) -> Generator[Result, None, None]:
        yield Scalar("stub/alive", float(Loaded.alive()))
        yield from one_of_each()
        if BLOCK in os.environ:
            time.sleep(600)
        if study.seed == self.fails_at:
            raise RuntimeError("the stub breaks")
        yield Scalar("stub/random", torch.rand(()).item() + float(np.random.rand()), (0.0, 2.0), 4, target=-1.0)
        yield Scalar(
            "stub/low",
            0.25,
            (0.1, 0.4),
            20,
            Null(0.3, SHUFFLED_LABELS, 100),
            target=0.5,
            label="a low share",
            unit="share",
            hint="below its null",
            good="high",
        )


def one_of_each() -> list[Result]:
    """One result of each kind, with the values that are hard to keep."""
    direction = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    nan = float("nan")
    row: list[Any] = [1, "a, b", nan]
    return [
        Scalar("stub/nothing", nan, n=0),
        Outcome("stub/verdict", "circuit_found", "the planted direction came out on top"),
        Heatmap(
            "stub/map",
            np.array([[1.0, nan, -2.0], [0.5, 0.0, 1.5]]),
            ("0", "1"),
            ("a", "b", "c"),
            "layer",
            "head",
            ((1, 2),),
        ),
        Curve(
            "stub/curve",
            (0.0, 1.0),
            (Line("refusal", (0.1, nan), (0.0, nan), (0.2, nan)), Line("kl", (1.0, 2.0))),
            "x",
            "y",
        ),
        Scatter(
            "stub/cloud", (0.5, nan), (1.0, -1.0), (nan, 2.0), ("first", "second"), "cost", "gain", "colour", (1,), 0.1
        ),
        Diagram(
            "stub/circuit",
            (Node("words", "source", -1, nan), Node("1.0", "head", 1, -0.5), Node("refusal", "output", 2, nan)),
            (Edge("words", "1.0", 0.25), Edge("1.0", "refusal", -2.0)),
            2,
            "effect",
            "weight",
        ),
        Table("stub/candidates", ("layer", "text", "score"), (tuple(row), (2, "ü", 0.125))),
        Transcripts("stub/transcripts", ({"prompt": "Say “hi”", "completion": "hi\nthere", "strength": 1.5},)),
        # Transposed, twice the same memory, half precision: safetensors takes none of the first two as they are.
        Tensors(
            "stub/directions",
            {"r": direction.T, "again": direction.T, "half": direction.bfloat16()},
            {"layer": "5", "position": "-1"},
        ),
        Adapter("stub/adapter", {"a.lora_A.weight": direction.bfloat16()}, {"peft_type": "LORA", "r": 8}, {"steps": 3}),
    ]
