"""What publishes ends, and leaves nothing behind."""

import subprocess
import sys

import psutil
import pytest

from rcm.tracking.client import Publisher, publishing
from tests.test_launch import wait_for

ORPHAN = f"""
import subprocess, time
child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
"""


@pytest.mark.parametrize("parent", ["lives", "has ended"])
def test_what_outlives_its_parent_is_ended_too(parent: str) -> None:
    """As the client's service may, which has a session of its own."""
    process = Publisher(["-c", ORPHAN + "time.sleep(600)" * (parent == "lives")], subprocess.PIPE, publishing())
    assert process.stdout is not None
    orphan = psutil.Process(int(process.stdout.readline()))
    if parent == "has ended":
        process.wait()
    assert orphan.is_running()
    process.end()
    wait_for(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, 10)
    assert process.returncode is not None
