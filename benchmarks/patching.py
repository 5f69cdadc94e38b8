"""How long exact patching of every component takes: rows in one pass, beside one forward pass for each component.

    python -m benchmarks.patching                               # the embedded tuned model, one pair, heads
    python -m benchmarks.patching --count 32 --kinds all
    python -m benchmarks.patching --kinds neurons               # 2,000 of them, and 50 random sets beside the loop
    python -m benchmarks.patching --model gpt2 --pairs X.json --json FILE
    python -m benchmarks.patching --shape pythia-410m --count 32 --dtype bfloat16 --device cuda
    python -m benchmarks.patching --shape llama-7b --count 4 --dtype bfloat16 --device cuda

In one process, in turn and several times over: TransformerLens' own loop, a bare loop of hooks on the Hugging Face
model, ours, and one plain forward pass over as many tokens as ours has rows. All prompts have one length, so that the
loops, too, can take them as one batch. The loops run on a sample of the components and are scaled up; logits are
compared. Prints a table of medians. Of neurons those are taken, as many in each layer, whose values differ most between
the two prompts of a pair, in the mean over pairs; there are too many to take all.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared import SHAPES, interleaved, medians, model_of, prompts_of, random_model, settings
from rcm.execution import loop, rows
from rcm.execution.components import COMPONENT_KINDS, Component, DenseKind, Kind, Rows
from rcm.execution.engine import TOKENS_PER_PROMPT, Engine
from rcm.execution.metric import LogOdds
from rcm.execution.recording import ComponentCache, cache_components
from rcm.models import LoadedModel

METRIC = LogOdds((5, 7))  # of any two tokens: it is the work that counts, not what is found
SETS = 50  # of neurons
ACTIVATIONS: dict[Kind, str] = {
    "head": "z",
    "attention": "attn_out",
    "mlp": "mlp_out",
    "residual": "resid_pre",
    "neuron": "post",
}  # TransformerLens' names


@dataclass(frozen=True)
class Task:
    """The same components of the same pairs, patched in several ways. All prompts have one length. `neurons`: so many
    of them, in place of components of other kinds."""

    model: LoadedModel
    base_ids: list[list[int]]
    source_ids: list[list[int]]
    kinds: Sequence[DenseKind]
    neurons: int = 0

    @cached_property
    def base(self) -> ComponentCache:
        return cache_components(self.model, self.base_ids, neurons=self.neurons > 0)

    @cached_property
    def source(self) -> ComponentCache:
        return cache_components(self.model, self.source_ids, neurons=self.neurons > 0)

    @cached_property
    def components(self) -> list[Component]:
        if not self.neurons:
            return self.base.shape.components(self.kinds)
        differ = (self.source.at(-1).neuron - self.base.at(-1).neuron).abs().mean(1)
        of_each = differ.topk(min(self.neurons // len(differ), differ.shape[1])).indices.tolist()
        return [Component("neuron", layer, number) for layer, numbers in enumerate(of_each) for number in numbers]

    @cached_property
    def patches(self) -> Rows:
        return Rows.of([[component] for component in self.components], self.base.shape)

    @property
    def length(self) -> int:
        return len(self.base_ids[0])

    def sample(self, size: int) -> Tensor:
        """So many of the components, of all kinds and layers."""
        return torch.linspace(0, len(self.patches) - 1, min(size, len(self.patches))).long().unique()

    def by_rows(self, tokens: int) -> Tensor:
        """Recordings and rows, a pass of so many tokens at a time: all that a user waits for."""
        count = len(self.base_ids)
        both = cache_components(self.model, self.base_ids + self.source_ids, neurons=self.neurons > 0)
        donors = [both[:count].at(-1), both[count:].at(-1)]
        return self._engine("rows", tokens).measure(both[:count], donors, self.patches, METRIC)

    def by_loop(self, sample: Tensor, tokens: int) -> Tensor:
        """One pass for each component of the sample. What it needs of recordings is there before the clock starts, and
        logits are read as rarely as those of rows, so that a GPU need not wait after each pass."""
        donors = [self.base.at(-1), self.source.at(-1)]
        return self._engine("loop", tokens).measure(self.base, donors, self.patches[sample], METRIC)

    @torch.inference_mode()
    def plainly(self, tokens: int) -> Tensor:
        """As many tokens as there are rows, in prompts of the same length, and no patching: what rows could cost."""
        vocabulary, draw = self.model.hf.config.vocab_size, torch.Generator().manual_seed(0)
        n = max(1, len(self.patches) * len(self.base_ids) // self.length)
        ids = torch.randint(10, vocabulary, (n, self.length), generator=draw).to(self.model.device)
        parts = ids.split(max(1, tokens // self.length))
        return torch.cat([self.model.hf(part, use_cache=False, logits_to_keep=1).logits[:, -1] for part in parts])

    def error(self, sample: Tensor) -> tuple[float, float]:
        """The largest difference of a logit between rows and loop, and the largest logit."""
        slow, fast = self._both_ways(self.patches[sample])
        return (slow - fast).abs().max().item(), slow.abs().max().item()

    def error_of_sets(self) -> dict[str, float]:
        """Of random sets of 1 to 500 neurons of all layers: the largest difference of a logit between rows and loop,
        and what a set changes in a logit at most, in the least, the median and the strongest set. All as shares of
        the largest logit."""
        draw, widths = np.random.default_rng(0), self.model.points.neurons
        every = [Component("neuron", layer, number) for layer, width in enumerate(widths) for number in range(width)]
        sizes = np.geomspace(1, min(500, len(every)), SETS).round().astype(int)
        sets = [[every[i] for i in draw.choice(len(every), size, replace=False)] for size in sizes]
        slow, fast = self._both_ways(Rows.of([*sets, []], self.base.shape))
        # The empty set enters last, and no other row stands behind it.
        effects = (slow[:, :-1] - slow[:, -1:]).abs().amax((0, 2, 3)) / slow.abs().max()
        error = (slow - fast).abs().max() / slow.abs().max()
        figures = {"error": error, "least": effects.min(), "median": effects.median(), "most": effects.max()}
        return {name: figure.item() for name, figure in figures.items()}

    def _both_ways(self, patches: Rows) -> tuple[Tensor, Tensor]:
        """Logits by the loop and by rows, in the order of first layers."""
        donors = [self.base.at(-1), self.source.at(-1)]
        some = patches[patches.first_layer.argsort(stable=True)]
        slow, fast = (way.patched_logits(self.model, self.base, donors, some) for way in (loop, rows))
        return slow, fast

    def _engine(self, path: Literal["rows", "loop"], tokens: int) -> Engine:
        model = replace(self.model, batch_size=max(1, tokens // TOKENS_PER_PROMPT))
        return Engine(model, path, "the benchmark wants it so", None)


def main() -> None:
    options = parsed()
    model = loaded(options)
    ids = random_ids(model, options.count, options.length) if options.shape else pairs(options, model)
    kinds: Sequence[DenseKind] = COMPONENT_KINDS if options.kinds == "all" else ("head",)
    task = Task(model, *ids, kinds, options.neurons if options.kinds == "neurons" else 0)
    sample = task.sample(options.sample)
    works: dict[str, Callable[[], Tensor]] = {
        "rows": lambda: task.by_rows(options.tokens),
        "plain forward, as many tokens": lambda: task.plainly(options.tokens),
        "hook loop": lambda: task.by_loop(sample, options.tokens),
    }
    if not options.no_transformer_lens:
        works["TransformerLens loop"] = lambda: theirs(task, sample)
    error, _ = task.error(sample)
    for work in works.values():
        work()  # warm
    *_, seconds = interleaved(works, options.repeats)
    scale = len(task.patches) / len(sample)
    typical = {name: value * (scale if "loop" in name else 1) for name, value in medians(seconds).items()}
    report(options, task, typical, error, task.error_of_sets() if task.neurons else None)


@torch.inference_mode()
def theirs(task: Task, sample: Tensor) -> Tensor:
    """TransformerLens' generic_activation_patch over the same cells, at the last token."""
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.utilities import get_act_name

    bridge = task.model.bridge
    cells = [task.components[i] for i in sample]
    needed = {get_act_name(ACTIVATIONS[cell.kind], cell.layer) for cell in cells}
    _, cache = bridge.run_with_cache(task.source.batch.input_ids, names_filter=needed.__contains__)
    figures = []
    for kind in dict.fromkeys(cell.kind for cell in cells):
        index = [(cell.layer, task.length - 1, cell.number) for cell in cells if cell.kind == kind]
        frame = pd.DataFrame(index, columns=["layer", "pos", "head"])
        numbered = kind in ("head", "neuron")  # a neuron lies where a head does: behind layer and token
        figures.append(
            patching.generic_activation_patch(
                bridge,
                task.base.batch.input_ids,
                cache,
                lambda logits: METRIC(logits[:, None, -1:]).mean(),
                patching.layer_pos_head_vector_patch_setter if numbered else patching.layer_pos_patch_setter,
                ACTIVATIONS[kind],
                index_df=frame if numbered else frame[["layer", "pos"]],
            )
        )
    return torch.cat([figure.flatten().cpu() for figure in figures])


def report(
    options: argparse.Namespace, task: Task, seconds: dict[str, float], error: float, of_sets: dict[str, float] | None
) -> None:
    cells = len(task.patches)
    print(f"{options.shape or options.model}, {options.dtype or 'its dtype'}, {options.device}: {cells} components of ")
    print(f"{options.count} pairs of {task.length} tokens; loops on {options.sample} components, scaled up")
    for name, value in seconds.items():
        print(f"  {name:32s} {value:9.3f} s   {value / seconds['rows']:8.2f} x rows")
    print(f"  {cells * options.count / seconds['rows']:.0f} rows a second, recordings among them")
    print(f"  largest difference of a logit to the hook loop: {error:.1e}")
    if of_sets:
        print("  {} random sets of neurons: {error:.1e} of the largest logit; a set changes".format(SETS, **of_sets))
        print(
            "  a logit by {least:.1e} of it at least, {median:.1e} in the median, {most:.1e} at most".format(**of_sets)
        )
    if options.json:
        figures: dict[str, Any] = {"options": vars(options), "components": cells, "seconds": seconds, "error": error}
        figures |= {"sets": of_sets} if of_sets else {}
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")


def random_ids(model: LoadedModel, count: int, length: int) -> list[list[list[int]]]:
    """Two sets of prompts of random tokens."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(10, model.hf.config.vocab_size, (2, count, length), generator=draw).tolist()


def pairs(options: argparse.Namespace, model: LoadedModel) -> list[list[list[int]]]:
    """Harmful and harmless prompts as tokens, all of the commonest length."""
    split = prompts_of(settings(*(["dataset=file", f"dataset.path={options.pairs}"] if options.pairs else [])))
    tokens = [
        [model.template.tokens(prompt.text) for prompt in pair]
        for part in (split.test, split.validation, split.train)
        for pair in zip(*part, strict=False)
    ]
    equal = [pair for pair in tokens if len(pair[0]) == len(pair[1])]
    length, available = Counter(len(harmful) for harmful, _ in equal).most_common(1)[0]
    if available < options.count:
        raise SystemExit(f"--count {options.count}: only {available} pairs have one length; ask for no more.")
    return [
        list(side) for side in zip(*[pair for pair in equal if len(pair[0]) == length][: options.count], strict=True)
    ]


def loaded(options: argparse.Namespace) -> LoadedModel:
    """A model by the name of its option, or random weights of a shape."""
    if options.shape:
        return random_model(options.shape, options.device, getattr(torch, options.dtype or "float32"))
    return model_of(settings(f"model={options.model}"), "chat", options.device, dtype=options.dtype)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal", help="an option of conf/model")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape and random tokens, in its place")
    parser.add_argument("--pairs", help="a JSON file of prompts as dataset=file reads it, in place of our own pairs")
    parser.add_argument("--count", type=int, default=1, help="pairs")
    parser.add_argument("--length", type=int, default=37, help="random tokens of a prompt")
    parser.add_argument("--kinds", choices=("heads", "all", "neurons"), default="heads")
    parser.add_argument("--neurons", type=int, default=2000, help="of them, as many in each layer")
    parser.add_argument("--dtype", help="other than the model's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=1024, help="rows times pairs of one pass")
    parser.add_argument("--sample", type=int, default=18, help="components that the loops run on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-transformer-lens", action="store_true")
    parser.add_argument("--json", help="a file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
