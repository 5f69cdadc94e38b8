"""Replies of an Inspect log (`.eval` or `.json`), read by inspect_ai itself (`pip install 'rcm[inspect]'`)."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcm.errors import InputError, first_sentence
from rcm.formats.replies import ReadLog, Reply, Value

SUFFIXES = (".eval", ".json")
MOST_BYTES = 4 * 2**30  # unpacked: a log of a few kB can unpack to fill any memory


def inspect_log(place: Path) -> ReadLog:
    """The replies of a log. Of several epochs only the first counts: replies to one prompt are not independent."""
    read_eval_log = reader()
    _not_too_large(place)
    try:
        log = read_eval_log(str(place), resolve_attachments=True)
    except Exception as error:  # of its parsers, of whatever type; the file is another program's
        raise InputError(
            f"{place} cannot be read as an Inspect log ({first_sentence(error)}); give one as inspect_ai wrote it."
        ) from error
    samples: list[Any] = log.samples or []
    if not samples:
        raise InputError(f"{place} has no samples; give a log that was written with them (log_samples=True).")
    first = min(sample.epoch for sample in samples)
    failed = [sample for sample in samples if sample.epoch == first and (sample.error or not sample.output.choices)]
    kept = [sample for sample in samples if sample.epoch == first and not (sample.error or not sample.output.choices)]
    if not kept:
        raise InputError(f"No sample in {place} has a reply (its status is {log.status!r}); give one that ran.")
    replies = [Reply(_prompt(sample.input), sample.output.completion, _scores(sample.scores or {})) for sample in kept]
    notes = []
    if later := sum(sample.epoch != first for sample in samples):
        notes.append(f"{later} replies of later epochs are left out: replies to one prompt are not independent.")
    if failed:
        notes.append(f"{len(failed)} samples ended in an error or without output, and are left out.")
    if log.status != "success":
        notes.append(f"The log's status is {log.status!r}: it may lack samples.")
    return ReadLog(f"Inspect log of {log.eval.task}, model {log.eval.model}", log.eval.task, replies, notes)


def reader() -> Any:
    """`inspect_ai.log.read_eval_log`; raises InputError where the package is not there."""
    try:
        from inspect_ai.log import read_eval_log  # seconds to import, and an extra
    except ImportError as error:
        raise InputError("Inspect logs are read and written by inspect_ai; pip install 'rcm[inspect]'.") from error
    return read_eval_log


def _not_too_large(place: Path) -> None:
    size = place.stat().st_size
    if zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as file:
            size = sum(member.file_size for member in file.infolist())
    if size > MOST_BYTES:
        raise InputError(f"{place} unpacks to {size / 2**30:.1f} GiB, more than {MOST_BYTES // 2**30}; split it first.")


def _prompt(asked: Any) -> str:
    """What the user said last."""
    if isinstance(asked, str):
        return asked
    said = [message.text for message in asked if message.role == "user"]
    return said[-1] if said else ""


def _scores(scores: Mapping[str, Any]) -> dict[str, Value]:
    """Single values, and the fields of those that have several; a NaN is no score."""
    found: dict[str, Value] = {}
    for name, score in scores.items():
        value = score.value
        parts = {f"{name}/{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        for key, part in parts.items():
            if isinstance(part, str | int) or (isinstance(part, float) and math.isfinite(part)):
                found[key] = part
    return found
