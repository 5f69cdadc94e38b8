"""How long choosing the refusal direction takes: ours, beside the published procedure written down plainly.

    python -m benchmarks.selection --positions 1 --prompts 8            # both whole, so that the choices are compared
    python -m benchmarks.selection --plain 12                           # plain on 12 candidates, scaled up to all
    python -m benchmarks.selection --plain 12 --exhaustive
    python -m benchmarks.selection --model qwen2.5-0.5b-instruct --device cuda --batch-size 128 --plain 12

Plain is Arditi et al. 2024, appendix C: for every position and layer three sweeps over the validation prompts, whole,
padded on the left, in batches, with hooks at every block's input, attention and MLP. Both get the same candidates and
prompts, in one process, in turn and several times over. Figures that both have are compared. Prints a table of medians
and, as the last line, JSON.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shared import interleaved, medians, model_of, prompts_of, settings
from rcm.directions.causal import Cell, Scorer, Scores, Search
from rcm.directions.refusal_tokens import refusal_openings
from rcm.directions.selection import select
from rcm.execution.passes import first_token, last_logits, mean_probabilities, read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Split, texts
from rcm.stats.metrics import kl_divergence, refusal_log_odds

FIGURES = ("bypass", "induce", "kl")


def main() -> None:
    options = parsed()
    limits, model, prompts = loaded(options)
    scorer, vectors = candidates(model, prompts, options)
    shape = vectors.shape[:2]
    cells = list(np.ndindex(*shape))
    sample = [cells[i] for i in np.linspace(0, len(cells) - 1, options.plain or len(cells)).round().astype(int)]
    ours, theirs = Scores.unknown(shape), Scores.unknown(shape)

    def search() -> None:
        nonlocal ours
        anew = Search(scorer, vectors, **limits)
        ours = anew.all() if options.exhaustive else anew.enough()

    *_, times = interleaved({"plain": lambda: plain(scorer, vectors, sample, theirs), "ours": search}, options.rounds)
    seconds, ours_seconds = medians(times)["plain"] * len(cells) / len(sample), medians(times)["ours"]

    positions, layers = shape
    print(f"{options.model}, {model.hf.dtype}, {options.device}, {torch.get_num_threads()} threads: ", end="")
    print(f"{positions} positions x {layers} layers, {len(scorer.harmful.prompts)} harmful and ", end="")
    print(
        f"{len(scorer.harmless.prompts)} harmless prompts, batches of {options.batch_size}; medians of {options.rounds}"
    )
    print(f"  plain, on {len(sample)} of {len(cells)} candidates, scaled up  {seconds:9.1f} s")
    print(f"  ours, {'exhaustive' if options.exhaustive else 'what can matter':42s}{ours_seconds:9.1f} s", end="")
    print(f"   {seconds / ours_seconds:.2f} x faster")
    differences = {name: float(np.nanmax(abs(getattr(ours, name) - getattr(theirs, name)))) for name in FIGURES}
    print("  largest difference of a figure: " + ", ".join(f"{name} {d:.1e}" for name, d in differences.items()))
    chosen = select(ours.bypass, ours.induce, ours.kl, **limits)
    place = (chosen.best.position, chosen.best.layer) if chosen.best else (None, None)
    print(f"  chosen: position {place[0]}, layer {place[1]}; {chosen.survivors} survivors scored", end="")
    if len(sample) == len(cells):
        plainly = select(theirs.bypass, theirs.induce, theirs.kl, **limits)
        assert plainly.best is None or place == (plainly.best.position, plainly.best.layer), plainly
        print(", and plain chooses the same", end="")
    figures = {"plain": seconds, "ours": ours_seconds, "ratio": seconds / ours_seconds, "differences": differences}
    print("\n" + json.dumps({"options": vars(options), **figures, "position": place[0], "layer": place[1]}))


@torch.inference_mode()
def plain(scorer: Scorer, vectors: Tensor, cells: Sequence[Cell], scores: Scores) -> None:
    """Bypass, induce and KL of some candidates."""
    model, tokens, blocks = scorer.model, scorer.refusal_tokens, scorer.model.hf.model.layers
    before = last_logits(model, scorer.harmless).to(model.device)
    for cell in cells:
        vector = vectors[cell].to(model.device, model.hf.dtype)
        unit = vector / (vector.norm() + 1e-8)

        def ablated(x: Tensor, unit: Tensor = unit) -> Tensor:
            return x - (x @ unit)[..., None] * unit

        def added(x: Tensor, vector: Tensor = vector) -> Tensor:
            return x + vector

        ablation = [hook for block in blocks for hook in everywhere(block, ablated)]
        scores.bypass[cell] = refusal_log_odds(sweep(model, scorer.harmful, ablation), tokens).mean()
        addition = [(blocks[cell[1]], "input", added)]
        scores.induce[cell] = refusal_log_odds(sweep(model, scorer.harmless, addition), tokens).mean()
        scores.kl[cell] = kl_divergence(before, sweep(model, scorer.harmless, ablation)).mean()


def everywhere(block: nn.Module, edit: Callable[[Tensor], Tensor]) -> list[tuple[nn.Module, str, Any]]:
    return [(block, "input", edit), (block.self_attn, "output", edit), (block.mlp, "output", edit)]


def sweep(model: LoadedModel, prompts: Sequence[str], hooks: Sequence[tuple[nn.Module, str, Any]]) -> Tensor:
    """Logits at the last token of every prompt."""
    handles = [hooked(module, side, edit) for module, side, edit in hooks]
    logits = []
    for start in range(0, len(prompts), model.batch_size):
        batch = model.template.batch(prompts[start : start + model.batch_size], model.device)
        output = model.hf(**batch._asdict(), position_ids=batch.position_ids, use_cache=False, logits_to_keep=1)
        logits.append(output.logits[:, -1].float())
    for handle in handles:
        handle.remove()
    return torch.cat(logits)


def hooked(module: nn.Module, side: str, edit: Callable[[Tensor], Tensor]) -> torch.utils.hooks.RemovableHandle:
    if side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: (edit(inputs[0]), *inputs[1:]))
    return module.register_forward_hook(
        lambda _, __, output: (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)
    )


def candidates(model: LoadedModel, prompts: Split, options: argparse.Namespace) -> tuple[Scorer, Tensor]:
    """Mean differences, and validation prompts that the model treats as labelled: all that both start from."""
    available = len(model.template.end_of_instruction)
    positions = list(range(-min(options.positions or available, available), 0))

    harmful, harmless = (read_residuals(model, texts(side), positions, "prompts").residuals for side in prompts.train)
    vectors = harmful.double().mean(0) - harmless.double().mean(0)
    vectors[vectors.norm(dim=-1) < 1e-6] = 0  # the template's own embeddings, but for rounding
    openings = refusal_openings(*(mean_probabilities(model, texts(side), "tokens") for side in prompts.train))
    tokens = tuple(opening.token for opening in openings)
    agreeing = []
    for side, sign in zip(prompts.validation, (1, -1), strict=True):
        asked = texts(side)[: 2 * options.prompts]
        odds = first_token(model, asked, lambda logits, _: refusal_log_odds(logits, tokens))
        agreeing.append([one for one, of in zip(asked, sign * odds, strict=True) if of > 0][: options.prompts])
    return Scorer(model, *agreeing, tokens), vectors.float()


def loaded(options: argparse.Namespace) -> tuple[dict[str, float], LoadedModel, Split]:
    """What a candidate must keep to, the model and the prompts."""
    overrides = [f"model={options.model}", "method=direction", f"dataset.train={options.train}"]
    if options.max_kl is not None:
        overrides.append(f"method.direction.max_kl={options.max_kl}")
    config = settings(*overrides)
    limits = {name: float(config.method.direction[name]) for name in ("max_kl", "min_induce", "max_depth")}
    prompts = prompts_of(config)
    return limits, model_of(config, prompts.template, options.device, options.batch_size), prompts


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal", help="an option of conf/model with Llama's modules")
    parser.add_argument(
        "--positions", type=int, help="how many, from the last on; all end-of-instruction tokens if not given"
    )
    parser.add_argument("--train", type=int, default=96, help="pairs that the candidates are made of")
    parser.add_argument("--prompts", type=int, default=32, help="validation prompts of each class")
    parser.add_argument("--plain", type=int, help="candidates that plain runs on; all if not given")
    parser.add_argument("--exhaustive", action="store_true", help="ours computes every figure too")
    parser.add_argument("--max-kl", type=float, help="in place of conf/method/direction.yaml's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
