"""A lock that keeps other processes out of a place: the kernel's, by flock, which a dead process cannot hold.

Where the disk has no such locks, a file beside it stands for one: that it can be made by one process only holds on any
disk. Such a file is left behind where a machine dies with its process; then somebody has to remove it.
"""

import errno
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

log = logging.getLogger(__name__)
MARKER = ".held"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a disk, or of its server


@contextmanager
def held(path: Path, *, wait: bool = False) -> Generator[None, None, None]:
    """Hold the lock at a path. Raises Timeout where another process holds it and is not waited for; OSError where the
    path cannot be written."""
    seconds = -1 if wait else 0
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        marker = path.with_name(path.name + MARKER)
        log.warning("%s: this disk has no locks (%s); %s stands for one.", path, error.strerror, marker.name)
        lock = SoftFileLock(marker)
        lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        lock.release()


def left_behind(path: Path) -> str:
    """What to say beside a Timeout where the lock is a file, which may be left of a machine that died."""
    marker = path.with_name(path.name + MARKER)
    return f", or remove {marker} if its machine has died" if marker.exists() else ""


__all__ = ["Timeout", "held", "left_behind"]
