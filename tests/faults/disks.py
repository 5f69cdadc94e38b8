"""Disks that are full, and folders that cannot be written, root being no exception."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A file system in memory, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, kibibytes: int) -> None:
        """Fill it but for so much."""
        stat = os.statvfs(self.folder)
        self._ballast.write_bytes(b"x" * max(0, stat.f_bavail * stat.f_frsize - kibibytes * 1024))

    def make_room(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, kibibytes: int = 2048) -> Generator[SmallDisk, None, None]:
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Generator[None, None, None]:
    """By permissions; for root, who is above them, by a mount."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        _unmount(folder)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {getattr(error, 'stderr', error)}")


def _unmount(folder: Path) -> None:
    # Lazily: what a process that is about to end holds open there must not fail the test.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
