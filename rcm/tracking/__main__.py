"""python -m rcm.tracking sync runs/"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rcm.errors import InputError
from rcm.record.locks import Timeout, held
from rcm.tracking import environment
from rcm.tracking.arrival import Arrival, connection, described
from rcm.tracking.client import without_reports
from rcm.tracking.publish import alone, follow, published
from rcm.tracking.wandb_file import offline_files

log = logging.getLogger("rcm.tracking")


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish; the exit code is 0 if the server has everything."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    without_reports()
    from wandb.errors import Error

    try:
        return given.act(given.path)
    except (InputError, Error) as error:
        log.error("%s", error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m rcm.tracking", description="Publish runs that W&B recorded offline.")
    acts = parser.add_subparsers(required=True)
    sync = acts.add_parser("sync", help="send what W&B has not got yet, and say what arrived; safe to repeat")
    sync.add_argument("path", type=Path, help="the folder that holds the runs, such as runs/, or one run's directory")
    sync.set_defaults(act=_sync)
    beside = acts.add_parser("follow", help="what a run with tracker.mode=online starts: publish it while it goes on")
    beside.add_argument("path", type=Path, help="the run's .wandb file; the run is over when stdin closes")
    beside.set_defaults(act=_follow)
    return parser


def _sync(folder: Path) -> int:
    environment.check_switched_on()
    directories = sorted({file.parents[2] for file in _files(folder)}, key=lambda path: path.stat().st_mtime)
    if not directories:
        raise InputError(f"There is nothing recorded in {folder}; give the folder that holds the runs, such as runs/.")
    api = connection()
    complete = True
    for directory in directories:
        try:
            with held(directory / "lock"), alone(directory):  # the run's own: nobody starts it anew meanwhile
                arrivals = [(file.parent.name, published(file, api)) for file in offline_files(directory)]
        except Timeout:
            log.info("%s: goes on still; left alone", directory)
            continue
        except InputError as error:
            log.error("%s", error)
            complete = False
            continue
        log.info("%s", described(arrivals))
        complete = complete and all(arrival.complete for _, arrival in arrivals)
    return 0 if complete else 1


def _files(folder: Path) -> list[Path]:
    """The `.wandb` files of one run directory, or of those right below a folder."""
    return [file for directory in (folder, *folder.glob("*")) for file in offline_files(directory)]


def _follow(file: Path) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that what was started is ended, too
    arrived: Arrival = follow(file)
    log.info("%s", described([(file.parent.name, arrived)]))
    return 0 if arrived.complete else 1


if __name__ == "__main__":
    sys.exit(main())
