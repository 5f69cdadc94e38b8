"""Commands of rcm in processes of their own, which a fault may hit.

Each is forked from a server that has imported PyTorch and rcm already: it costs what the command does, and no start of
three seconds. `Fault`: what is called in the process before the command, such as one that kills it later.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from uuid import uuid4

from tests.faults import methods

Fault = Callable[[], None]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["rcm.launch", "rcm.running.run", "rcm.report", "rcm.judges", "rcm.models.gguf", "wandb", "tests.faults.methods"]
)
STEPS = ("model=stub", "dataset=stub", "method=steps", "judge=xstest", "device=cpu", "tracker=disk")
WRITING = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate")  # audit events beside `open`


class Done(NamedTuple):
    """How a process ended: its exit code, or minus the signal, and what it said."""

    code: int
    said: str

    @property
    def sentence(self) -> str:
        """The one line in which it says what is wrong, for it is one, and no traceback."""
        assert "Traceback" not in self.said, self.said
        lines = [line for line in self.said.splitlines() if "[ERROR]" in line] or self.said.splitlines()
        (line,) = set(lines)
        assert len(line) > 40, line
        return line.partition("[ERROR] - ")[2] or line


@dataclass
class Process:
    """One that is under way. Its output comes through a pipe, which is never full."""

    job: BaseProcess
    reader: Thread
    output: list[str]

    def done(self, seconds: float = 100) -> Done:
        self.job.join(seconds)
        self.reader.join(5)
        if self.job.exitcode is None:
            self.job.kill()
            raise AssertionError(f"It hangs; it said: {''.join(self.output)}")
        return Done(self.job.exitcode, "".join(self.output))


def started(
    folder: Path, action: Callable[[], object], *faults: Fault, environment: Mapping[str, str] | None = None
) -> Process:
    """A process at the action, in the folder; the pipe lies beside it, for the folder may be read-only."""
    pipe = folder.parent / f"{folder.name}-{uuid4().hex}"
    os.mkfifo(pipe)
    output: list[str] = []

    def read() -> None:
        with pipe.open(errors="replace") as stream:
            output.extend(stream)
        pipe.unlink()

    reader = Thread(target=read, daemon=True)
    reader.start()
    job = FORKS.Process(target=_process, args=(folder, action, faults, pipe, dict(environment or {})))
    job.start()
    return Process(job, reader, output)


def ended(
    folder: Path, action: Callable[[], object], *faults: Fault, environment: Mapping[str, str] | None = None
) -> Done:
    return started(folder, action, *faults, environment=environment).done()


def _process(
    folder: Path, action: Callable[[], object], faults: tuple[Fault, ...], pipe: Path, environment: dict[str, str]
) -> None:
    os.setsid()  # a group of its own, which a fault kills whole
    out = os.open(pipe, os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    os.environ.update(environment)
    for fault in faults:
        fault()
    sys.exit(action())  # type: ignore[arg-type]  # the code, or None


@dataclass(frozen=True)
class Launch:
    """launch.py with the stub model, several steps and these overrides."""

    overrides: tuple[str, ...]

    def __call__(self) -> None:
        from rcm import launch

        flags = [one for one in self.overrides if one.startswith("-")]
        overrides = [one for one in self.overrides if not one.startswith("-")]
        sys.argv = ["launch.py", "--config-dir", str(methods.OPTIONS_AT), *flags, *STEPS, *overrides]
        launch.command()


def launch(*overrides: str) -> Launch:
    return Launch(overrides)


@dataclass(frozen=True)
class Report:
    """The report of a folder of runs."""

    arguments: tuple[str, ...] = ("runs",)

    def __call__(self) -> int:
        from rcm.report.__main__ import main

        return main(self.arguments)


@dataclass
class KilledAt:
    """SIGKILL to the whole group when the process is about to write, rename, remove or link for the n-th time."""

    nth: int
    seen: int = field(default=0, init=False)

    def __call__(self) -> None:
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if not _writes(event, arguments):
            return  # to kill is an event, too
        self.seen += 1
        if self.seen == self.nth:
            os.killpg(0, signal.SIGKILL)


@dataclass(frozen=True)
class Counted:
    """One byte in the file for each time that `KilledAt` counts."""

    file: Path

    def __call__(self) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(lambda event, arguments: _writes(event, arguments) and os.write(descriptor, b"."))


def _writes(event: str, arguments: tuple[object, ...]) -> bool:
    if event != "open":
        return event in WRITING
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@dataclass(frozen=True)
class Held:
    """Waits until the file is there, so that several processes begin at once."""

    until: Path

    def __call__(self) -> None:
        while not self.until.exists():
            time.sleep(0.001)


@dataclass(frozen=True)
class NoMoreThan:
    """No file may grow beyond so many bytes: a write fails there, or, with `kills`, ends the process in its midst."""

    size: int
    kills: bool = False

    def __call__(self) -> None:
        if self.kills:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores, to raise an OSError
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
