"""A real Slurm of one node in a folder of its own, by slurmctld, slurmd and munged: gone when its test ends.

    with Slurm(folder) as slurm:  # as any user; SLURM_CONF=slurm.conf for every command
        slurm.said("squeue")

It keeps no accounts, so that its own sacct says nothing; `accounts` is a stand-in that says what squeue does.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from getpass import getuser
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "squeue", "scontrol", "sbatch", "srun")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# What is put back into the queue starts again so many seconds later; by default 120.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
KillWait=2
SlurmdParameters=config_overrides
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SACCT = """\
#!/bin/sh
echo 'JobID|State|NodeList'
squeue --noheader --states=all --format='%F|%K|%T|%N' |
  awk -F'|' '{ print ($2 == "N/A" ? $1 : $2 ~ /-/ ? $1 "_[" $2 "]" : $1 "_" $2) "|" $3 "|" $4 }'
"""


def missing() -> list[str]:
    """What it would need that is not installed here; daemons lie where an ordinary user's PATH does not look."""
    return [name for name in PROGRAMS if found(name) is None]


def found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Slurm:
    """`folder`: short, for sockets have short names. Raises TimeoutError where the node does not come up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf, self.accounts = folder / "slurm.conf", folder / "accounts"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool", "accounts"):
            (self.folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(CONF.format(host=host, user=getuser(), folder=self.folder, ports=free_ports(2)))
        (self.accounts / "sacct").write_text(SACCT)
        (self.accounts / "sacct").chmod(0o755)
        key, munge = self.folder / "munge.key", self.folder / "munge.sock"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = {"pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
        places = [f"--{option}={self.folder / name}" for option, name in files.items()]
        try:
            self._start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *places)
            wait_for(munge.exists)
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", "node")
            wait_for(lambda: self.said("sinfo", "--noheader", "--format=%T").strip() == "idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.said("scancel", f"--user={getuser()}")
        with suppress(TimeoutError):
            wait_for(lambda: not self.said("squeue", "--noheader"), 5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        psutil.wait_procs(self.processes(), 5)
        for process in self.processes():
            process.kill()
        for daemon in self._daemons:
            daemon.wait()

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("wb") as out:
            command = [str(found(program)), *arguments]
            self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=out))

    @property
    def environment(self) -> dict[str, str]:
        """For commands that speak to it, and to no other Slurm."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**others, "SLURM_CONF": str(self.conf)}

    def said(self, *command: str) -> str:
        """What a command of Slurm's prints, whatever comes of it."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def processes(self) -> list[psutil.Process]:
        """Its daemons, and all that they started."""
        return [process for process in psutil.process_iter() if _of(process, str(self.folder))]


def _of(process: psutil.Process, folder: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("SLURM_CONF", "").startswith(folder)
    except psutil.Error:  # somebody else's, or gone
        return False


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} seconds")
        time.sleep(0.1)
