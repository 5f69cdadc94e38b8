"""python -m rcm.judges PLACE --judge NAME: judge replies again, without the model that wrote them.

PLACE is a finished run, an Inspect log (`.eval`, `.json`) or lm-eval's `samples_*.jsonl`. Prints, for every condition
of the run or every scorer of the log, the refusal rate by its own judge and by the other, how far the two agree, where
they differ, and a few of those replies, cut to their opening words.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rcm.errors import InputError
from rcm.formats.inspect_replies import SUFFIXES, inspect_log
from rcm.formats.lm_eval_samples import SUFFIX, lm_eval_samples
from rcm.formats.replies import of_transcripts, scored
from rcm.judges import Judge
from rcm.judges.audit import audited
from rcm.judges.named import named
from rcm.record.results import Transcripts
from rcm.record.stored import stored_run

log = logging.getLogger("rcm.judges")
EXAMPLES = 3  # of each scorer of a log


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; give the exit code."""
    parser = argparse.ArgumentParser(
        "python -m rcm.judges", description="Judge replies again, without the model that wrote them."
    )
    parser.add_argument("place", type=Path, help="a run's directory, an Inspect log, or lm-eval's samples_*.jsonl")
    parser.add_argument("--judge", required=True, help="an option of conf/judge, such as arditi")
    parser.add_argument(
        "--refused",
        action="append",
        default=[],
        metavar="VALUE",
        help="the value of a log's scores that is a refusal, or SCORER=VALUE; may be given again",
    )
    parser.add_argument("--show", type=int, help=f"how many differing replies of each; {EXAMPLES} of a log, 0 of a run")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        lines = judged_again(given.place, named(given.judge), given.judge, given.refused, given.show)
    except InputError as error:
        log.error("%s", error)
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def judged_again(
    place: Path, judge: Judge, name: str, refused: Sequence[str] = (), show: int | None = None
) -> list[str]:
    """Markdown. `refused`: which scores of a log are refusals, as on the command line."""
    if place.is_dir() or not place.exists():
        return _run_again(place, judge, name, refused, show or 0)
    if place.suffix in SUFFIXES:
        found = inspect_log(place)
    elif place.suffix == SUFFIX:
        found = lm_eval_samples(place)
    else:
        raise InputError(
            f"{place} is none of a run's directory, an Inspect log ({', '.join(SUFFIXES)}) and lm-eval's samples "
            f"({SUFFIX}); give one of these."
        )
    by_scorer, notes = scored(found, refused, place)
    title = f"{found.title}: {len(found.replies)} replies."
    tables = audited(by_scorer, judge, name, EXAMPLES if show is None else show)
    return [" ".join([title, *found.notes, *notes]), "", *tables]


def _run_again(place: Path, judge: Judge, name: str, refused: Sequence[str], show: int) -> list[str]:
    found = [result for result in stored_run(place).results() if isinstance(result, Transcripts)]
    if refused:
        raise InputError(f"{place} is a run, whose verdicts are known; leave --refused {refused[0]} away.")
    if not found:
        raise InputError(f"{place} has no transcripts; choose a run of behaviour, steering or map.")
    return audited([condition for transcripts in found for condition in of_transcripts(transcripts)], judge, name, show)


if __name__ == "__main__":
    sys.exit(main())
