"""What runs have kept for one another: `python -m rcm.record prune RUNS` removes what no run in RUNS names."""

import argparse
import logging
import sys
from pathlib import Path

from rcm.errors import InputError
from rcm.record.findings import prune

log = logging.getLogger("rcm.record")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m rcm.record", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prune").add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    options = parser.parse_args()
    if not options.runs.is_dir():
        raise InputError(f"There is no folder {options.runs}; give the one that holds the runs, such as runs/.")
    count, size = prune(options.runs)
    log.info("Removed %d findings that no run in %s names, %.1f MB.", count, options.runs, size / 1e6)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename} cannot be removed ({error.strerror}); ask whose it is.")
