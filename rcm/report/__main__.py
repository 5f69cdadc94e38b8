"""python -m rcm.report RUNS [RUN ...] [--out page] [--paper] [--open]"""

import argparse
import logging
import sys
import webbrowser
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
        page, twin = write(given.runs, given.out, paper=given.paper)
    except InputError as error:
        log.error("%s", error)
        return 1
    log.info("The page: %s; as Markdown: %s", page, twin)
    if given.paper:
        log.info("For papers: %s", given.out / PAPER)
    if given.open and not webbrowser.open(page.resolve().as_uri()):
        log.warning("There is no browser here that could open it; copy the folder %s to where there is one.", given.out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m rcm.report", description="Compare runs on one page.")
    parser.add_argument("runs", type=Path, nargs="+", help="folders that hold runs, such as runs/, or single runs' own")
    parser.add_argument("--out", type=Path, default=Path("page"), help="where to write (default: page)")
    parser.add_argument("--paper", action="store_true", help="tables as CSV and LaTeX, pictures as PDF and PNG, too")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


if __name__ == "__main__":
    sys.exit(main())
