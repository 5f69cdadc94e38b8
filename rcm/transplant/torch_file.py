"""A tensor out of the file that `torch.save` makes of it, without unpickling anything.

The file is a zip archive: numbers as they lie in memory, and a pickle that says which of them the tensor is. That
pickle is a program. Here it is listed and never run, and taken only if it is, word for word, the one that `torch.save`
(its protocol 2) writes of a tensor by itself.
"""

import math
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
}
NOTED = ("PROTO", "BINPUT", "LONG_BINPUT")  # which say nothing of the tensor
END = ["GLOBAL", "EMPTY_TUPLE", "REDUCE", "TUPLE", "REDUCE", "STOP"]  # no hooks


def tensor_of(file: Path) -> Tensor:
    """The tensor, on the CPU; raises OSError or ValueError where the file is not one that holds a tensor alone."""
    try:
        with zipfile.ZipFile(file) as archive:
            (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            folder = listing.removesuffix("data.pkl")
            dtype, key, offset, size, stride = _described(archive.read(listing))
            if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError("its numbers are in another byte order")
            numbers = torch.frombuffer(bytearray(archive.read(f"{folder}data/{key}")), dtype=dtype)
            if math.prod(size) > len(numbers):
                raise ValueError("it has fewer numbers than its shape says")
            return numbers.as_strided(size, stride, offset).clone()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, OverflowError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _described(program: bytes) -> tuple[torch.dtype, str, int, list[int], list[int]]:
    """What its numbers are, where they lie, and which of them the tensor is."""
    steps: list[tuple[str, Any]] = [
        (step.name, given) for step, given, _ in pickletools.genops(program) if step.name not in NOTED
    ]
    match steps:
        case [
            ("GLOBAL", "torch._utils _rebuild_tensor_v2"),
            ("MARK", _),
            ("MARK", _),
            ("BINUNICODE", "storage"),
            ("GLOBAL", kind),
            ("BINUNICODE", key),
            ("BINUNICODE", _),
            (_, int()),
            ("TUPLE", _),
            ("BINPERSID", _),
            (_, int(offset)),
            *rest,
        ] if kind in DTYPES:
            size, rest = _numbers(rest)
            stride, rest = _numbers(rest)
            if [name for name, _ in rest[1:]] == END and rest[0][0] in ("NEWFALSE", "NEWTRUE"):
                return DTYPES[kind], key, offset, size, stride
    raise ValueError("it holds a dict" if steps and steps[0][0] == "EMPTY_DICT" else "it holds more than a tensor")


def _numbers(steps: list[tuple[str, Any]]) -> tuple[list[int], list[tuple[str, Any]]]:
    """A tuple of numbers, and what follows."""
    end = next((place for place, (name, _) in enumerate(steps) if name.startswith("TUPLE")), len(steps))
    numbers = [given for name, given in steps[:end] if name != "MARK"]
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("its shape is none")
    return numbers, steps[end + 1 :]
