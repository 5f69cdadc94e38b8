"""python -m rcm.formats COMMAND RUN: what a run found, in files for others, and runs of others, verified.

direction RUN --out FILE.safetensors       the direction, whose header says what it is of and what it does
inspect RUN --out FILE.eval|.json          an Inspect log of the run's behaviour
card RUN [--out FILE.md]                   a section for a model card on the Hugging Face Hub
verify RUN                                 whether a run folder from elsewhere is whole and agrees with itself
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rcm.errors import InputError
from rcm.formats.card import card
from rcm.formats.direction_file import write_direction
from rcm.formats.foreign_run import summarised, verified
from rcm.formats.inspect_writer import write_inspect_log
from rcm.record.storage import whole
from rcm.record.stored import stored_run

log = logging.getLogger("rcm.formats")
COMMANDS = {
    "direction": "the direction as direction.safetensors",
    "inspect": "the run's behaviour as an Inspect log",
    "card": "a section for a model card",
    "verify": "check a run folder from elsewhere",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command says; give the exit code: 1 for what cannot be done, and for a run that fails a check."""
    parser = argparse.ArgumentParser("python -m rcm.formats", description="Results of a run in files for others.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in COMMANDS.items():
        command = commands.add_parser(name, help=help)
        command.add_argument("run", type=Path, help="the run's directory, such as runs/1a2b3c4d")
        if name != "verify":
            command.add_argument("--out", type=Path, required=name != "card", help="the file to write")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _done(given.command, given.run, getattr(given, "out", None))
    except InputError as error:
        log.error("%s", error)
    except OSError as error:
        log.error("%s cannot be written (%s); choose another --out.", given.out, error.strerror)
    return 1


def _done(command: str, place: Path, out: Path | None) -> int:
    if command == "verify":
        run, checks = verified(place)
        sys.stdout.write("\n".join(summarised(run, checks)) + "\n")
        return int(any(check.standing == "FAILS" for check in checks))
    run = stored_run(place)
    if command == "card":
        text = card(run)
        if out is None:
            sys.stdout.write(text)
            return 0
        with whole(out) as partial:
            partial.write_text(text, encoding="utf-8")
    assert out is not None
    if command == "direction":
        header = write_direction(run, out)
        log.info(
            "To be added at layer %s. Strength: %s; KL in nats per token: %s; prompts forced: %s.",
            *(header[name] for name in ("layer", "strength", "kl_at_strength", "force_rate_at_strength")),
        )
    if command == "inspect":
        log.info("%d samples, as the run stores them.", write_inspect_log(run, out))
    log.info("Written: %s", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
