"""How long exact patching of every component takes: rows in one pass, beside one forward pass for each component.

    python benchmarks/patching.py                               # the embedded tuned model, one pair, heads
    python benchmarks/patching.py --count 32 --kinds all
    python benchmarks/patching.py --model gpt2 --pairs X.json --json FILE
    python benchmarks/patching.py --shape pythia-410m --count 32 --dtype bfloat16 --device cuda
    python benchmarks/patching.py --shape llama-7b --count 4 --dtype bfloat16 --device cuda

In one process, in turn: TransformerLens' own loop, a bare loop of hooks on the Hugging Face model, ours, and one plain
forward pass over as many tokens as ours has rows. All prompts have one length, so that the loops, too, can take them as
one batch. The loops run on a sample of the components and are scaled up; logits are compared. Prints a table.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rcm.execution import loop, rows
from rcm.execution.components import COMPONENT_KINDS, Component, Rows
from rcm.execution.recording import ComponentCache, cache_components
from rcm.models import LoadedModel
from rcm.record import identity  # noqa: F401 (registers the resolver that the config names its directory with)

SHAPES = {
    "pythia-410m": {
        "architecture": "gpt_neox",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "vocab_size": 50304,
    },
    "llama-7b": {
        "architecture": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
}
ACTIVATIONS = {
    "head": "z",
    "attention": "attn_out",
    "mlp": "mlp_out",
    "residual": "resid_pre",
}  # TransformerLens' names


def main() -> None:
    options = parsed()
    model = loaded(options)
    draw = torch.Generator().manual_seed(0)
    vocabulary, count = model.hf.config.vocab_size, options.count
    base_ids, source_ids = (
        torch.randint(10, vocabulary, (2, count, options.length), generator=draw).tolist()
        if options.shape
        else pairs(options, model)
    )
    length = len(base_ids[0])
    kinds = COMPONENT_KINDS if options.kinds == "all" else ("head",)
    base, source = cache_components(model, base_ids), cache_components(model, source_ids)
    components = base.shape.components(kinds)
    patches = Rows.each(kinds, base.shape)
    sample = torch.linspace(0, len(patches) - 1, options.sample).long().unique()
    scale = len(patches) / len(sample)
    at_once = max(1, options.tokens // count)
    order = patches.first_layer.argsort(stable=True)

    def ours() -> Tensor:
        """Recordings and rows: all that a user waits for. Logits of a chunk are read and dropped."""
        both = cache_components(model, base_ids + source_ids)
        donors = [both[:count].at(-1), both[count:].at(-1)]
        figures = torch.empty(count, len(patches), 2)
        for chosen in order.split(at_once):
            logits = rows.patched_logits(model, both[:count], donors, patches[chosen])[:, :, 0]
            figures[:, chosen] = torch.stack([logits[..., 5] - logits[..., 7], logits.logsumexp(-1)], -1).float().cpu()
        return figures

    def hooks() -> Tensor:
        logits = loop.patched_logits(model, base, [base.at(-1), source.at(-1)], patches[sample])[:, :, 0]
        return torch.stack([logits[..., 5] - logits[..., 7], logits.logsumexp(-1)], -1).cpu()

    @torch.inference_mode()
    def plain() -> Tensor:
        """As many tokens as there are rows, in prompts of the same length."""
        n = max(1, len(patches) * count // length)
        ids = torch.randint(10, vocabulary, (n, length), generator=draw).to(model.device)
        return torch.cat([model.hf(part, use_cache=False).logits[:, -1] for part in ids.split(at_once // length + 1)])

    @torch.inference_mode()
    def transformer_lens() -> Tensor:
        return theirs(model, base, source, [components[i] for i in sample])

    ours()  # warm
    seconds = {"rows": timed(ours, options.repeats)}
    seconds["plain forward, as many tokens"] = timed(plain, options.repeats)
    seconds["hook loop"] = timed(hooks, 1) * scale
    error = (ours()[:, sample] - hooks()).abs().max().item()
    if not options.no_transformer_lens:
        model.bridge  # noqa: B018 (boots it)
        seconds["TransformerLens loop"] = timed(transformer_lens, 1) * scale
    report(options, len(patches), length, seconds, error)


def theirs(model: LoadedModel, base: ComponentCache, source: ComponentCache, cells: list[Component]) -> Tensor:
    """TransformerLens' generic_activation_patch over the same cells, at the last token."""
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.utilities import get_act_name

    position, figures = base.batch.input_ids.shape[1] - 1, []
    needed = {get_act_name(ACTIVATIONS[cell.kind], cell.layer) for cell in cells}
    _, cache = model.bridge.run_with_cache(source.batch.input_ids, names_filter=needed.__contains__)
    for kind in dict.fromkeys(cell.kind for cell in cells):
        index = [(cell.layer, position, cell.head) for cell in cells if cell.kind == kind]
        frame = pd.DataFrame(index, columns=["layer", "pos", "head"])
        heads = kind == "head"
        figures.append(
            patching.generic_activation_patch(
                model.bridge,
                base.batch.input_ids,
                cache,
                lambda logits: (logits[:, -1, 5] - logits[:, -1, 7]).float().mean(),
                patching.layer_pos_head_vector_patch_setter if heads else patching.layer_pos_patch_setter,
                ACTIVATIONS[kind],
                index_df=frame if heads else frame[["layer", "pos"]],
            )
        )
    return torch.cat([figure.flatten().cpu() for figure in figures])


def timed(work: Callable[[], Tensor], repeats: int) -> float:
    """Seconds of the fastest of some runs, the device's queue emptied before and after."""
    fastest = float("inf")
    for _ in range(repeats):
        settle()
        start = time.perf_counter()
        work()
        settle()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def report(options: argparse.Namespace, cells: int, length: int, seconds: dict[str, float], error: float) -> None:
    print(f"{options.shape or options.model}, {options.dtype or 'its dtype'}, {options.device}: {cells} components of ")
    print(f"{options.count} pairs of {length} tokens; loops on {options.sample} components, scaled up")
    for name, value in seconds.items():
        print(f"  {name:32s} {value:9.3f} s   {value / seconds['rows']:8.2f} x rows")
    print(f"  largest difference to the hook loop: {error:.1e}")
    if options.json:
        figures = {"options": vars(options), "components": cells, "seconds": seconds, "error": error}
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")


def pairs(options: argparse.Namespace, model: LoadedModel) -> list[list[list[int]]]:
    """Harmful and harmless prompts as tokens, all of the commonest length."""
    chosen = ["dataset=file", f"dataset.path={options.pairs}"] if options.pairs else ["dataset=pairs"]
    split = instantiate(settings(chosen)["dataset"], _convert_="all").load()
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


def settings(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        return compose("config", overrides=overrides)


def loaded(options: argparse.Namespace) -> LoadedModel:
    """A model by the name of its option, or random weights of a shape."""
    chosen = OmegaConf.to_container(settings([f"model={'random' if options.shape else options.model}"])["model"])
    if options.shape:
        size = dict(SHAPES[options.shape])
        chosen |= {"architecture": size.pop("architecture"), "size": size}
    if options.dtype:
        chosen |= {"dtype": options.dtype}
    model = instantiate(chosen, _convert_="all").load(
        torch.device(options.device), "plain" if options.shape else "chat", 32
    )
    if options.shape:
        with torch.inference_mode():  # as they come, every token attends to all alike, and nothing matters
            for parameter in model.hf.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2)
    return model


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal", help="an option of conf/model")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape and random tokens, in its place")
    parser.add_argument("--pairs", help="a JSON file of prompts as dataset=file reads it, in place of our own pairs")
    parser.add_argument("--count", type=int, default=1, help="pairs")
    parser.add_argument("--length", type=int, default=37, help="random tokens of a prompt")
    parser.add_argument("--kinds", choices=("heads", "all"), default="heads")
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
