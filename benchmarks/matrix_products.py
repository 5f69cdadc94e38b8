"""How long a model's work takes on the CPU with PyTorch's two libraries for matrix products, MKL and oneDNN.

    python -m benchmarks.matrix_products [--model smollm2-135m-refusal] [--path FILE.gguf] [--rounds 5] [--threads N]

Recording, replies under ablation, replies under adding halfway, and patching of all heads, in one process, in turn and
several times over, on the same prompts; logits of both are compared. Medians.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.shared import interleaved, medians, model_of, prompts_of, settings
from rcm.execution import rows
from rcm.execution.components import Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.interventions import Ablate, Add
from rcm.execution.passes import last_logits, read_residuals
from rcm.execution.recording import cache_components
from rcm.models import LoadedModel
from rcm.models.matrix_products import OneDnnLinear, onednn_speed, use_faster
from rcm.prompts import texts

TOKENS, DIRECTIONS, PAIRS = 16, 8, 4


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    path = [f"model.path={options.path}"] if options.path else []
    config = settings(f"model={options.model}", *path, f"dataset.test={options.prompts}")
    prompts = prompts_of(config)
    model = model_of(config, prompts.template, "cpu")
    print(f"{options.model}, {torch.get_num_threads()} threads; a product by oneDNN {onednn_speed():.1f} times as fast")
    asked = texts(prompts.test.harmful)
    logits = {name: by(model, name, partial(last_logits, model, asked)) for name in ("MKL", "oneDNN")}
    off = (logits["MKL"] - logits["oneDNN"]).abs().max() / logits["MKL"].abs().max()
    print(f"  logits of {options.prompts} prompts differ by {off:.1e} of the largest")
    for task, work in tasks(model, asked).items():
        contestants = {name: partial(by, model, name, work) for name in ("MKL", "oneDNN")}
        *_, seconds = interleaved(contestants, options.rounds)
        taken = medians(seconds)
        print(f"  {task:32s} {taken['MKL']:7.2f} s  {taken['oneDNN']:7.2f} s  {taken['MKL'] / taken['oneDNN']:5.2f} x")


def by(model: LoadedModel, library: str, work: Callable[[], Any]) -> Any:
    """What the work returns, with linear layers by this library."""
    for layer in model.hf.modules():
        if isinstance(layer, OneDnnLinear):
            layer.__class__ = nn.Linear
    if library == "oneDNN":
        use_faster(model.hf)
    return work()


def tasks(model: LoadedModel, asked: list[str]) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    some = asked[: max(1, len(asked) // DIRECTIONS)] * DIRECTIONS
    vectors = torch.nn.functional.normalize(torch.randn(DIRECTIONS, model.d_model), dim=1)
    by_row = vectors.repeat_interleave(len(some) // DIRECTIONS, 0)
    halfway = Add(model.n_layers // 2, 5 * by_row)
    pairs = [model.template.tokens(prompt) for prompt in asked[:PAIRS]]
    base, source = cache_components(model, pairs), cache_components(model, pairs[::-1])
    every = Rows.each(["head"], base.shape)
    every = every[every.first_layer.argsort(stable=True)]
    return {
        f"recording, {len(asked)} prompts": lambda: read_residuals(model, asked, [-1], "recording"),
        f"replies, {len(some)} rows ablated": lambda: reply_tokens(model, some, TOKENS, [Ablate(by_row)]),
        f"replies, {len(some)} rows pushed": lambda: reply_tokens(model, some, TOKENS, [halfway]),
        f"patching, {len(every)} heads": lambda: rows.patched_logits(model, base, [base.at(-1), source.at(-1)], every),
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal")
    parser.add_argument("--path", help="of model=gguf")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
