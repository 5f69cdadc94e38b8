"""What W&B's client recorded offline, read back; and written anew without the rows that a server already has.

A `.wandb` file is LevelDB's log format: a header of 7 bytes, then blocks of 32 KiB with pieces of messages, each behind
its checksum (4 bytes), length (2) and kind (1). Each whole is a protobuf message, whose class wandb ships. A kill tears
the last piece, and reading ends before it. `wandb sync` of clients 0.22 to 0.31 reads the same file.

The format is private to wandb. Of a later client than TESTED the file is read all the same, with a warning: another
header is refused here, and a file in which no run is found, by `rcm.tracking.publish`.
"""

import json
import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from rcm.errors import InputError

log = logging.getLogger(__name__)
TESTED = (0, 31)  # the latest client whose files the tests read
HEADER, BLOCK = b":W&B\xe1\xbe\x00", 2**15
PIECE = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
Row = dict[str, Any]
Message = Any  # protobuf makes its classes at run time: there are no types


@dataclass
class OfflineRun:
    """One run as it was recorded. `files`: sizes of figures and tables. `artifacts`: digests. `exit_code`: None if the
    run was killed, or still goes on."""

    path: Path
    id: str = ""
    entity: str = ""
    project: str = ""
    config: Row = field(default_factory=dict[str, Any])
    summary: Row = field(default_factory=dict[str, Any])
    rows: list[Row] = field(default_factory=list[Row])
    files: dict[str, int] = field(default_factory=dict[str, int])
    artifacts: dict[str, str] = field(default_factory=dict[str, str])
    exit_code: int | None = None

    @classmethod
    def of(cls, path: Path) -> "OfflineRun":
        found = cls(path)
        for message in messages(path):
            found._add(message)
        return found

    def _add(self, message: Message) -> None:
        match message.WhichOneof("record_type"):
            case "run":
                run = message.run
                self.id, self.entity, self.project = run.run_id, run.entity, run.project
                self.config |= _items(run.config.update)
            case "config":
                self.config |= _items(message.config.update)
            case "summary":
                self.summary |= _items(message.summary.update)
            case "history":
                self.rows.append(row(message.history))
            case "files":
                names = [file.path for file in message.files.files]
                self.files |= {name: (self.path.parent / "files" / name).stat().st_size for name in names}
            case "artifact":
                self.artifacts[message.artifact.name] = message.artifact.digest
            case "exit":
                self.exit_code = message.exit.exit_code
            case _:
                pass


def offline_files(directory: Path) -> list[Path]:
    """The `.wandb` files in a run directory, oldest first; under sweep agents it may hold several runs of W&B."""
    return sorted(directory.glob("wandb/offline-run-*/run-*.wandb"))


def messages(path: Path) -> Iterator[Message]:
    """Every message in the file; raises InputError where its header is of another format."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    _tell_untested(version("wandb"))
    data = path.read_bytes()
    if not HEADER.startswith(data[: len(HEADER)]):  # one that was just begun may be shorter
        raise InputError(
            f"{path} begins with {data[: len(HEADER)]!r}, which is no format of W&B's that rcm reads; send it with "
            f"`wandb sync {path.parent}`, or record with wandb {'.'.join(map(str, TESTED))}."
        )
    for text in _texts(data):
        yield Record.FromString(text)


@cache
def _tell_untested(installed: str) -> None:
    """Once for each process."""
    if Version(installed).release[:2] > TESTED:
        log.warning(
            "wandb %s is later than %s, the last whose files rcm was tested with; they are read on, and checked",
            installed,
            ".".join(map(str, TESTED)),
        )


def row(history: Message) -> Row:
    """One row of the history, with its `_step`."""
    return {"_step": history.step.num} | _items(history.item)


def put_at(history: Message, step: int) -> None:
    """Give the row another `_step`, which it holds twice."""
    history.step.num = step
    for item in history.item:
        if "_step" in (item.key, *item.nested_key):
            item.value_json = str(step)


def rewritten(path: Path, target: Path, change: Callable[[Message], bool]) -> Path:
    """Write to `target` the messages for which `change` is true; it may change them."""
    target.write_bytes(_framed(message.SerializeToString() for message in messages(path) if change(message)))
    return target


def _items(updates: Iterable[Any]) -> Row:
    """Keys and values; a nested key, which is a path, gives nested values."""
    found: Row = {}
    for update in updates:
        *outer, last = update.nested_key or [update.key]
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(update.value_json)
    return found


def _texts(data: bytes) -> Iterator[bytes]:
    position, text = len(HEADER), b""
    while position + PIECE.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < PIECE.size:
            position += left  # too small for a piece: filled with zeros
            continue
        checksum, length, kind = PIECE.unpack_from(data, position)
        position += PIECE.size
        body = data[position : position + length]
        if zlib.crc32(bytes([kind]) + body) != checksum:
            return
        position += length
        text = body if kind in (WHOLE, FIRST) else text + body
        if kind in (WHOLE, LAST):
            yield text


def _framed(texts: Iterable[bytes]) -> bytes:
    data = bytearray(HEADER)
    for text in texts:
        begun = False
        while not begun or text:
            left = BLOCK - len(data) % BLOCK
            if left < PIECE.size:
                data += bytes(left)
                left = BLOCK
            body, text = text[: left - PIECE.size], text[left - PIECE.size :]
            kind = (LAST if begun else WHOLE) if not text else (MIDDLE if begun else FIRST)
            data += PIECE.pack(zlib.crc32(bytes([kind]) + body), len(body), kind) + body
            begun = True
    return bytes(data)


def content(values: Mapping[str, Any]) -> str:
    """What a row says, as text: without step and clocks, and of figures and tables only the digests, which hold
    elsewhere too."""
    kept = {key: value for key, value in values.items() if not key.startswith("_")}
    return json.dumps(
        {key: value["sha256"] if _is_file(value) else value for key, value in kept.items()}, sort_keys=True
    )


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and "sha256" in value
