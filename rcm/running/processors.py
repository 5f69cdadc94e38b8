"""How many threads compute on the CPU, and how those that wait for the others do so.

As many as this process may use: one for each core that it is bound to, no more than its control groups grant (v1 or v2,
the tightest of those that lie in each other) and than OMP_NUM_THREADS or MKL_NUM_THREADS say. PyTorch by itself heeds
no control group.

Threads that are done spin until the last one is, too. That is fastest where nobody else computes; where somebody does,
the spinning takes the CPU that the last one needs, and they had better sleep (`benchmarks/waiting.py`). OpenMP reads
which once, when PyTorch is loaded: so nothing here imports it.
"""

import math
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

from rcm.control_groups import groups, text_of

ROOT = Path("/")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which users say how many
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # and how they wait
SAMPLE = 0.2  # seconds
QUIET = 0.25  # CPUs' worth of work, which a machine does by the way


class Threads(NamedTuple):
    """How many, and why, for the log."""

    number: int
    reason: str


def threads(asked: int | None) -> Threads:
    """As many as were asked for (`device.threads`); if None, as many as this process may use."""
    if asked is not None:
        return Threads(asked, f"device.threads={asked}")
    cpus = bound_to()
    limits = [Threads(len({_core(cpu) for cpu in cpus}), f"one for each core of {len(cpus)} CPUs")]
    told = {name: os.environ.get(name, "") for name in THREADS}
    limits += [Threads(n, f"{name}={text}") for name, text in told.items() if (n := _first_number(text))]
    limits += [Threads(max(1, math.ceil(quota)), f"a control group grants {quota:g} CPUs") for quota in quotas()]
    return min(limits, key=lambda limit: limit.number)


def bound_to() -> set[int]:
    """The CPUs that this process may run on, by number."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS binds no process


def _core(cpu: int) -> str:
    """The CPUs of one core share what multiplies: a second thread there gains nothing."""
    return text_of(ROOT / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _first_number(text: str) -> int:
    """Of OMP_NUM_THREADS, which may go on for nested levels; 0 where OpenMP, too, takes it for none."""
    first = text.split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def quotas() -> Iterator[float]:
    """How many CPUs each control group grants that this process is in, from the innermost out; where one does."""
    for group in groups(ROOT, "cpu"):
        yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    """As v2 writes it (`max 100000`, `150000 100000`), or v1 in two files (-1 for none)."""
    text = text_of(group / "cpu.max") or f"{text_of(group / 'cpu.cfs_quota_us')} {text_of(group / 'cpu.cfs_period_us')}"
    match text.split():
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            yield int(quota) / int(period)


def set_threads(asked: int | None) -> str:
    """Let PyTorch compute by so many threads; how many, why, and how they wait, for the log."""
    import torch  # here, because `wait_policy` comes before

    number, reason = threads(asked)
    torch.set_num_threads(number)
    waiting = f"; {wait_policy()}" if number > 1 and wait_policy() else ""
    return f"Threads: {number} ({reason}){waiting}"


@cache
def wait_policy() -> str:
    """Let threads sleep while they wait where others keep the CPUs busy; what was chosen and why, for the log.

    Once in a process, before PyTorch is loaded; empty where it is loaded already, or where one thread waits for none.
    """
    number, cpus = threads(None).number, bound_to()
    if "torch" in sys.modules or number == 1:
        return ""
    if chosen := [f"{name}={os.environ[name]}" for name in WAITING if os.environ.get(name)]:
        return f"they wait by {', '.join(chosen)}"
    busy = busy_cpus()
    crowded = busy > QUIET and busy + number > len(cpus)
    if crowded:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    what = "sleep" if crowded else "spin"
    return f"CPUs were {100 * busy / len(cpus):.0f} % busy with other work: they {what} while they wait"


def busy_cpus() -> float:
    """How many of the CPUs that this process may use are at work while it sleeps; 0.5 is one, half of the time."""
    ours, shares = bound_to(), psutil.cpu_percent(SAMPLE, percpu=True)
    return sum(share for cpu, share in enumerate(shares) if cpu in ours) / 100
