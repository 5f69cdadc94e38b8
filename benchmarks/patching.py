"""How long exact patching of every component takes: rows in one pass, beside one forward pass for each component.

    python benchmarks/patching.py                               # the embedded model, one pair, heads
    python benchmarks/patching.py --pairs 32 --kinds all
    python benchmarks/patching.py --shape pythia-410m --pairs 32 --dtype bfloat16 --device cuda
    python benchmarks/patching.py --shape llama-7b --pairs 4 --dtype bfloat16 --device cuda

In one process, in turn: TransformerLens' own loop, a bare loop of hooks on the Hugging Face model, ours, and one plain
forward pass over as many tokens as ours has rows. The loops run on a sample of the components and are scaled up. The
logits of all of them are compared. Prints a table and, as the last line, JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from rcm import identity  # noqa: F401 (registers the resolver that the config names its directory with)
from rcm.models import LoadedModel
from rcm.patching import KINDS, Component, Recording, Rows, loop, record, rows

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
    length = options.length
    draw = torch.Generator().manual_seed(0)
    vocabulary = model.hf.config.vocab_size
    base_ids, source_ids = torch.randint(10, vocabulary, (2, options.pairs, length), generator=draw).tolist()
    kinds = KINDS if options.kinds == "all" else ("head",)
    base, source = record(model, base_ids), record(model, source_ids)
    components = base.shape.components(kinds)
    patches = Rows.each(kinds, base.shape)
    sample = torch.linspace(0, len(patches) - 1, options.sample).long().unique()
    scale = len(patches) / len(sample)
    at_once = max(1, options.tokens // options.pairs)
    order = patches.first_layer.argsort(stable=True)

    def ours() -> Tensor:
        """Two recordings and the rows: all that a user waits for. Logits of a chunk are read and dropped."""
        ours_base, ours_source = record(model, base_ids), record(model, source_ids)
        donors = [ours_base.at(-1), ours_source.at(-1)]
        figures = torch.empty(options.pairs, len(patches), 2)
        for chosen in order.split(at_once):
            logits = rows.patched_logits(model, ours_base, donors, patches[chosen])[:, :, 0]
            figures[:, chosen] = torch.stack([logits[..., 5] - logits[..., 7], logits.logsumexp(-1)], -1).float().cpu()
        return figures

    def hooks() -> Tensor:
        logits = loop.patched_logits(model, base, [base.at(-1), source.at(-1)], patches[sample])[:, :, 0]
        return torch.stack([logits[..., 5] - logits[..., 7], logits.logsumexp(-1)], -1).cpu()

    @torch.inference_mode()
    def plain() -> Tensor:
        """As many tokens as there are rows, in prompts of the same length."""
        n = max(1, len(patches) * options.pairs // length)
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
    report(options, len(patches), seconds, error)


def theirs(model: LoadedModel, base: Recording, source: Recording, cells: list[Component]) -> Tensor:
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


def report(options: argparse.Namespace, cells: int, seconds: dict[str, float], error: float) -> None:
    print(f"{options.shape or 'smollm2-135m'}, {options.dtype}, {options.device}: {cells} components of ", end="")
    print(f"{options.pairs} pairs of {options.length} tokens; loops on {options.sample} components, scaled up")
    for name, value in seconds.items():
        print(f"  {name:32s} {value:9.3f} s   {value / seconds['rows']:8.2f} x rows")
    print(f"  largest difference to the hook loop: {error:.1e}")
    print(json.dumps({"options": vars(options), "components": cells, "seconds": seconds, "error": error}))


def loaded(options: argparse.Namespace) -> LoadedModel:
    """The embedded model, or random weights of a shape."""
    name = "random" if options.shape else "smollm2-135m"
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        settings = OmegaConf.to_container(compose("config", overrides=[f"model={name}"])["model"])
    if options.shape:
        size = dict(SHAPES[options.shape])
        settings |= {"architecture": size.pop("architecture"), "size": size}
    settings |= {"dtype": options.dtype}
    model = instantiate(settings, _convert_="all").load(torch.device(options.device), "plain", 32)
    if options.shape:
        with torch.inference_mode():  # as they come, every token attends to all alike, and nothing matters
            for parameter in model.hf.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2)
    return model


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape, in place of the embedded model")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--length", type=int, default=37, help="tokens of a prompt")
    parser.add_argument("--kinds", choices=("heads", "all"), default="heads")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=1024, help="rows times pairs of one pass")
    parser.add_argument("--sample", type=int, default=18, help="components that the loops run on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-transformer-lens", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
