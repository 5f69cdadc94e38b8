"""python -m rcm.comparison runs [--out comparison.json]"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rcm.comparison import compare
from rcm.comparison.comparison_json import as_text
from rcm.errors import InputError
from rcm.record.storage import whole
from rcm.record.stored import stored_runs

log = logging.getLogger("rcm.comparison")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the conclusions, or print them; give the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _write(given.folder, given.out)
    except InputError as error:
        log.error("%s", error)
        return 1
    return 0


def _write(folder: Path, out: Path | None) -> None:
    runs = stored_runs(folder)
    if not runs:
        raise InputError(f"There are no runs in {folder}; python launch.py makes one.")
    text = as_text(compare(runs))
    if out is None:
        sys.stdout.write(text)
        return
    try:
        with whole(out) as path:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write to {out} ({error.strerror}); name another file with --out.") from error
    log.info("The conclusions: %s", out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m rcm.comparison", description="What the runs in a folder say together.")
    parser.add_argument("folder", type=Path, help="the folder that holds the runs, such as runs/")
    parser.add_argument("--out", type=Path, help="the JSON file to write; without it, to standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
