"""Rows of text out of a file: local, on the Hugging Face hub, or at an https address.

    hf://datasets/ORG/NAME@COMMIT/FILE   the hub's own syntax; with your token, out of the hub's cache where it is there
    https://.../FILE                     fetched once, and kept among the hub's cached assets
    SOURCE#sha256=HEX                    either, or a local one, if that is its checksum

HF_HUB_OFFLINE=1 forbids to fetch. Every failure is an InputError that names the source, the place in it and the cure.
`cure` in a signature is the override that names another source, such as `dataset.path=FILE`.
"""

import csv
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import urlopen

from huggingface_hub import HfUri, cached_assets_path, constants, hf_hub_download, parse_hf_uri
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of httpx, or of its successor
    GatedRepoError,
    HfUriError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rcm.errors import InputError, first_sentence, unsigned
from rcm.record.digests import CHECKSUM, file_digest

log = logging.getLogger(__name__)
Row = Mapping[str, object]
MOST_BYTES = 64 << 20  # of a file that is fetched
HUB_FORM = "hf://datasets/ORG/NAME@COMMIT/FILE"


def rows(source: str, cure: str) -> list[Row]:
    """What a .csv, .jsonl, .json (a list), .parquet or .txt file holds; a line or item without columns becomes
    `prompt`."""
    file = local(source, cure)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".json": _json_list, ".parquet": _parquet, ".txt": _txt}
    if file.suffix.lower() not in readers:
        raise InputError(f"{source} is none of {', '.join(readers)}; convert it and pass {cure}.")
    return list(readers[file.suffix.lower()](file))


def cell(row: Row, column: str, place: str) -> str:
    """The text of one column without space around it; `place` names file and row."""
    if column not in row:
        raise InputError(f"{place} has no column {column!r}, only {', '.join(row)}; name the right one in `dataset`.")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{place} has {value!r} as its {column!r}; write a text there.")
    return value.strip()


def document(file: Path) -> Any:
    """A JSON file's content."""
    return _parsed(_text(file), file)


def local(source: str, cure: str) -> Path:
    """`source` itself, or the cached copy of what is at an address; of the checksum that it gives, if it gives one."""
    address, pinned, checksum = source.partition(CHECKSUM)
    if pinned and not re.fullmatch("[0-9a-f]{64}", checksum):
        raise InputError(f"{unsigned(source)} ends with no checksum; write {CHECKSUM} and 64 hex digits, or neither.")
    if address.startswith("hf://"):
        file = _from_hub(address, cure)
    elif address.startswith("https://"):
        file = _fetched(address, cure)
    else:
        file = Path(address).expanduser()
        if not file.is_file():
            raise InputError(f"There is no file {file}; pass one that exists with {cure}.")
    if pinned and (found := file_digest(file)) != checksum:
        if "://" in address:
            file.resolve().unlink()  # another time it is fetched anew; the hub's cache has links to its files
            file.unlink(missing_ok=True)
        raise InputError(
            f"{unsigned(address)} has the sha256 {found}, not {checksum}: it is another file, or was damaged; find out "
            f"which, and give its own checksum or pass {cure}."
        )
    return file


def _from_hub(address: str, cure: str) -> Path:
    """In the hub's cache. Only at a commit: what a branch holds changes, and the run's id would not."""
    elsewhere = f"get the file elsewhere and pass {cure}"
    try:
        place = parse_hf_uri(address)
    except HfUriError as error:
        raise InputError(f"{address} is no address on the hub ({first_sentence(error)}); write {HUB_FORM}.") from error
    if place.type != "dataset" or not place.path_in_repo:
        raise InputError(f"{address} names no file of a data set; write {HUB_FORM}.")
    there = _downloaded(place, address, elsewhere, dry_run=True)
    if there.commit_hash != place.revision:
        pinned = f"hf://datasets/{place.id}@{there.commit_hash}/{place.path_in_repo}"
        raise InputError(f"{address} may change any day; write {pinned}, which is how it stands now.")
    if there.file_size > MOST_BYTES:
        raise InputError(_too_large(address, elsewhere))
    return Path(_downloaded(place, address, elsewhere, dry_run=False))


def _downloaded(place: HfUri, address: str, elsewhere: str, *, dry_run: bool) -> Any:
    """The path of the cached file, or what the hub says of the file without downloading it."""
    try:
        return hf_hub_download(
            place.id, place.path_in_repo, repo_type=place.type, revision=place.revision, dry_run=dry_run
        )
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/datasets/{place.id}"
        raise InputError(
            f"{address} is gated; ask for access at {page} and run `hf auth login` (or set HF_TOKEN), or {elsewhere}."
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"The hub shows you no data set {place.id}; correct the name, or run `hf auth login` (or set HF_TOKEN) if "
            "it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{place.id} has no revision {place.revision}; write {HUB_FORM}.") from error
    except RemoteEntryNotFoundError as error:
        raise InputError(
            f"{place.id} has no file {place.path_in_repo} at {place.revision}; write {HUB_FORM}."
        ) from error
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        if constants.HF_HUB_OFFLINE:
            raise InputError(f"{address} is not cached and HF_HUB_OFFLINE forbids to fetch it; {elsewhere}.") from error
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise InputError(f"{address} cannot be fetched ({first_sentence(reason)}); {elsewhere}.") from error


def _too_large(name: str, advice: str) -> str:
    return f"{name} is larger than {MOST_BYTES >> 20} MiB, which no set of prompts is; {advice}."


def _fetched(address: str, cure: str) -> Path:
    name = Path(urlsplit(address).path).name
    try:
        file = cached_assets_path("rcm", "prompts", hashlib.sha256(address.encode()).hexdigest()[:16]) / name
        if not file.exists():
            # Renamed when complete, so that a broken download is never read and processes do not disturb one another.
            partial = file.with_name(f"{name}.{os.getpid()}")
            partial.write_bytes(_content(address, name, cure))
            partial.replace(file)
            log.info("Fetched %s; %s%s behind the address holds it to that", name, CHECKSUM, file_digest(file))
    except OSError as error:
        raise InputError(
            f"{name} cannot be kept in {constants.HF_ASSETS_CACHE} ({error.strerror}); choose another folder with "
            f"HF_ASSETS_CACHE=FOLDER, or get the file elsewhere and pass {cure}."
        ) from error
    return file


def _content(address: str, name: str, cure: str) -> bytes:
    advice = f"get the file elsewhere and pass {cure}"
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"{name} is not cached and HF_HUB_OFFLINE forbids to fetch {unsigned(address)}; {advice}.")
    try:
        with urlopen(address, timeout=30) as response:
            content: bytes = response.read(MOST_BYTES + 1)
    except (OSError, HTTPException) as error:
        raise InputError(f"{name} cannot be fetched from {unsigned(address)} ({error}); {advice}.") from error
    if len(content) > MOST_BYTES:
        raise InputError(_too_large(name, advice))
    if content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        raise InputError(f"What came from {unsigned(address)} is a web page, not {name}: a login, perhaps; {advice}.")
    return content


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); mend its permissions, or copy it.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 at byte {error.start}; convert it.") from error


DELIMITERS = (",", ";", "\t")


def _csv(file: Path) -> Iterator[Row]:
    """No row may have more cells than the header: a prompt with a comma and no quotes would be cut there; and one with
    a quote that nobody closes would swallow the rest of the file. What a row lacks at its end is None."""
    text = _text(file)
    header = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)  # of a single column, the comma
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader, names, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), list[str](), 1
    try:
        for row in reader:
            if row and names and len(row) > len(names):
                raise InputError(
                    f"{file}, line {line}, has {len(row)} cells and the header {len(names)}; put double quotes around "
                    f"a text with {delimiter!r} in it."
                )
            if row and names:
                yield dict(zip_longest(names, row))
            names, line = names or row, reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{file} has a row from line {line} on that is no CSV ({error}); close every double quote, and double "
            "those inside of a text."
        ) from error


def _txt(file: Path) -> Iterator[Row]:
    return ({"prompt": line} for line in _text(file).split("\n") if line.strip())


def _jsonl(file: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            yield _row(_parsed(line, file, number), f"{file}, line {number},")


def _json_list(file: Path) -> Iterator[Row]:
    items = document(file)
    if not isinstance(items, list):
        raise InputError(f"{file} is not a JSON list; write one, or use dataset=file for prompts in parts.")
    for number, item in enumerate(cast(list[object], items)):
        yield _row(item, f"{file}[{number}]")


def _parquet(file: Path) -> list[Row]:
    import pyarrow.parquet  # here, because few need it
    from pyarrow import ArrowException

    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} is not Parquet ({first_sentence(error)}); write it anew.") from error


def _row(item: object, place: str) -> Row:
    if isinstance(item, str):
        return {"prompt": item}
    if not isinstance(item, dict):
        raise InputError(f"{place} is {item!r}; write a text or an object with columns.")
    return cast(Row, item)


def _parsed(content: str, file: Path, first_line: int = 1) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise InputError(f"{file} is not JSON at line {line}, column {error.colno} ({error.msg}); mend it.") from error
