"""`launch.py` in processes of its own, which need not import PyTorch each time: forks of one that has.

A run does in them what it always does. What comes before a run, or lies in the importing itself, is tested in processes
that begin with nothing (`tests.test_launch.launched_anew`).
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["rcm.running.run", "tests.stubs"])
Done = subprocess.CompletedProcess[str]


def forked(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Done:
    """What `subprocess.run` gives of `python SCRIPT ...`, with its output as text."""
    with TemporaryDirectory() as outside:  # some tests look at all that lies in the folder
        out, err = Path(outside, "stdout"), Path(outside, "stderr")
        process = started(command, folder, environment, out, err)
        process.join()
        return Done(command, process.exitcode, out.read_text(), err.read_text())


def started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path
) -> ForkServerProcess:
    """It runs."""
    process = SERVER.Process(target=_run, args=(list(command[1:]), folder, dict(environment), out, err))
    process.start()
    return process


def _run(arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    os.chdir(folder)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
