"""How time and memory grow, and what a model of 7 billion parameters would take.

    python -m benchmarks.cost [--rounds 3] [--only growth|seven]

Growth: recording, replies and patching on random Llamas of four shapes, of which one thing at a time is doubled and
doubled again: layers, heads, width, positions, pairs, prompts. A slope is that of a straight line through the
logarithms (1: twice as much takes twice as long), told as the median over the shapes, and the least and the most.
Rounds are interleaved, and of each the median counts. Time is that of the CPU, in one thread, which what else runs on
the machine lengthens little; memory is the most bytes of tensors that are alive at once, without the weights.

Seven: two layers of the shape of Qwen2.5-7B, and its unembedding, in bfloat16, with random weights (3 GB): their real
work is timed, and 28 layers are projected from it. What memory they take is counted, on the whole skeleton.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.shared import random_model
from rcm.execution import memory
from rcm.execution.components import COMPONENT_KINDS, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.metric import LogOdds
from rcm.execution.passes import read_residuals
from rcm.models import LoadedModel
from rcm.models.random import Random
from rcm.patching import engine_for, interchange

VOCABULARY = 1024
SHAPES = ({"layers": 4, "heads": 4, "width": 128}, {"layers": 8, "heads": 4, "width": 128})
SHAPES += ({"layers": 4, "heads": 8, "width": 256}, {"layers": 6, "heads": 4, "width": 192})
ASKED = {"prompts": 16, "positions": 4, "pairs": 4, "tokens": 8}
TIMES = (1, 2, 4)
LETTERS = 40  # of a prompt, a token each
GIB = 2**30
# Of Qwen2.5-7B: https://huggingface.co/Qwen/Qwen2.5-7B/blob/main/config.json
SEVEN = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
REAL = 2  # layers
ROWS, STEPS = 8, 4  # prompts, and tokens of their replies


@dataclass(frozen=True)
class Task:
    """What is timed, and what it grows with."""

    name: str
    axes: tuple[str, ...]
    work: Callable[[LoadedModel, dict[str, int]], None]


def recording(model: LoadedModel, size: dict[str, int]) -> None:
    """Residual streams of all layers, as `direction` reads them."""
    read_residuals(model, prompts(size["prompts"]), list(range(-size["positions"], 0)), "recording")


def replying(model: LoadedModel, size: dict[str, int]) -> None:
    """Greedy replies, as `behaviour` and `steering` ask for."""
    reply_tokens(model, prompts(size["prompts"]), size["tokens"], label="replies")


def patching(model: LoadedModel, size: dict[str, int]) -> None:
    """Every component in every pair, both ways, as `patching` does."""
    asked = [model.template.tokens(one) for one in prompts(2 * size["pairs"])]
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    engine = engine_for(model, pairs[:1], 0)
    interchange(engine, pairs, Rows.each(COMPONENT_KINDS, engine.shape), LogOdds((5,)))


TASKS = (
    Task("recording", ("layers", "width", "heads", "positions", "prompts"), recording),
    Task("replies", ("layers", "width", "heads", "tokens", "prompts"), replying),
    Task("patching", ("layers", "width", "heads", "pairs"), patching),
)


def prompts(n: int) -> list[str]:
    """Of one length, and of unlike words."""
    draw = np.random.default_rng(0)
    return ["".join(draw.choice(list("abcdefgh "), LETTERS)) + "." for _ in range(n)]


def model_of(size: dict[str, int]) -> LoadedModel:
    given = {
        "hidden_size": size["width"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["heads"],
        "intermediate_size": 4 * size["width"],
        "max_position_embeddings": 256,
        "vocab_size": VOCABULARY,
    }
    named: dict[str, Any] = dict.fromkeys(("family", "stage", "adapter", "refusal_tokens"))
    fields = {
        name: None for name in Random.model_fields if name not in ("architecture", "size", "seed", "dtype", *named)
    }
    made = Random(architecture="llama", size=given, seed=0, dtype="float32", **named, **fields)
    return LoadedModel.of(made.weights().hf, made.tokenizer(), "plain")


def cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def alive_bytes(model: LoadedModel, work: Callable[[], None]) -> int:
    with memory._Alive([*model.hf.parameters(), *model.hf.buffers()]) as alive:
        work()
    return max(alive.peak.values(), default=0)


def slope(sizes: list[int], figures: list[float]) -> float:
    """Of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(figures), 1)[0])


def growth(rounds: int) -> None:
    print(f"{'':12}{'':12}{'time':>22}{'memory':>22}")
    for task in TASKS:
        for axis in task.axes:
            found = [slopes(task, axis, {**shape, **ASKED}, rounds) for shape in SHAPES]
            told = [
                f"{statistics.median(which):.2f} [{min(which):.2f}, {max(which):.2f}]"
                for which in zip(*found, strict=True)
            ]
            print(f"{task.name:12}{axis:12}{told[0]:>22}{told[1]:>22}", flush=True)


def slopes(task: Task, axis: str, base: dict[str, int], rounds: int) -> tuple[float, float]:
    """Of time and of memory, where one thing grows and the rest is as in `base`."""
    sizes = [{**base, axis: base[axis] * times} for times in TIMES]
    works = [partial(task.work, model_of(size), size) for size in sizes]
    for work in works:
        work()  # the first of a shape makes plans
    seconds = [[cpu_seconds(work) for work in works] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    bytes_alive = [float(alive_bytes(work.args[0], work)) for work in works]
    along = [size[axis] for size in sizes]
    return slope(along, medians), slope(along, bytes_alive)


def seven() -> None:
    """Seconds of a token in two layers and in the unembedding, reading and replying; the rest projected."""
    real = {**SEVEN, "num_hidden_layers": REAL}
    model = random_model({"architecture": "llama", **real}, "cpu", torch.bfloat16)
    asked = prompts(ROWS)
    lengths = [len(model.template.tokens(one)) for one in asked]
    print(f"{REAL} layers and the unembedding: {memory.weight_bytes(model.hf) / GIB:.2f} GiB of weights", flush=True)
    head, layer = model.hf.get_output_embeddings(), model.points.layers[0]
    x = torch.zeros(1, ROWS, SEVEN["hidden_size"], dtype=torch.bfloat16)
    with torch.inference_mode():
        of_head = min(cpu_seconds(lambda: head(x)) for _ in range(3)) / ROWS
    read = min(cpu_seconds(lambda: read_residuals(model, asked, [-1], "recording")) for _ in range(3))
    tokens = sum(lengths)
    of_layer = (read - ROWS * of_head) / tokens / REAL
    said = min(cpu_seconds(lambda: reply_tokens(model, asked, STEPS, label="replies")) for _ in range(3))
    print(f"recording {ROWS} prompts of {tokens / ROWS:.0f} tokens: {read:.1f} s, replies of {STEPS}: {said:.1f} s")
    print(f"a token: {1e3 * of_layer:.2f} ms in a layer, {1e3 * of_head:.2f} ms in the unembedding", flush=True)
    again = tokens * REAL * of_layer + ROWS * of_head + ROWS * (STEPS - 1) * (REAL * of_layer + of_head)
    print(f"replies by the figures of a token: {again:.1f} s")
    print(f"projected to {SEVEN['num_hidden_layers']} layers: a token {28 * of_layer + of_head:.3f} s")
    del layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("growth", "seven"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "seven":
        growth(options.rounds)
    if options.only != "growth":
        seven()


if __name__ == "__main__":
    main()
