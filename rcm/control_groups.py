"""The control groups (v1 or v2) that this process is in, by which Slurm and Docker limit what a job may take."""

from collections.abc import Iterator
from pathlib import Path


def groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of those that limit `cpu` or `memory`, from the innermost out. `root`: of the system's files."""
    own = [line.split(":", 2) for line in text_of(root / "proc/self/cgroup").splitlines()]
    for line in text_of(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        mounted, point = mount.split()[3:5]
        kind, options = system.split()[0], system.split()[-1].split(",")
        for _, controllers, group in own:
            v1 = kind == "cgroup" and controller in options and controller in controllers.split(",")
            if v1 or (kind == "cgroup2" and not controllers):
                outermost = root / point.lstrip("/")
                # In a container the mount begins at its own group, and what lies farther out is not to be seen.
                innermost = outermost / group.removeprefix(mounted).lstrip("/")
                for folder in (innermost, *innermost.parents):
                    yield folder
                    if folder == outermost:
                        break


def text_of(path: Path) -> str:
    """Empty where there is no such file on this system."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
