"""What a user did that cannot work, told in one sentence."""

import errno
import re
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """One sentence that names the value, the place and the cure; `launch.py` shows it without a traceback."""


def on_one_line(text: object) -> str:
    """With escapes in place of line breaks and whatever else does not print."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(text))


def unsigned(text: str) -> str:
    """Without what stands behind the question mark of an address, which may be a signature that opens it to anybody."""
    return re.sub(r"""(https?://[^\s?'"]+)\?[^\s'"]+""", r"\1?...", text)


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message, which may run to a page."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    # Of a KeyError the text is the key alone, and an assertion may have none.
    return f"{type(error).__name__} {text}".strip() if isinstance(error, KeyError) or not text else text


def first_line(error: Exception) -> str:
    """Its kind and its first sentence."""
    return f"{type(error).__name__}: {first_sentence(error)}"


def unwritable(error: OSError, place: Path | None = None) -> str:
    """What of a run could not be written, why, and what helps. `place`: where it was, for errors that do not say."""
    where = error.filename or place or "its disk"
    room = "make room there and run again, or " if error.errno in FULL else ""
    return (
        f"The run's folder cannot be written: {where} ({error.strerror or error}); {room}choose another with "
        "hydra.run.dir=FOLDER, with -m hydra.sweep.dir=FOLDER"
    )
