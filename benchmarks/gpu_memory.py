"""Whether it fits, a part of benchmarks.gpu: what was counted beside what a device takes.

    pass        bytes of a pass, counted on a skeleton, beside those that it takes; the weights' likewise
    halved      memory for half of a batch only: the same logits, in smaller batches
    spread      half of the layers brought in for each pass, from the host's memory (on a CPU: from the disk): the same
                logits, and how many times as long
    quantised   int8 and nf4 beside the dtype they compute in: rows against the loop, how far logits move, how long

On the CPU, where this is rehearsed, a pass takes what its tensors take, and memory is made to run out by a hook.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.shared import interleaved, medians, random_model
from rcm.execution.batches import find_batch_size, rows_at_once
from rcm.execution.engine import engine_of
from rcm.execution.memory import peak_bytes, peaks, weight_bytes
from rcm.execution.passes import last_logits
from rcm.execution.recording import cache_components
from rcm.models import LoadedModel, Placement
from rcm.models.checkpoint import skeleton
from rcm.models.hub import Folder

ROWS, TOKENS = 8, 128
PROMPTS = [f"Name {n} rivers of the north, and say which of them are cold." for n in range(16)]
UNSET: dict[str, Any] = dict.fromkeys(("family", "stage", "attn_implementation", "adapter", "refusal_tokens"))


def memory(
    shape: str, device: str, dtype: torch.dtype, rounds: int, check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """Figures of each in turn; `check` is asked before each."""
    model = random_model(shape, device, dtype)
    yield {"pass": counted(model)}
    find_batch_size(model, TOKENS)
    yield {"batch": rows_at_once(model)}
    wanted = last_logits(model, PROMPTS)
    check()
    yield {"halved": halved(model, wanted)}
    check()
    yield {"spread": spread(shape, model, wanted, rounds)}
    if find_spec("bitsandbytes") is not None:
        for bits in ("int8", "nf4"):
            check()
            yield {bits: quantised(model, bits, rounds)}


def counted(model: LoadedModel) -> dict[str, float]:
    like = skeleton(model.hf.config).to(model.hf.dtype)
    found: dict[str, float] = {"counted": peak_bytes(like, ROWS, TOKENS), "weights_counted": weight_bytes(like)}
    if model.device.type != "cuda":
        return found | {"taken": max(peaks(model.hf, ROWS, TOKENS).values()), "weights": weight_bytes(model.hf)}
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        model.hf(input_ids=ids, logits_to_keep=1)  # the first time, a GPU makes room for its libraries
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.hf(input_ids=ids, logits_to_keep=1)
    return found | {"taken": torch.cuda.max_memory_allocated() - before, "weights": before}


def halved(model: LoadedModel, wanted: Tensor) -> dict[str, Any]:
    with little_memory(model) as most:
        found = last_logits(model, PROMPTS)
    return {"difference": (found - wanted).abs().max().item(), "largest": wanted.abs().max().item(), "rows": most}


@contextmanager
def little_memory(model: LoadedModel) -> Iterator[list[int]]:
    """Room for a pass over half of the prompts; the sizes of the batches that went through."""
    sizes: list[int] = []

    def seen(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = args[0].shape[0]
        if model.device.type != "cuda" and rows > len(PROMPTS) // 2:
            raise torch.OutOfMemoryError("planted")
        sizes.append(rows)

    hook = model.hf.get_input_embeddings().register_forward_pre_hook(seen)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        of_half = peak_bytes(skeleton(model.hf.config).to(model.hf.dtype), len(PROMPTS) // 2, 24)
        room = (torch.cuda.memory_allocated() + of_half) / torch.cuda.get_device_properties(model.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, room), model.device)
    try:
        yield sizes
    finally:
        hook.remove()
        if model.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, model.device)


def spread(shape: str, whole: LoadedModel, wanted: Tensor, rounds: int) -> dict[str, Any]:
    other = random_model(shape, "cpu", whole.hf.dtype)
    other.hf.load_state_dict(whole.hf.state_dict())
    names = {id(module): name for name, module in other.hf.named_modules()}
    layers = [names[id(layer)] for layer in other.points.layers]
    here, away = (0, "cpu") if whole.device.type == "cuda" else ("cpu", "disk")
    places = dict.fromkeys(leaves(other.hf, layers), here) | dict.fromkeys(layers[: len(layers) // 2], here)
    places |= dict.fromkeys(layers[len(layers) // 2 :], away)
    with TemporaryDirectory() as scratch:
        placed = Placement(whole.device, places, None, Path(scratch)).spread(other.hf)
        model = LoadedModel.of(placed, other.template.tokenizer, "plain")
        found = last_logits(model, PROMPTS)
        *_, times = interleaved(
            {"whole": lambda: last_logits(whole, PROMPTS), "spread": lambda: last_logits(model, PROMPTS)}, rounds
        )
        of = medians(times)
        return {
            "difference": (found - wanted).abs().max().item(),
            "largest": wanted.abs().max().item(),
            "times_as_long": of["spread"] / of["whole"],
        }


def leaves(hf: nn.Module, layers: list[str]) -> list[str]:
    """What has tensors of its own and lies in no layer."""
    inside = tuple(f"{layer}." for layer in layers)
    own = (name for name, one in hf.named_modules() if [*one.parameters(False), *one.buffers(False)])
    return [name for name in own if not name.startswith(inside)]


def quantised(model: LoadedModel, bits: str, rounds: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        model.hf.save_pretrained(folder)
        model.template.tokenizer.save_pretrained(folder)
        dtype = str(model.hf.dtype).removeprefix("torch.")
        few = Folder(path=folder, dtype=dtype, quantization=bits, **UNSET).load(model.device, "plain", None)
        tokens = [few.template.tokens(prompt) for prompt in PROMPTS[:4]]
        base, source = (cache_components(few, rows) for rows in (tokens, tokens[::-1]))
        engine = engine_of(few, base, source, 0)
        moved = np.abs((last_logits(few, PROMPTS) - last_logits(model, PROMPTS)).numpy())
        *_, times = interleaved(
            {"whole": lambda: last_logits(model, PROMPTS), bits: lambda: last_logits(few, PROMPTS)}, rounds
        )
        of = medians(times)
        return {
            "engine": {"path": engine.path, "reason": engine.reason, "error": engine.error},
            "logits_moved": float(moved.max()),
            "weights": weight_bytes(few.hf),
            "times_as_long": of[bits] / of["whole"],
        }
