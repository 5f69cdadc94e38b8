"""How long a pass takes by the way in which threads wait for each other: alone, and beside another busy process.

    python -m benchmarks.waiting [--model smollm2-135m-refusal] [--prompts 16] [--rounds 5] [--threads 2] [--busy 1]

OpenMP reads its settings when PyTorch is loaded. So each way has a process of its own, with the model in it; they pass
the same prompts in turn and several times over, while the others sleep, each as soon as the machine is quiet. The busy
process computes without end in one thread, and is stopped while they are timed alone. Prints how busy the machine was
before each, and medians.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from rcm.running.processors import QUIET, THREADS, WAITING, bound_to, busy_cpus

WAYS: dict[str, dict[str, str]] = {
    "as they come": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
PATIENCE = 60  # seconds to wait for a quiet moment
READY = "ready"


def main() -> None:
    options = parsed()
    if options.work:
        work(options)
        return
    from benchmarks.shared import interleaved, medians  # here: a worker's way must be set before PyTorch is loaded

    busy: list[float] = []

    def quiet() -> None:
        """Wait for others to pause."""
        end = time.monotonic() + PATIENCE
        while (found := busy_cpus()) > QUIET and time.monotonic() < end:
            pass
        busy.append(found)

    with ExitStack() as stack:
        neighbours = [stack.enter_context(_process("-c", "while True: pass")) for _ in range(options.busy)]
        _tell(neighbours, signal.SIGSTOP)
        workers = {name: stack.enter_context(_worker(options, way)) for name, way in WAYS.items()}
        for worker in workers.values():
            _answered(worker)  # that it has loaded and warmed up
        works: dict[str, Callable[[], None]] = {}
        for name, worker in workers.items():
            works |= {f"alone, {name}": partial(_pass, worker), f"beside, {name}": partial(_beside, neighbours, worker)}
        *_, seconds = interleaved(works, options.rounds, before=quiet)
    taken = medians(seconds)
    print(f"{options.model}, {options.prompts} prompts, {options.threads} threads on {len(bound_to())} CPUs, ", end="")
    print(f"of which {statistics.median(busy):.2f} (at most {max(busy):.2f}) were busy before a pass; ", end="")
    print(f"medians of {options.rounds}")
    for name in WAYS:
        alone, beside = (taken[f"{where}, {name}"] for where in ("alone", "beside"))
        first = [taken[f"{where}, as they come"] for where in ("alone", "beside")]
        print(f"  {name:24s} alone {alone:6.2f} s  {alone / first[0]:5.2f} x", end="")
        print(f"   beside {options.busy} busy {beside:6.2f} s  {beside / first[1]:5.2f} x")


@contextmanager
def _process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment or None, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _worker(options: argparse.Namespace, way: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    others = {name: value for name, value in os.environ.items() if name not in (*THREADS, *WAITING)}
    environment = others | {"OMP_NUM_THREADS": str(options.threads)} | way
    with _process("-m", "benchmarks.waiting", *sys.argv[1:], "--work", **environment) as process:
        yield process


def _pass(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    _answered(worker)


def _answered(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    while (line := worker.stdout.readline()) != f"{READY}\n":
        if not line:
            raise SystemExit("A worker ended; what it printed says why.")


def _beside(neighbours: list[subprocess.Popen[str]], worker: subprocess.Popen[str]) -> None:
    _tell(neighbours, signal.SIGCONT)
    try:
        _pass(worker)
    finally:
        _tell(neighbours, signal.SIGSTOP)


def _tell(processes: list[subprocess.Popen[str]], what: signal.Signals) -> None:
    for process in processes:
        process.send_signal(what)


def work(options: argparse.Namespace) -> None:
    """Of a worker: one pass for every line that comes in."""
    from benchmarks.shared import model_of, prompts_of, settings
    from rcm.execution.passes import last_logits
    from rcm.prompts import texts

    config = settings(f"model={options.model}", f"dataset.test={options.prompts}")
    prompts = prompts_of(config)
    model, asked = model_of(config, prompts.template, "cpu"), texts(prompts.test.harmful)
    last_logits(model, asked)  # warm
    print(READY, flush=True)
    for _ in sys.stdin:
        last_logits(model, asked)
        print(READY, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="other processes")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that what was started is ended, too
    main()
