"""Batches that are halved where memory runs out, planted and real; and sizes that are found from what is free."""

import logging
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rcm.circuits.ablation import Ablation, ablate, nodes_of
from rcm.circuits.attribution import attribute
from rcm.circuits.neurons import attribute_neurons, universal
from rcm.execution import batches
from rcm.execution.batches import at_most, find_batch_size, in_batches, is_out_of_memory, rows_at_once
from rcm.execution.components import COMPONENT_KINDS, Rows
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import Engine, engine_of
from rcm.execution.first_token import ablated, added
from rcm.execution.interventions import Add
from rcm.execution.likelihood import Text, cross_entropies, kl_divergences
from rcm.execution.memory import peak_bytes
from rcm.execution.metric import LogOdds
from rcm.execution.passes import first_token, last_logits, mean_probabilities, read_residuals
from rcm.execution.recording import cache_components, shape_of
from rcm.execution.self_checks import self_checks
from rcm.models import LoadedModel
from rcm.patching import interchange, written_shares
from tests.conftest import Tiny, tiny_model

PROMPTS = [f"Count {'on ' * (i % 5)}to {i}" for i in range(12)]
VECTORS = 3 * torch.nn.functional.normalize(torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), dim=1)
METRIC = LogOdds((70, 71))


def tokens(seed: int, length: int) -> list[int]:
    return [1, *np.random.default_rng(seed).integers(3, 259, size=length - 1).tolist()]


PAIRS = [(tokens(i, 12), tokens(i + 100, 12)) for i in range(8)]


def odds(logits: Tensor, _: Any) -> Tensor:
    return logits[:, 70] - logits[:, 71]


def rows_of_vectors(model: LoadedModel) -> Add:
    return Add(1, VECTORS.repeat(len(PROMPTS) // len(VECTORS), 1))


def texts(model: LoadedModel) -> list[Text]:
    return [Text((*model.template.tokens(prompt), 70, 71, 72), 3) for prompt in PROMPTS]


def conditions(model: LoadedModel) -> Add:
    return Add(1, torch.tensor([0.0, 1.0, -1.0]).repeat(len(PROMPTS))[:, None] * VECTORS[:1])


def replies(model: LoadedModel) -> Tensor:
    said = reply_tokens(model, PROMPTS, 4, [rows_of_vectors(model)])
    return torch.tensor([[*row, *[-1] * (4 - len(row))] for row in said])


def exchanged(path: Any) -> Callable[[LoadedModel], Tensor]:
    def measured(model: LoadedModel) -> Tensor:
        engine = Engine(model, path, "", 0.0)
        return interchange(engine, PAIRS[:4], Rows.each(COMPONENT_KINDS, engine.shape), METRIC).shares

    return measured


def ablated_nodes(model: LoadedModel) -> Tensor:
    shape = shape_of(model)
    masks = np.random.default_rng(0).random((9, len(nodes_of(shape)))) < 0.5
    ablation = Ablation("mean", model, PAIRS)
    return torch.from_numpy(ablate(Engine(model, "rows", "", 0.0), PAIRS, masks, METRIC, ablation, "test"))


def attributed(model: LoadedModel) -> Tensor:
    found = attribute(model, PAIRS, METRIC, steps=2)
    return torch.cat([found.nodes.flatten(), found.edges.flatten()])


MEASURES: dict[str, Callable[[LoadedModel], Tensor]] = {
    "logits": lambda model: last_logits(model, PROMPTS),
    "probabilities": lambda model: mean_probabilities(model, PROMPTS, "test"),
    "residuals": lambda model: read_residuals(model, PROMPTS, [-1, -2], "test").residuals,
    "figures": lambda model: first_token(model, PROMPTS, odds),
    "replies": replies,
    "KL": lambda model: kl_divergences(model, texts(model), 3, [conditions(model)]),
    "loss": lambda model: cross_entropies(model, texts(model), 3, [conditions(model)]),
    "added": lambda model: added(model, PROMPTS, VECTORS, [0, 1, 1, 2, 2, 0], odds, "test"),
    "ablated": lambda model: torch.stack(list(ablated(model, PROMPTS, VECTORS / 3, odds))),
    "patching by rows": exchanged("rows"),
    "patching by loop": exchanged("loop"),
    "ablation": ablated_nodes,
    "contributions": lambda model: written_shares(model, PAIRS, VECTORS[0], 2, -1).nan_to_num(),
    "attribution": attributed,
    "neurons": lambda model: attribute_neurons(model, PAIRS, METRIC).scores,
    "universal neurons": lambda model: torch.from_numpy(universal(model, [a for a, _ in PAIRS])).int(),
}


class Memory:
    """That holds so many tokens at the last MLP; counts the most that were there, and how often it ran out."""

    def __init__(self) -> None:
        self.room, self.most, self.ran_out = sys.maxsize, 0, 0

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        here = output.numel() // output.shape[-1]
        if here > self.room:
            self.ran_out += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 is full.")
        self.most = max(self.most, here)


@contextmanager
def planted(model: LoadedModel) -> Iterator[Memory]:
    memory = Memory()
    hook = model.points.mlp_out[-1].register_forward_hook(memory)
    try:
        yield memory
    finally:
        hook.remove()


def hooks(model: LoadedModel) -> list[int]:
    return [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.hf.modules()]


@pytest.mark.parametrize("name", MEASURES)
def test_half_the_room_gives_the_same(tiny: Tiny, name: str, caplog: pytest.LogCaptureFixture) -> None:
    model, measure = tiny(batch_size=16), MEASURES[name]
    with planted(model) as memory:
        wanted = measure(model)
        before = hooks(model)
        caplog.clear()
        memory.room, memory.most = int(0.6 * memory.most), 0
        got = measure(model)
        assert memory.ran_out, "or nothing was tried"
        assert memory.most > 0.3 * memory.room, "no smaller than needed"
        assert hooks(model) == before
        kinds = [" ".join(line.partition(" at once")[0].split()[5:]) for line in caplog.messages]
        assert kinds
        assert kinds == list(dict.fromkeys(kinds)), "each is told once"
        memory.ran_out = 0
        again = measure(model)
    assert not memory.ran_out, "the size is kept"
    assert torch.equal(got, again)
    assert wanted.double().std() > 0 or name == "universal neurons"
    assert (got - wanted).double().abs().max() <= 1e-5 * max(1.0, wanted.double().abs().max().item())


def test_without_room_for_one_there_is_a_cure(tiny: Tiny, sentence: Callable[[Callable[[], object]], str]) -> None:
    model = tiny()
    last_logits(model, PROMPTS)
    engine = Engine(model, "rows", "", 0.0)
    with planted(model) as memory:
        memory.room = 0
        said = sentence(lambda: last_logits(model, PROMPTS))
        nested = sentence(lambda: interchange(engine, PAIRS, Rows.identity(engine.shape), METRIC))
    assert said.startswith("Out of memory with one of the prompts alone (CUDA out of memory); ")
    assert "one of the pairs alone" in nested
    assert "device.map=auto" in said
    assert "model.dtype=bfloat16" in said


def test_that_memory_ran_out_is_no_verdict_on_a_model(tiny: Tiny) -> None:
    """Whose rows would be taken for wrong, and patched by the slow loop."""
    model = tiny()
    base = cache_components(model, [a for a, _ in PAIRS[:2]])
    with planted(model) as memory:
        memory.room = 5
        with pytest.raises(torch.OutOfMemoryError):
            engine_of(model, base, base, seed=0)


# The loop itself


def failing(most: int, error: Exception, seen: list[list[int]]) -> Callable[[list[int]], list[int]]:
    def work(part: list[int]) -> list[int]:
        seen.append(part)
        if len(part) > most:
            raise error
        return [10 * one for one in part]

    return work


FULL = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let go must not need it, and it takes half a second."""
    monkeypatch.setattr(batches, "clear_device_cache", lambda **_: None)


ERRORS = [
    RuntimeError(FULL),
    MemoryError(),
    torch.OutOfMemoryError("no room"),
    RuntimeError("HIP out of memory. x"),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.usefixtures("no_collection")
def test_nothing_is_lost_or_done_twice(tiny: Tiny, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    model, seen = tiny(), list[list[int]]()
    made = list(in_batches(model, range(11), 8, failing(3, error, seen), "things"))
    assert [one for part, _ in made for one in part] == list(range(11))
    assert [one for _, result in made for one in result] == [10 * one for one in range(11)]
    assert [len(part) for part in seen] == [8, 4, 2, 2, 2, 2, 2, 1]
    assert caplog.messages == ["Out of memory with 8 things at once: from now on 2."]
    seen.clear()
    list(in_batches(model, range(8), 16, failing(3, error, seen), "things"))
    assert [len(part) for part in seen] == [4, 2, 2, 2, 2]  # of these, twice as many made up a batch
    seen.clear()
    list(in_batches(model, range(8), 8, failing(8, error, seen), "others"))
    assert [len(part) for part in seen] == [8]


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory."), KeyError("x")])
def test_another_error_is_not_swallowed(tiny: Tiny, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[list[int]] = []
    with pytest.raises(type(error)) as caught:
        list(in_batches(tiny(), range(8), 8, failing(3, error, seen), "things"))
    assert caught.value is error
    assert len(seen) == 1
    assert not caplog.messages


@pytest.mark.usefixtures("no_collection")
def test_of_batches_in_batches_the_outer_are_halved_when_the_inner_cannot_be(tiny: Tiny) -> None:
    model, sizes = tiny(), list[tuple[int, int]]()

    def outer(some: list[int]) -> list[int]:
        def inner(others: list[int]) -> int:
            sizes.append((len(some), len(others)))
            if len(some) * len(others) > 2:
                raise RuntimeError(FULL)
            return sum(some) * sum(others)

        return [result for _, result in in_batches(model, range(4), 4, inner, "inner")]

    made = [result for _, results in in_batches(model, range(8), 8, outer, "outer") for result in results]
    assert sum(made) == sum(range(8)) * sum(range(4))
    assert sizes[:5] == [(8, 4), (8, 2), (8, 1), (4, 1), (2, 1)]
    assert all(a * b <= 2 for a, b in sizes[4:])


def test_only_neighbours_that_are_alike_go_together(tiny: Tiny) -> None:
    made = in_batches(tiny(), [1, 1, 1, 2, 2, 1], 2, tuple, "things", alike=lambda one: one)
    assert [part for _, part in made] == [(1, 1), (1,), (2, 2), (1,)]


@pytest.mark.usefixtures("no_collection")
def test_what_a_batch_held_is_let_go_before_it_is_tried_again(tiny: Tiny) -> None:
    held: list[weakref.ref[Tensor]] = []

    def work(part: list[int]) -> int:
        assert not [one for one in held if one() is not None]
        large = torch.zeros(len(part))
        held.append(weakref.ref(large))
        if len(part) > 1:
            raise RuntimeError(FULL)
        return len(part)

    assert sum(result for _, result in in_batches(tiny(), range(4), 4, work, "things")) == 4


# Sizes


def test_as_many_as_there_is_room_for(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    row = peak_bytes(tiny("qwen2").hf, 1, 100)
    for free, rows, longer in ((1000, 32, 256), (100, 32, 50), (49, 24, 24), (1, 1, 1), (0, 1, 1)):
        model = tiny("qwen2", batch_size=None)
        assert rows_at_once(model) == 32  # as long as nobody has looked
        monkeypatch.setattr(batches, "free_bytes", lambda device, free=free: free * row)
        find_batch_size(model, 100)
        assert (rows_at_once(model), rows_at_once(model, longer=8)) == (rows, longer)
        assert at_most(model, 2 * row) == max(1, free // 4)
    told = [line for line in caplog.messages if line.startswith("Batches")]
    assert told[2] == (
        f"Batches of 24 prompts: a row of 100 tokens takes {row / 1e6:.3g} MB, {49 * row / 1e9:.3g} GB are free"
    )


def test_a_size_that_was_set_is_kept(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "free_bytes", lambda device: 1)
    model = tiny(batch_size=40)
    find_batch_size(model, 100)
    assert (rows_at_once(model), rows_at_once(model, longer=8), at_most(model, 10**9)) == (40, 320, float("inf"))


def test_a_skeleton_that_cannot_be_run_is_counted_on_the_weights(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(batch_size=None)
    find_batch_size(model, 50)
    row = batches._room(model).row

    def cannot(config: Any) -> Any:
        raise RuntimeError("depends on values")

    monkeypatch.setattr(batches, "skeleton", cannot)
    find_batch_size(model, 50)
    assert batches._room(model).row == row


LIMITED = """
import logging, resource
logging.basicConfig(level=logging.WARNING, format="%(message)s")
import psutil, torch
from rcm.execution.likelihood import Text, cross_entropies
from tests.conftest import tiny_model

torch.set_num_threads(1)
model = tiny_model(batch_size=64, vocab_size=40_000)
texts = [Text((1, *range(5 + i, 20 + i)), 12) for i in range(64)]
free = cross_entropies(model, texts, 1, [])
room = psutil.Process().memory_info().vms + 100 * 2**20  # the logits of all take 133 MB
resource.setrlimit(resource.RLIMIT_AS, (room, room))
limited = cross_entropies(model, texts, 1, [])
print(len(free.unique()), (limited - free).abs().max().item())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits the address space")
def test_the_allocator_of_the_cpu_runs_out_and_the_work_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=300, check=True)
    texts, off = done.stdout.split()
    assert int(texts) > 60
    assert float(off) < 1e-5
    assert done.stderr == "Out of memory with 64 texts at once: from now on 32.\n"


@pytest.mark.parametrize("words", ["CUDA error: out of memory\nCUDA kernel errors", "CUBLAS_STATUS_ALLOC_FAILED when"])
def test_cuda_itself_and_its_libraries_run_out_of_memory_too(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def test_memory_that_runs_out_before_a_run_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, sentence: Callable[[Callable[[], object]], str]
) -> None:
    model = tiny_model()

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB.")

    monkeypatch.setattr(model.hf, "forward", full)
    said = sentence(lambda: self_checks(model, [30, 60]))
    assert said.startswith("Out of memory with the checks before a run (CUDA out of memory); take a device with more")
