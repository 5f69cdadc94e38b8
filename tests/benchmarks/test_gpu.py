"""The benchmark for a GPU, rehearsed on the CPU: it must work the first time that a GPU is there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.shared import interleaved

ROOT = Path(__file__).parents[2]
PATCHING = ("patching/tiny-pythia-410m", "patching/tiny-llama-7b")
MEMORY = "memory/tiny-llama-7b"
# Read by whoever commits the figures of a card.
CIRCUMSTANCES = {"schema", "date", "card", "commit", "packages", "CUBLAS_WORKSPACE_CONFIG", "seconds", "rehearsal"}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """The environment and PyTorch's settings, which the benchmark changes for its own process."""
    environment, threads, mode = dict(os.environ), torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    cpu_runs = tmp_path / "runs"
    report = rehearsed(tmp_path / "first.json")
    assert report["circumstances"].keys() >= CIRCUMSTANCES
    assert report["circumstances"]["rehearsal"] is True
    assert report["circumstances"]["card"] is None or torch.cuda.is_available()
    parts = report["parts"]
    assert list(parts) == [*PATCHING, MEMORY, "noise", "demo/random"]
    assert [name for name, entry in parts.items() if "failed" in entry] == []
    assert all(0 < entry["spent"] < entry["budget"] for entry in parts.values())
    for name in PATCHING:
        check_patching(parts[name])
    check_memory(parts[MEMORY])
    for dtype in gpu.DTYPES:
        check_noise(parts["noise"][dtype])
    check_demo(parts["demo/random"], cpu_runs)


def rehearsed(out: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def check_patching(entry: dict[str, Any]) -> None:
    components = entry["model"]["layers"] * (entry["model"]["heads"] + 3)
    assert entry["work"]["components"] == components
    assert entry["error"]["logit"] <= entry["error"]["tolerance"]
    assert entry["error"]["largest_logit"] > 0.1
    works = entry["seconds"].keys()
    assert works >= {"rows", "hook loop", "plain forward, as many tokens"}
    assert entry["ratio"].keys() == entry["median"].keys() == entry["memory_of"].keys() == works
    assert all(ratio > 0 for ratio in entry["ratio"].values())
    assert entry["ratio"]["rows"] == 1
    assert all(len(times) == gpu.REHEARSAL.rounds for times in entry["seconds"].values())
    loop = entry["loop"]
    assert loop["scaled_by"] == pytest.approx(components / loop["components"])
    assert loop["whole"] == (loop["components"] == components)


def check_memory(entry: dict[str, Any]) -> None:
    """On the CPU what was counted is taken to the byte; memory was made to run out above eight rows."""
    of_pass = entry["pass"]
    assert of_pass["counted"] == of_pass["taken"] > 0
    assert of_pass["weights_counted"] == pytest.approx(of_pass["weights"], rel=1e-3)  # but for buffers in float32
    assert entry["batch"] >= 1
    assert [rows for rows in entry["halved"]["rows"] if rows > 1] == [8, 8]  # and what all begin with, in one row
    for way in ("halved", "spread"):
        assert entry[way]["difference"] <= 5e-2 * entry[way]["largest"]
    assert entry["spread"]["times_as_long"] > 0
    for bits in ("int8", "nf4"):
        assert entry[bits]["engine"]["path"] == "rows", entry[bits]["engine"]
        assert 0 < entry[bits]["weights"] < of_pass["weights"]
        assert entry[bits]["logits_moved"] > 0


def check_noise(figures: dict[str, Any]) -> None:
    """Below what a run would accept; rounding is not nothing, but for float32 nearly."""
    assert figures["engine"]["path"] == "rows", figures["engine"]
    assert figures["pairs"] == gpu.REHEARSAL.noise_pairs
    assert 0 <= figures["identity"] < 0.1
    assert 0 <= figures["rows_from_loop"] < 0.1
    assert figures.keys() >= {"gap", "min_share_of_gap", "critical", "smallest_critical", "share_from_float32_largest"}


def check_demo(entry: dict[str, Any], cpu_runs: Path) -> None:
    """Its figures are those of metrics.json; another folder of runs is compared by id."""
    assert 0 < entry["wall"] <= entry["spent"]
    assert "--cpu-runs" in entry["beside_cpu"]["why_not"]
    run, metrics = entry["run"], entry["metrics"]
    assert any(name.startswith("patching/") for name in metrics)
    assert run in gpu.beside_cpu(metrics, cpu_runs, run)["why_not"]
    other = dict(metrics)
    name = next(name for name, value in metrics.items() if gpu.is_number(value))
    other[name] += 1.0
    (cpu_runs / run).mkdir(parents=True)
    (cpu_runs / run / "metrics.json").write_text(json.dumps(other))
    beside = gpu.beside_cpu(metrics, cpu_runs, run)
    assert beside["within_a_thousandth"] == beside["figures"] - 1
    assert beside["most"][0] == {"figure": name, "gpu": metrics[name], "cpu": metrics[name] + 1}
    assert beside["only_cpu"] == beside["other_values"] == []


def test_a_failing_part_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it had found stays, its reason is one sentence, and the parts after it are run."""
    out = tmp_path / "gpu.json"

    def broken(clock: gpu.Clock) -> Iterator[dict[str, Any]]:
        yield {"found": float("nan")}
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB.\nA page of advice follows.")

    def endless(clock: gpu.Clock) -> Iterator[dict[str, Any]]:
        for number in range(10**9):
            clock.check()
            yield {"number": number}

    def whole(clock: gpu.Clock) -> Iterator[dict[str, Any]]:
        assert "failed" in json.loads(out.read_text())["parts"]["noise/broken"]  # written as they come
        yield {"value": 1}

    works = {"noise/broken": broken, "demo/endless": endless, "model": whole}
    monkeypatch.setattr(gpu, "parts", lambda *_: works)
    monkeypatch.setitem(gpu.REHEARSAL.budgets, "demo", 0.05)
    assert gpu.main(["--rehearse", "--out", str(out)]) == 1
    parts = json.loads(out.read_text())["parts"]
    assert parts["noise/broken"]["found"] is None  # JSON has no NaN
    assert parts["noise/broken"]["failed"] == "OutOfMemoryError: CUDA out of memory."
    assert parts["demo/endless"]["number"] >= 0
    assert "were over" in parts["demo/endless"]["failed"]
    assert parts["model"]["value"] == 1
    assert "failed" not in parts["model"]
    assert "FAILED: OutOfMemoryError" in capsys.readouterr().out


def test_a_missing_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the folder to hand over, and nothing is fetched for the parts that want the model."""
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    clock = gpu.Clock(60)
    for work in (gpu.embedded(None, clock), gpu.noise(gpu.FULL, clock), gpu.demo(gpu.FULL, "x", tmp_path, None, clock)):
        with pytest.raises(gpu.InputError, match=r"The embedded model is not here.*--models") as caught:
            next(work)
        assert "\n" not in str(caught.value)


def test_a_copy_of_the_cache_is_taken(smollm2_folder: Path) -> None:
    assert list(gpu.embedded(smollm2_folder.parent, gpu.Clock(60))) == [{"checkpoint": smollm2_folder.name}]


def test_without_a_gpu_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--rehearse"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])


def test_rounds_alternate_and_end_with_the_time() -> None:
    said: list[str] = []
    works = {"a": lambda: said.append("a"), "b": lambda: said.append("b")}
    *_, seconds = interleaved(works, rounds=3, before=lambda: said.append("."))
    assert "".join(said) == ".a.b.b.a.a.b"
    assert [len(times) for times in seconds.values()] == [3, 3]
    *_, seconds = interleaved(works, rounds=3, left=lambda: 0.0)
    assert [len(times) for times in seconds.values()] == [1, 1]
