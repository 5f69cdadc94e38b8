"""Digests of files and folders by their whole content.

A large file is read once: its digest is kept in the user's cache (RCM_CACHE moves it) under path, size, and the times
of its last writing and of its last change, which no copy or edit leaves as they were.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs

LARGE = 2**20  # bytes; smaller ones are read each time
CHECKSUM = "#sha256="  # behind the path or address of a file; its sha256 follows


def content_digest(path: Path) -> str:
    """Of a file's bytes, or of the names and bytes of a folder's files.

    Hidden files (version control, a downloader's notes) do not count.
    """
    return _digest_of((name, file_digest(file)) for name, file in _files(path))


def checksum_digest(sha256: str) -> str:
    """What `content_digest` gives of a single file with this sha256, wherever it lies."""
    return _digest_of([("", sha256)])


def _digest_of(files: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name_and_sha256 in files:
        digest.update(json.dumps(name_and_sha256).encode())
    return digest.hexdigest()


def file_digest(file: Path) -> str:
    """The sha256 of a file's bytes."""
    stat = file.stat()
    if stat.st_size < LARGE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    key = json.dumps([str(file.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    kept = _kept()
    if key not in kept:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        _keep({**_kept(), key: found})
        return found
    return str(kept[key])


def cache_folder() -> Path:
    """Where rcm keeps what it can make again."""
    return Path(os.environ.get("RCM_CACHE") or platformdirs.user_cache_path("rcm"))


def _kept() -> dict[str, Any]:
    try:
        kept: Any = json.loads((cache_folder() / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(digests: dict[str, Any]) -> None:
    """Written whole, then renamed. A cache that cannot be written costs time, and nothing else."""
    goal = cache_folder() / "digests.json"
    partial = goal.with_name(f".digests-{os.getpid()}")
    with contextlib.suppress(OSError):
        goal.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(digests, indent=1), encoding="utf-8")
        partial.replace(goal)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Each file below `path` under its relative name; a single file has none, so that it may be renamed."""
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if file.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), file
