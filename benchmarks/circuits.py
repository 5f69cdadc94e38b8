"""How long a thousand random circuits take: rows in one pass, beside one forward pass for each.

    python -m benchmarks.circuits                                       # the embedded tuned model
    python -m benchmarks.circuits --model gguf model.path=FILE          # another, with any further overrides
    python -m benchmarks.circuits --shape llama-8b --dtype bfloat16 --device cuda

A random circuit keeps a share of the heads; the others take the values of the prompt's twin at the last token. In one
process, in turn and several times over; the forward passes are made for a sample and scaled up, and logits compared.
Prints a table of medians and, as the last line, JSON.
"""

import argparse
import json

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared import SHAPES, interleaved, medians, model_of, prompts_of, random_model, settings
from rcm.execution import loop
from rcm.execution.components import Component, Rows
from rcm.execution.engine import engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.execution.rows import patched_logits
from rcm.models import LoadedModel
from rcm.patching.interchange import Pair
from rcm.patching.pairs import Pairs

METRIC = LogOdds((7, 9))  # of any two tokens: it is the work that counts


def main() -> None:
    options = parsed()
    model, pair = loaded(options)
    bases = [list(pair[0]), list(pair[1])]
    base, source = cache_components(model, bases), cache_components(model, bases[::-1])
    engine = engine_of(model, base, source, seed=0)
    circuits = random_circuits(engine.shape.components(["head"]), options)
    rows = Rows.of(circuits, engine.shape)
    sample = torch.linspace(0, len(rows) - 1, options.sample).round().long()
    one, other = base[:1], source[:1]
    donors = [one.at(-1), other.at(-1)]

    def in_one_pass() -> Tensor:
        """With the recording of both prompts, which the other way needs as well."""
        both = cache_components(model, bases)
        mine = [both[:1].at(-1), both[1:].at(-1)]
        return engine.measure(both[:1], mine, rows, METRIC)

    def one_forward_each() -> Tensor:
        return METRIC(loop.patched_logits(model, one, donors, rows[sample]))

    in_one_pass(), one_forward_each()  # warm
    *_, times = interleaved({"rows": in_one_pass, "forward": one_forward_each}, options.rounds)
    seconds = medians(times)
    each = seconds["forward"] / len(sample) * len(rows)
    fast, slow = (way(model, one, donors, rows[sample]).float() for way in (patched_logits, loop.patched_logits))
    off = float((fast - slow).abs().max() / slow.abs().max())
    threads = torch.get_num_threads()
    print(f"{options.shape or options.model}, {model.hf.dtype}, {options.device}, {threads} threads, ", end="")
    print(f"engine: {engine.path}; {len(rows)} circuits of {len(circuits[0])} patched heads, ", end="")
    print(f"prompts of {len(pair[0])} and {len(pair[1])} tokens; medians of {options.rounds}")
    print(f"  one forward pass each, {len(sample)} scaled up   {each:9.2f} s")
    print(f"  rows in one pass, with recording       {seconds['rows']:9.2f} s   {each / seconds['rows']:.1f} x faster")
    print(f"  largest difference of a logit: {off:.1e} of the largest")
    found = {"forward": each, "rows": seconds["rows"], "ratio": each / seconds["rows"], "off": off}
    print(json.dumps({"options": vars(options), **found}))


def random_circuits(heads: list[Component], options: argparse.Namespace) -> list[list[Component]]:
    """What lies outside of each circuit, which is patched."""
    draw, outside = np.random.default_rng(0), round((1 - options.kept) * len(heads))
    return [[heads[i] for i in draw.choice(len(heads), outside, replace=False)] for _ in range(options.circuits)]


def loaded(options: argparse.Namespace) -> tuple[LoadedModel, Pair]:
    """A model, and a pair of prompts for it."""
    if options.shape:
        model = random_model(options.shape, options.device, getattr(torch, options.dtype))
        draw = torch.Generator().manual_seed(0)
        clean, corrupt = torch.randint(5, 200, (2, options.tokens), generator=draw).tolist()
        return model, (clean, corrupt)
    config = settings(f"model={options.model}", "method=direction", *options.overrides)
    prompts = prompts_of(config)
    model = model_of(config, prompts.template, options.device)
    return model, Pairs.of(model, prompts.test, True).tokens[0]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal", help="an option of conf/model")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of a shape, in place of a model")
    parser.add_argument("--circuits", type=int, default=1000)
    parser.add_argument("--kept", type=float, default=0.1, help="share of the heads that a circuit keeps")
    parser.add_argument("--sample", type=int, default=20, help="circuits that one forward pass each is made for")
    parser.add_argument("--tokens", type=int, default=40, help="of a prompt for random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", help="of random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="further overrides, as launch.py takes them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
