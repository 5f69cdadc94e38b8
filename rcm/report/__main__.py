"""python -m rcm.report runs [--out page] [--paper]"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rcm.errors import InputError
from rcm.report import PAPER, write

log = logging.getLogger("rcm.report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and twin; give the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        page, twin = write(given.folder, given.out, paper=given.paper)
    except InputError as error:
        log.error("%s", error)
        return 1
    log.info("The page: %s; as Markdown: %s", page, twin)
    if given.paper:
        log.info("For papers: %s", given.out / PAPER)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m rcm.report", description="Compare the runs in a folder on one page.")
    parser.add_argument("folder", type=Path, help="the folder that holds the runs, such as runs/")
    parser.add_argument("--out", type=Path, default=Path("page"), help="where to write (default: page)")
    parser.add_argument("--paper", action="store_true", help="tables as CSV and LaTeX, pictures as PDF and PNG, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
