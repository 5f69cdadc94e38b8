"""How long attribution of all edges takes: ours, beside TransformerLens' `attribution_patch`, on the same pairs.

    python -m benchmarks.attribution                       # four random shapes, and how both grow
    python -m benchmarks.attribution --model smollm2-135m-refusal --pairs 24    # ours alone: that has grouped queries

Random GPT-2 shapes, because TransformerLens' edges are for models without grouped queries. In one process, in turn and
several times over; scores are compared. Prints a table of medians and, as the last line, JSON.
"""

import argparse
import copy
import json
import resource
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.tools.analysis import EdgeAttributionConfig, attribution_patch

from benchmarks.shared import interleaved, medians, model_of, prompts_of, random_model, settings, timed
from rcm.circuits.attribution import Attribution, Reader, Writer, attribute, cost
from rcm.execution.metric import Logits, LogOdds
from rcm.models import LoadedModel
from rcm.patching.pairs import Pairs

A, B = 7, 9  # of any two tokens: it is the work that counts
SHAPES = [(4, 4, 64, 12), (6, 8, 128, 20), (6, 8, 128, 40), (12, 8, 128, 20)]  # layers, heads, width, tokens


class Difference:
    """Of two logits."""

    keep = 1

    def of(self, index: Sequence[int]) -> "Difference":
        return self

    def __call__(self, logits: Logits) -> Tensor:
        return logits[..., -1, A] - logits[..., -1, B]


def main() -> None:
    options = parsed()
    found = real(options) if options.model else [shape(options, *one) for one in SHAPES]
    print(json.dumps({"options": vars(options), "found": found}))


def shape(options: argparse.Namespace, layers: int, heads: int, width: int, tokens: int) -> dict[str, Any]:
    """Both ways on a random model."""
    size = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "n_inner": 4 * width}
    model = random_model({"architecture": "gpt2", **size}, "cpu", torch.float32)
    tree = copy.deepcopy(model.hf).requires_grad_(True)  # as TransformerLens needs it, to keep a graph
    bridge = build_bridge_from_module(tree, "GPT2LMHeadModel", hf_config=tree.config)
    bridge.eval()
    clean, corrupt = torch.randint(5, 200, (2, options.pairs, tokens), generator=torch.Generator().manual_seed(0))
    pairs = list(zip(clean.tolist(), corrupt.tolist(), strict=True))
    results: dict[str, Any] = {}

    def ours() -> None:
        results["ours"] = attribute(model, pairs, Difference(), path="corrupt", sign="denoising")

    def theirs() -> None:
        results["theirs"] = attribution_patch(
            bridge,
            clean,
            corrupt,
            lambda logits: logits[0, -1, A] - logits[0, -1, B],
            EdgeAttributionConfig(granularity="edge"),
        )

    ours(), theirs()  # warm
    *_, times = interleaved({"ours": ours, "theirs": theirs}, options.rounds)
    seconds, off = medians(times), error(results["ours"], results["theirs"], model)
    edges = int(results["ours"].connected.sum())
    print(f"{layers:3d} layers, {heads} heads, {width} wide, {options.pairs} pairs of {tokens} tokens, ", end="")
    print(f"{edges:6d} edges: TransformerLens {seconds['theirs']:8.3f} s, ours {seconds['ours']:7.4f} s, ", end="")
    print(f"{seconds['theirs'] / seconds['ours']:6.1f} x; off by {off:.1e} of the largest")
    return {"shape": [layers, heads, width, tokens], "edges": edges, **seconds, "off": off}


def error(ours: Attribution, theirs: Any, model: LoadedModel) -> float:
    """Largest difference of an edge, as a share of the largest edge."""
    wanted = torch.zeros_like(ours.edges)
    writers, readers = ({one: i for i, one in enumerate(some)} for some in (ours.writers, ours.readers))
    for (writer, reader), score in theirs.edge_scores.items():
        kind = {"embed": "embedding", "attn_head_out": "head", "mlp_out": "mlp"}[writer.kind]
        row = writers[Writer(kind, writer.layer or 0, writer.head or 0)]
        match reader.kind:
            case "logits":
                column = readers[Reader("logits", model.n_layers)]
            case "mlp_in":
                column = readers[Reader("mlp", reader.layer)]
            case other:
                column = readers[Reader({"q": "query", "k": "key", "v": "value"}[other[0]], reader.layer, reader.head)]
        wanted[row, column] += score
    return float((ours.edges - wanted).abs().max() / wanted.abs().max())


def real(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Ours on a model and pairs of the project, and what it takes in memory."""
    config = settings(f"model={options.model}", "method=direction")
    prompts = prompts_of(config)
    model = model_of(config, prompts.template, options.device, options.batch_size)
    every = Pairs.of(model, prompts.train, True).tokens
    pairs = [pair for pair in every if len(pair[0]) == len(pair[1])][: options.pairs]
    before, metric = peak(), LogOdds((A, B))
    found = []
    for steps in (1, options.steps):
        seconds, result = timed(lambda steps=steps: attribute(model, pairs, metric, path="midpoint", steps=steps))
        needed = cost(model, pairs, steps)
        print(f"{options.model}, {len(pairs)} pairs, {steps} steps, {int(result.connected.sum())} edges: ", end="")
        print(f"{seconds:.1f} s; edges sum up to nodes but for {result.off_by:.1e}; ", end="")
        print(f"{peak() - before:.2f} GiB above the model's, {needed.bytes / 2**30:.2f} foretold")
        found.append({"steps": steps, "seconds": seconds, "gib": peak() - before, "foretold": needed.bytes / 2**30})
    return found


def peak() -> float:
    """GiB that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="an option of conf/model; the random shapes if not given")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
