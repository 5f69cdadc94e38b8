"""Files that libraries write for their owner alone, in folders that a group shares."""

import os
from pathlib import Path


def shared(path: Path) -> None:
    """Give a file, or a folder and all in it, the permissions that the user's umask gives to any new one."""
    mask = os.umask(0)
    os.umask(mask)
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        one.chmod((0o777 if one.is_dir() else 0o666) & ~mask)
