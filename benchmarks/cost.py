"""How time and memory grow, and what a model of 7 billion parameters would take.

    python -m benchmarks.cost [--rounds 3] [--only growth|counted|seven]

Growth: recording, replies and patching on random Llamas of four shapes, of which one thing at a time is doubled and
doubled again: layers, heads, width, positions, pairs, prompts. A slope is that of a straight line through the
logarithms (1: twice as much takes twice as long), told as the median over the shapes, and the least and the most.
Rounds are interleaved, and of each the median counts. Time is that of the CPU, in one thread, which what else runs on
the machine lengthens little; memory is the most bytes of tensors that are alive at once, without the weights.

Counted: what `behaviour` and `direction` ask of models of 7 and of 70 billion parameters, and the memory that it takes,
from their skeletons.

Seven: two layers of the shape of Qwen2.5-7B, and its unembedding, in bfloat16, with random weights (3 GB): their real
work is timed, and 28 layers are projected from it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from benchmarks.shared import random_model, settings
from rcm.execution import memory
from rcm.execution.components import COMPONENT_KINDS, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.metric import LogOdds
from rcm.execution.passes import read_residuals
from rcm.execution.work import Scope, together
from rcm.models import LoadedModel
from rcm.models.checkpoint import skeleton
from rcm.models.points import points_of
from rcm.models.random import Random
from rcm.models.template import Template
from rcm.patching import engine_for, interchange
from rcm.running.chosen import chosen_settings
from rcm.running.estimate import bytes_of_token

VOCABULARY = 1024
SHAPES = ({"layers": 4, "heads": 4, "width": 128}, {"layers": 8, "heads": 4, "width": 128})
SHAPES += ({"layers": 4, "heads": 8, "width": 256}, {"layers": 6, "heads": 4, "width": 192})
ASKED = {"prompts": 16, "positions": 4, "pairs": 4, "tokens": 8}
TIMES = (1, 2, 4)
LETTERS = 40  # of a prompt, a token each
GB, GIB = 10**9, 2**30
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
# Of Qwen2.5-72B, likewise.
SEVENTY = {**SEVEN, "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64}
SEVENTY |= {"num_key_value_heads": 8, "intermediate_size": 29568}
CONTROLS = 19  # method.direction.null_directions
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
    head = model.hf.get_output_embeddings()
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
    layers = SEVEN["num_hidden_layers"]
    print(f"projected to {layers} layers: {layers * of_layer + of_head:.3f} s for a token, in one thread of this CPU")


def counted(size: dict[str, Any], at_once: int) -> None:
    """What `behaviour` and `direction` at their defaults ask of a model of this size in bfloat16, on a GPU, and the
    memory that takes; prompts are as long as SmolLM2's tokenizer and template make them."""
    chosen = chosen_settings(settings("model=smollm2-135m", "method=[behaviour,direction]"))
    prompts = chosen.dataset.load()
    hf = skeleton(AutoConfig.for_model("qwen2", **size)).to(torch.bfloat16)
    template = Template.of(chosen.model.tokenizer(), "chat")
    scope = Scope.of(hf, prompts, template, batch_size=at_once, on_cpu=False, controls=CONTROLS)
    longest = max(len(template.tokens(text)) for text in prompts.everything)
    of_token = bytes_of_token(hf, longest)
    blocks = sum(one.numel() for layer in points_of(hf).layers for one in layer.parameters())
    weights = memory.weight_bytes(hf)
    print(
        f"{size['num_hidden_layers']} layers of {size['hidden_size']}, bfloat16: weights {weights / GB:.1f} GB, "
        f"{at_once} prompts at once, the longest of {longest} tokens"
    )
    for name, method in chosen.methods.items():
        parts = method.work(scope) or ()
        whole = together(name, parts)
        least = sum(one.least * (one.tokens + one.generated) for one in parts)
        passes = (one.rows * (one.tokens * of_token + one.keep * scope.vocabulary * 6) for one in whole.largest)
        beside = max(passes) + whole.held
        through = whole.tokens + whole.generated
        operations = 2 * (blocks * through + scope.d_model * scope.vocabulary * whole.logits)
        print(
            f"  {name}: {whole.rows:,} rows, {least:,.0f} to {through:,.0f} tokens, {operations / 1e15:.2f} PFLOP; "
            f"beside the weights {beside / GB:.2f} GB, of which held {whole.held / GB:.2f}: together "
            f"{(weights + beside) / 2**30:.1f} GiB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("growth", "counted", "seven"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only in (None, "growth"):
        growth(options.rounds)
    if options.only in (None, "counted"):
        for size, at_once in product((SEVEN, SEVENTY), (32, 128)):
            counted(size, at_once)
    if options.only in (None, "seven"):
        seven()


if __name__ == "__main__":
    main()
