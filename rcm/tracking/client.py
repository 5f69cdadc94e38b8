"""The settings of W&B's client, all in one place, and its own commands that publish what it recorded."""

import logging
import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import psutil

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
# What publishes takes id, project and mode from the run's file, and must not do its work in the service of the run's
# own client, which it could not end when a server hangs.
OF_A_RUN = (
    "WANDB_MODE",
    "WANDB_NAME",
    "WANDB_NOTES",
    "WANDB_TAGS",
    "WANDB_RUN_GROUP",
    "WANDB_JOB_TYPE",
    "WANDB_RESUME",
    "WANDB_RUN_ID",
    "WANDB_SWEEP_ID",
    "WANDB_SWEEP_PARAM_PATH",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
    "WANDB_SERVICE",
)


def without_reports() -> None:
    """Before the client is imported: else it reports its errors over the network, offline too."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"


# Private to wandb, of which any version may lack some.
PRIVATE: Mapping[str, Any] = {
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,  # a killed run loses one second, not 15
}


def recording() -> "wandb.Settings":
    """Record only what we log."""
    import wandb

    known = frozenset(PRIVATE) & frozenset(wandb.Settings.model_fields)
    _tell_unknown(frozenset(PRIVATE) - known)
    public = {"console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False}
    return wandb.Settings(**public, **{name: PRIVATE[name] for name in known})


@cache
def _tell_unknown(names: frozenset[str]) -> None:
    """Once for each process."""
    if names:
        log.warning("This version of wandb has no setting %s; it records without", ", ".join(sorted(names)))


def publishing() -> dict[str, str]:
    """The environment of a process that publishes."""
    return {name: value for name, value in os.environ.items() if name not in OF_A_RUN}


class Publisher(subprocess.Popen[str]):
    """A Python process that outlives a Ctrl-C, which ends the run, and then publishes how it ended."""

    def __init__(self, arguments: list[str], output: int | IO[str], environment: Mapping[str, str]) -> None:
        self._mark = f"RCM_PUBLISHER_{uuid4().hex}"
        super().__init__(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, self._mark: "1"},
            text=True,
            start_new_session=True,
        )

    def end(self) -> None:
        """Kill it and all that it started: the client's service would go on sending without it.

        Told by what they inherit, since some outlive their parent, and the service has a session of its own.
        """
        killed: set[psutil.Process] = set()
        while found := set(self._family()) - killed:  # again, for what was started meanwhile
            for one in found:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            killed |= found
        self.wait()

    def _family(self) -> Iterator[psutil.Process]:
        for one in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is another user's
                if self._mark in one.environ():
                    yield one


@contextmanager
def syncing(file: Path, *, live: bool) -> Generator[Publisher, None, None]:
    """The client's own sync of one `.wandb` file, which ends with the block; `live` follows it until its run ends."""
    flags = ["--live"] if live else ["--no-skip-synced"]
    own_logs = {"WANDB_DIR": str(file.absolute().parents[2])}  # in the run directory: else they litter the current one
    sync = ["-m", "wandb", "beta", "sync", *flags, str(file)]
    process = Publisher(sync, subprocess.DEVNULL, publishing() | own_logs)
    try:
        yield process
    finally:
        process.end()
