"""python -m rcm.judges RUN --judge NAME: judge a finished run again, without its model.

Prints, for every condition in the run's transcripts, the refusal rate by the run's own judge and by the other, and how
far the two agree. What was cut before it was stored (`rcm.judges.redaction`) cannot be judged again, and is left out.
"""

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rcm.errors import InputError
from rcm.judges import Judge, Verdict, agreement
from rcm.judges.named import named
from rcm.judges.redaction import is_cut
from rcm.record.results import Transcripts
from rcm.record.stored import stored_run
from rcm.record.transcripts import by_condition

log = logging.getLogger("rcm.judges")
COLUMNS = ("condition", "n", "cut", "unscored", "refused, own judge", "refused, other judge", "kappa of the two")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; give the exit code."""
    parser = argparse.ArgumentParser(
        "python -m rcm.judges", description="Judge a finished run again, without its model."
    )
    parser.add_argument("run", type=Path, help="the run's directory, such as runs/1a2b3c4d")
    parser.add_argument("--judge", required=True, help="an option of conf/judge, such as arditi")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        lines = judged_again(given.run, named(given.judge))
    except InputError as error:
        log.error("%s", error)
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def judged_again(directory: Path, judge: Judge) -> list[str]:
    """A Markdown table, a row for each condition of each transcript."""
    found = [result for result in stored_run(directory).results() if isinstance(result, Transcripts)]
    if not found:
        raise InputError(f"{directory} has no transcripts; choose a run of behaviour, steering or map.")
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for transcripts in found:
        for condition, rows in by_condition(transcripts).items():
            lines.append(_line(" ".join([transcripts.name, *condition]), rows, judge))
    return lines


def _line(condition: str, rows: Sequence[Mapping[str, str | float]], judge: Judge) -> str:
    whole = [row for row in rows if not is_cut(str(row["completion"]))]
    verdicts = judge.verdicts([str(row["prompt"]) for row in whole], [str(row["completion"]) for row in whole])
    own = [Verdict(str(row["verdict"])) for row in whole]
    shares = [f"{sum(v.refuses for v in of) / len(of):.1%}" if of else "-" for of in (own, verdicts)]
    kappa, _ = agreement(own, verdicts)
    unscored = verdicts.count(Verdict.INVALID)
    cells = (
        condition,
        len(whole),
        len(rows) - len(whole),
        unscored,
        *shares,
        "-" if math.isnan(kappa) else f"{kappa:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
