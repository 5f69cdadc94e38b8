"""How many threads, on machines and in control groups that are made up; and how they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rcm.running import processors
from rcm.running.processors import set_threads, threads, wait_policy
from tests.test_launch import launched_anew

V2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of one with eight CPUs that this process is bound to, each a core, without control groups."""
    for name in (*processors.THREADS, *processors.WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "ROOT", tmp_path)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_as_many_as_there_are_cores_that_it_may_use(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads(None) == (8, "one for each core of 8 CPUs")
    assert threads(3) == (3, "device.threads=3")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5})
    assert threads(None).number == 3
    siblings = {
        f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}"
        for cpu in range(8)
    }
    write(machine, siblings)
    assert threads(None) == (2, "one for each core of 3 CPUs")  # 1 and 5 are one core


@pytest.mark.parametrize(
    ("variable", "value", "number"),
    [
        ("OMP_NUM_THREADS", "3", 3),
        ("OMP_NUM_THREADS", "2,1", 2),
        ("OMP_NUM_THREADS", "16", 8),
        ("OMP_NUM_THREADS", "many", 8),
        ("OMP_NUM_THREADS", "0", 8),
        ("MKL_NUM_THREADS", "3", 3),
    ],
)
def test_no_more_than_the_user_says(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, number: int
) -> None:
    monkeypatch.setenv(variable, value)
    assert threads(None) == (number, f"{variable}={value}" if number < 8 else "one for each core of 8 CPUs")
    assert threads(5).number == 5


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "quota"),
    [
        (V2, "0::/a.slice/b", {"a.slice/b/cpu.max": "300000 100000"}, 3),
        (V2, "0::/a.slice/b", {"a.slice/b/cpu.max": "300000 100000", "a.slice/cpu.max": "150000 100000"}, 1.5),
        (V2, "0::/a.slice/b", {"a.slice/b/cpu.max": "max 100000", "cpu.max": "50000 100000"}, 0.5),
        (V2, "0::/", {"cpu.max": "max 100000"}, None),
        (V2.replace(" / ", " /pod/1 ", 1), "0::/pod/1", {"cpu.max": "200000 100000"}, 2),
        (V1, "4:memory:/a\n2:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000"}, 2.5),
        (V1, "2:cpu,cpuacct:/a/b", {"cpu,cpuacct/a/cpu.cfs_quota_us": "100000"}, 1),
        (V1, "2:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1"}, None),
        (V1, "2:cpu,cpuacct:/pod/1", {"cpu,cpuacct/cpu.cfs_quota_us": "400000"}, 4),  # in a container without its path
        (f"{V1}\n{V2}", "2:cpu,cpuacct:/a\n0::/", {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000"}, 2),  # both at once
    ],
)
def test_no_more_than_its_control_groups_grant(
    machine: Path, mounts: str, groups: str, files: dict[str, str], quota: float | None
) -> None:
    write(machine, {"/proc/self/mountinfo": f"{OTHERS}\n{mounts}", "/proc/self/cgroup": groups})
    write(machine, {f"/sys/fs/cgroup/{name}": text for name, text in files.items()})
    periods = {name.replace("quota", "period"): "100000" for name in files if "quota" in name}
    write(machine, {f"/sys/fs/cgroup/{name}": text for name, text in periods.items()})
    wanted = (8, "one for each core of 8 CPUs")
    if quota is not None:
        wanted = (max(1, round(quota + 0.25)), f"a control group grants {quota:g} CPUs")
    assert threads(None) == wanted


def test_pytorch_computes_by_them(machine: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(2) == "Threads: 2 (device.threads=2)"  # PyTorch is loaded: nothing is said of how they wait
        assert torch.get_num_threads() == 2
        set_threads(None)
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("busy", "cpus", "environment", "told"),
    [
        (0.05, 2, {}, "CPUs were 2 % busy with other work: they spin while they wait"),
        (1.0, 2, {}, "CPUs were 50 % busy with other work: they sleep while they wait"),
        (1.0, 8, {"OMP_NUM_THREADS": "4"}, "CPUs were 12 % busy with other work: they spin while they wait"),
        (5.0, 8, {"OMP_NUM_THREADS": "4"}, "CPUs were 62 % busy with other work: they sleep while they wait"),
        (1.0, 2, {"OMP_WAIT_POLICY": "active"}, "they wait by OMP_WAIT_POLICY=active"),
        (1.0, 2, {"GOMP_SPINCOUNT": "100"}, "they wait by GOMP_SPINCOUNT=100"),
        (1.0, 2, {"OMP_NUM_THREADS": "1"}, ""),
        (1.0, 1, {}, ""),
    ],
)
def test_threads_sleep_where_others_keep_the_cpus_busy(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    busy: float,
    cpus: int,
    environment: dict[str, str],
    told: str,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is undone
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cpus)))
    monkeypatch.setattr(processors, "busy_cpus", lambda: busy)
    monkeypatch.delitem(sys.modules, "torch")
    assert wait_policy.__wrapped__() == told
    assert os.environ["OMP_WAIT_POLICY"] == environment.get("OMP_WAIT_POLICY", "passive" if "sleep" in told else "")


def test_where_pytorch_is_loaded_nothing_is_chosen(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "busy_cpus", lambda: 8.0)
    assert wait_policy.__wrapped__() == ""
    assert "OMP_WAIT_POLICY" not in os.environ


def test_another_busy_process_is_seen() -> None:
    """On one CPU, so that the others of the machine do not matter."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert processors.busy_cpus() > 0.7
    finally:
        process.kill()
        process.wait()


def test_a_run_says_how_many_threads_and_how_they_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jobs of one process the first chooses; another number of threads is the same run."""
    cpus = len(os.sched_getaffinity(0))
    if cpus < 2:
        pytest.skip("one thread waits for none")
    for name in processors.WAITING:
        monkeypatch.delenv(name, raising=False)
    done = launched_anew(tmp_path, "-m", "seed=0,1", OMP_NUM_THREADS="2")
    lines = [line.partition("Threads: ")[2] for line in done.stdout.splitlines() if "Threads: " in line]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "% busy with other work: they s" in lines[0]
    again = launched_anew(tmp_path, "seed=0", "device.threads=1")
    assert "Finished already" in again.stdout
