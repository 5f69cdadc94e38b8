"""Run a script as Python would, and leave the GPU memory that it took in a file, in bytes, when it ends.

python -m benchmarks.peak FILE SCRIPT ARGUMENTS
"""

import atexit
import json
import runpy
import sys
from pathlib import Path

import torch


def peaks() -> dict[str, int] | None:
    """The most memory that this process had for tensors, and had from the driver; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}


def main() -> None:
    file = Path(sys.argv[1])
    atexit.register(lambda: file.write_text(json.dumps(peaks())))
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
