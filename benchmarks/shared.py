"""What the benchmarks share: models from options and from shapes, and timings side by side."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM

from rcm.models import LoadedModel
from rcm.models.random import Random
from rcm.packaged import CONF
from rcm.prompts import Split

T = TypeVar("T")
Seconds = dict[str, list[float]]

SHAPES: dict[str, dict[str, Any]] = {
    "pythia-410m": {
        "architecture": "gpt_neox",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "vocab_size": 50304,
    },
    "llama-7b": {  # Llama 2
        "architecture": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    },
    "llama-8b": {  # Llama 3, whose heads share keys and values
        "architecture": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
}
TINY = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 512}
SHAPES |= {  # the same architectures, to rehearse on a CPU
    "tiny-pythia-410m": SHAPES["pythia-410m"] | TINY | {"num_hidden_layers": 3},
    "tiny-llama-7b": SHAPES["llama-7b"] | TINY | {"num_hidden_layers": 4, "num_key_value_heads": 4},
}


def settings(*overrides: str) -> DictConfig:
    """The config that `python launch.py OVERRIDES` would run with."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def prompts_of(config: DictConfig) -> Split:
    """The prompts that a config names."""
    return instantiate(OmegaConf.to_container(config["dataset"]), _convert_="all").load()


def model_of(
    config: DictConfig, template: str, device: str, batch_size: int = 32, dtype: str | None = None
) -> LoadedModel:
    """The model that a config names, in its own type of number or another."""
    chosen = instantiate(OmegaConf.to_container(config["model"]), _convert_="all")
    # A copy is not checked, and so may be float16, which no run offers.
    return chosen.model_copy(update={"dtype": dtype or chosen.dtype}).load(torch.device(device), template, batch_size)


def random_model(shape: str | Mapping[str, Any], device: str, dtype: torch.dtype) -> LoadedModel:
    """Random weights of a shape, by its name or as it is, drawn on the device: on a CPU, those of a 7B model would take
    minutes."""
    size = dict(SHAPES[shape] if isinstance(shape, str) else shape)
    chosen = Random(
        architecture=size.pop("architecture"),
        size=size,
        seed=0,
        family="random",
        stage="base",
        dtype="float32",  # of what it would load itself; ours is below, and may be float16
        quantization=None,
        attn_implementation=None,
        adapter=None,
        refusal_tokens=None,
    )
    torch.manual_seed(chosen.seed)
    with torch.device(device), torch.no_grad():
        hf = AutoModelForCausalLM.from_config(chosen.config(), dtype=dtype)
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)  # as they come, every token attends to all alike, and nothing matters
    return LoadedModel.of(hf, chosen.tokenizer(), "plain", identity={"name": str(shape)})


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, with the device's queue empty before and after; and what the work returns."""
    settle()
    start = time.perf_counter()
    result = work()
    settle()
    return time.perf_counter() - start, result


def settle() -> None:
    """Wait until the GPU has done all that it was told; what is timed without this is only the telling."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    rounds: int,
    left: Callable[[], float] = lambda: float("inf"),
    before: Callable[[], None] = lambda: None,
) -> Iterator[Seconds]:
    """Seconds of each work so far, after every round; every other round goes backwards, so that drift hits all alike.

    `left` says how many seconds there still are: a round that is not likely to fit into them is not begun, the first
    excepted. `before` is done before each work, untimed. Warming up is the caller's.
    """
    seconds: Seconds = {name: [] for name in works}
    for number in range(rounds):
        if number and left() < max(map(sum, zip(*seconds.values(), strict=True))):
            return
        for name in list(works)[:: -1 if number % 2 else 1]:
            before()
            seconds[name].append(timed(works[name])[0])
        yield seconds


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}
