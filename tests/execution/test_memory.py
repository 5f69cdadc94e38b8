"""Bytes that a pass takes, counted by hand and on skeletons of every family; and how many are free."""

from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rcm.execution import memory
from rcm.execution.memory import free_bytes, peak_bytes, weight_bytes
from rcm.models.checkpoint import skeleton
from tests.conftest import GATED, SIZE, Tiny

CPU = torch.device("cpu")


def test_what_is_alive_at_once_is_counted_once() -> None:
    held = torch.zeros(1000)
    with memory._Alive([held]) as alive:
        view = held[:10]  # of what was there before
        first = view.repeat(100) + 1  # two of 4,000 bytes, one of which is gone again
        second = first[None] * 2  # 4,000 bytes; the view is none
        del first
        third = second.add_(1).double()  # in its place, then 8,000 bytes: 12,000 in all
        del second, third
    assert alive.peak == {CPU: 12_000}


def test_of_a_model_by_hand(tiny: Tiny) -> None:
    """Three layers, two heads of keys and values of eight numbers: keys and values, and what is unembedded."""
    model = tiny("llama", vocab_size=4000)
    rows, tokens = 5, 20
    kept = 2 * 3 * 2 * 8 * rows * tokens * 4
    few = peak_bytes(model.hf, rows, tokens, keep=tokens)
    assert few - peak_bytes(model.hf, rows, tokens, keep=tokens, cache=False) == kept
    # The most at the end: logits, the residual stream normed, the mask, inputs (three of 64 bits), and the rest of it.
    logits, stream, inputs = 4000 * rows * tokens * 4, 32 * rows * tokens * 4, 3 * rows * tokens * 8
    assert logits + kept + stream + inputs <= few <= 1.02 * (logits + kept + stream + inputs)
    assert few - peak_bytes(model.hf, rows, tokens, keep=tokens - 1) == pytest.approx(4000 * rows * 4, rel=0.05)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox"])
def test_a_skeleton_takes_what_the_model_does_in_proportion_to_rows(tiny: Tiny, architecture: str) -> None:
    model = tiny(architecture)
    bones = skeleton(model.hf.config)
    counted = {rows: peak_bytes(model.hf, rows, 40, keep=3) for rows in (1, 2, 3)}
    assert counted == {rows: peak_bytes(bones, rows, 40, keep=3) for rows in (1, 2, 3)}
    assert all(one.is_meta for one in bones.parameters())
    assert counted[3] - counted[2] == counted[2] - counted[1] > 0
    assert weight_bytes(bones) == weight_bytes(model.hf)


def test_of_experts_no_less_than_the_model_takes(capfd: pytest.CaptureFixture[str]) -> None:
    """Which PyTorch can count in bfloat16 alone."""
    config = AutoConfig.for_model("mixtral", **SIZE, **GATED, num_local_experts=4, vocab_size=259)
    hf, bones = AutoModelForCausalLM.from_config(config).eval(), skeleton(config)
    real, counted = (peak_bytes(one, 2, 40) for one in (hf, bones))
    assert real <= counted <= 1.1 * real
    assert peak_bytes(hf.to(torch.bfloat16), 2, 40) == peak_bytes(bones.to(torch.bfloat16), 2, 40)
    assert not capfd.readouterr().err


def test_half_the_bytes_in_half_the_precision(tiny: Tiny) -> None:
    bones = skeleton(tiny("llama").hf.config)
    whole, halves = peak_bytes(bones, 4, 40), peak_bytes(bones.to(torch.bfloat16), 4, 40)
    assert 0.45 * whole < halves < 0.7 * whole  # the norms are taken in float32


def test_weights_that_two_modules_share_count_once(tiny: Tiny) -> None:
    tied, untied = (skeleton(tiny("llama", tie_word_embeddings=tied).hf.config) for tied in (True, False))
    embedding = tied.get_input_embeddings().weight
    assert weight_bytes(untied) - weight_bytes(tied) == embedding.numel() * 4
    assert weight_bytes(tied, torch.bfloat16) == weight_bytes(tied) / 2


V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


@pytest.mark.parametrize(
    ("mounts", "own", "files", "left"),
    [
        (V2, "0::/job", {"job/memory.max": "9000", "job/memory.current": "2000"}, 7000),
        (
            V2,
            "0::/job/step",
            {"job/memory.max": "9000", "job/memory.current": "8500", "job/step/memory.max": "max"},
            500,
        ),
        (
            V2,
            "0::/job",
            {
                "job/memory.max": "9000",
                "job/memory.current": "8500",
                "job/memory.stat": "file 4000\ninactive_file 3000",
            },
            3500,
        ),
        (V2, "0::/job", {"job/memory.max": "9000", "job/memory.current": "9500"}, 0),
        (
            V1,
            "4:memory:/job",
            {
                "memory/job/memory.limit_in_bytes": "9000",
                "memory/job/memory.usage_in_bytes": "4000",
                "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 1000",
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "123456789",
            },
            6000,
        ),
        (V1, "4:cpu:/job", {"memory/job/memory.limit_in_bytes": "9000"}, None),
    ],
)
def test_no_more_is_free_than_control_groups_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, own: str, files: dict[str, str], left: int | None
) -> None:
    available = psutil.virtual_memory()._replace(available=2**50)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    system = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": own, **system}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert free_bytes(CPU) == (2**50 if left is None else left)


def test_on_cuda_what_pytorch_holds_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """By stand-ins: no GPU has run this."""
    figures = {"mem_get_info": (5000, 9000), "memory_reserved": 3000, "memory_allocated": 2500}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, figure=figure: figure)
    assert free_bytes(torch.device("cuda", 1)) == 5500
