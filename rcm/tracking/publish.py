"""Sends what W&B has not got yet, and no row twice.

The client's sync appends the rows of a `.wandb` file to those that the server has, so that a file sent again, or a run
that was killed and started again, would stand there twice. Here the server is asked first:

1. It does not know the run: the file is sent as it is; live, while the run goes on.
2. It has some rows: what goes is the file without those that say the same at the same step. A run started again
   continues so: equal settings, equal results, equal steps.
3. It has all: nothing is sent.

A run goes where it was recorded for. One that names no team goes to that of WANDB_ENTITY, its artifacts with it, which
`wandb sync --entity` would leave behind.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rcm.errors import InputError
from rcm.record.locks import held
from rcm.tracking.arrival import Arrival, arrival, connection, found
from rcm.tracking.client import syncing
from rcm.tracking.wandb_file import Message, OfflineRun, content, put_at, rewritten, row

if TYPE_CHECKING:
    import wandb
    from wandb.apis.public import Run

log = logging.getLogger(__name__)
LIVE_SECONDS = 8.0  # that the live sync of a run has left at the run's end
SYNC_SECONDS = 600.0  # that the sync of one file may take


def published(path: Path, api: "wandb.Api") -> Arrival:
    """Send what the server has not got of a `.wandb` file; ask it again."""
    recorded = OfflineRun.of(path)
    if not recorded.id:
        raise InputError(
            f"No run can be read in {path}: it was killed at once, or wandb {version('wandb')} writes what rcm does "
            f"not know; `wandb sync {path.parent}` may send it."
        )
    unnamed = not recorded.entity
    recorded.entity = recorded.entity or os.environ.get("WANDB_ENTITY", "")
    _tell_not_followed(recorded)
    before = arrival(recorded, api)
    if not before.complete:
        with _rest(recorded, before, unnamed) as rest, syncing(rest, live=False) as process:
            _wait(process, SYNC_SECONDS)
    _join_inputs(recorded, api)
    return arrival(recorded, api)


def _tell_not_followed(recorded: OfflineRun) -> None:
    for variable, ours in (("WANDB_PROJECT", recorded.project), ("WANDB_ENTITY", recorded.entity)):
        given = os.environ.get(variable)
        if given and given != ours:
            log.warning(
                "%s=%s is not followed: run %s goes to %s, which it was recorded for",
                variable,
                given,
                recorded.id,
                ours,
            )


def follow(path: Path) -> Arrival:
    """Publish a run while it goes on, until what started this process closes our stdin; then what is left of it."""
    ended = threading.Thread(target=_wait_for_end, daemon=True)
    ended.start()
    api = connection()
    with alone(path.parents[2]):
        while not (path.exists() and OfflineRun.of(path).id) and ended.is_alive():
            time.sleep(0.2)  # the client writes once a second
        if found(OfflineRun.of(path), api) is None:
            with syncing(path, live=True) as process:
                while process.poll() is None and ended.is_alive():
                    time.sleep(0.2)
                if OfflineRun.of(path).exit_code is not None:  # a killed run never says so: its sync waits for ever
                    _wait(process, LIVE_SECONDS)
        ended.join()
        return published(path, api)


def _wait_for_end() -> None:
    """The client's finish() returns up to 0.02 seconds before the last of the file is written."""
    os.read(sys.stdin.fileno(), 1)
    time.sleep(0.2)


def alone(directory: Path) -> AbstractContextManager[None]:
    """Two that send at once would both send what is missing: one may still be at a run that was killed just now."""
    return held(directory / "wandb" / "publishing.lock", wait=True)


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("W&B's sync was given up after %g seconds.", seconds)


@contextmanager
def _rest(recorded: OfflineRun, there: Arrival, unnamed: bool) -> Generator[Path, None, None]:
    """The file without the rows that are there. Where one differs, by a change of the code, the others follow after
    the server's last. `unnamed`: the file names no team, and is given that of `recorded`."""
    named = unnamed and recorded.entity != ""
    if not there.rows and not named:
        yield recorded.path
        return
    missing = _missing_steps(recorded, there)
    shift = max(0, there.last_step + 1 - min(missing, default=there.last_step + 1))

    def kept(message: Message) -> bool:
        kind = message.WhichOneof("record_type")
        if named and kind in ("run", "artifact"):
            getattr(message, kind).entity = recorded.entity
        if kind != "history":
            return True
        step = row(message.history)["_step"]
        put_at(message.history, step + shift)
        return step in missing

    rest = recorded.path.with_name("rest.wandb")  # beside the files that it names
    try:
        yield rewritten(recorded.path, rest, kept)
    finally:
        for file in rest.parent.glob(f"{rest.name}*"):  # with what the client noted of it
            file.unlink()


def _missing_steps(recorded: OfflineRun, there: Arrival) -> list[int]:
    known, missing = Counter(there.rows), []
    for one in recorded.rows:
        text = content(one)
        known[text] -= 1
        if known[text] < 0:
            missing.append(one["_step"])
    return missing


def _join_inputs(recorded: OfflineRun, api: "wandb.Api") -> None:
    """Tell the server which artifacts the run read, of those that it has."""
    run = found(recorded, api)
    wanted = {one["name"]: one["digest"] for one in recorded.config.get("inputs", [])}
    if run is None or not wanted:
        return
    for used in run.used_artifacts():
        wanted.pop(used.name.partition(":")[0], None)
    for name, digest in wanted.items():
        _join(run, name, digest, api)


def _join(run: "Run", name: str, digest: str, api: "wandb.Api") -> None:
    from wandb.errors import CommError

    try:
        artifact = api.artifact(f"{run.entity}/{run.project}/{name}:latest")
    except (CommError, ValueError):
        log.warning("Run %s reads %s, which W&B has not got yet; sync the run that made it, then again.", run.id, name)
        return
    if artifact.digest == digest:
        run.use_artifact(artifact)
