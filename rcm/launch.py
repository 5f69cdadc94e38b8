"""Hydra's entry point, the command `rcm`: rcm -m model=smollm2-135m,smollm2-135m-refusal

Composes the config of a run, hands it to `rcm.running.run`, and reports a failure once. Only Hydra is imported here, so
that --help, tab completion and a run that has finished already answer at once.
"""

import hashlib
import logging
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import print_exc, walk_tb
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from rcm.errors import FULL, InputError, first_sentence, on_one_line, unwritable
from rcm.packaged import CONF, PACKAGE
from rcm.record import identity
from rcm.record.provenance import COMMAND

# Importing this registers ${rcm.run_id:}, the name of the run directory.
from rcm.running.identity import digest_of, finished_already
from rcm.running.objective import objective

log = logging.getLogger("rcm")
LAUNCHERS = ("hydra/launcher=", "hydra.launcher.")
PLACES = ("hydra.run.dir=", "hydra.sweep.dir=")
HYDRAS = ("Config group override", "Only one of")  # how ValueErrors of Hydra's begin


class RunFailed(CompactHydraException):
    """One job of several failed; its log has the details. Hydra shows this kind as a sentence, without a traceback."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Run, and return the figure that `optimize` names: Hydra hands it to the sweeper."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    logging.raiseExceptions = False  # by which a library's own log, such as W&B's, would print one for each line
    for handler in logging.getLogger().handlers:
        setattr(handler, "handleError", told_once(handler))  # noqa: B010 (mypy: it is a method)
    if cfg.get("estimate"):
        failure = attempt(cfg)
        return None if failure is None else ended(failure, directory)
    if unused := launcher_unused():
        log.error("%s", unused)
        ended(unused, directory)
    if other := identity.other_run(directory, digest_of(cfg)):
        another = f"{directory} holds run {other}, of other settings; choose another hydra.run.dir, or move it away."
        log.error("%s", another)
        ended(another, directory)
    if already := finished_already(cfg, directory):
        log.info("%s", already)
        return optimized(cfg, directory)
    failure = attempt(cfg)
    if failure is not None:
        ended(failure, directory)
    return optimized(cfg, directory)


def launcher_unused() -> str | None:
    """What to say where a launcher was asked for, which Hydra would pass over for a single run: that would go
    here, on the machine that gives out the jobs."""
    asked = next((one for one in HydraConfig.get().overrides.hydra if one.startswith("hydra/launcher=")), None)
    if asked is None or HydraConfig.get().mode is RunMode.MULTIRUN:
        return None
    return f"{asked} starts the jobs of a multirun: write -m, also for a single one."


def told_once(handler: logging.Handler) -> Callable[[logging.LogRecord], None]:
    """In place of the traceback that logging prints for every line that a full disk or a closed pipe does not take."""
    told = False

    def handle_error(record: logging.LogRecord) -> None:
        nonlocal told
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print_exc()  # a bug
        elif not told:
            told = True
            place = getattr(handler, "baseFilename", "the screen")
            with suppress(OSError):  # where that is full, too, the exit code has to do
                sys.stderr.write(f"Nothing more can be logged to {place} ({error.strerror}); the run goes on.\n")

    return handle_error


def optimized(cfg: DictConfig, directory: Path) -> float | None:
    try:
        return objective(directory, cfg.get("optimize"))
    except InputError as error:
        log.error("%s", error)
        ended(str(error), directory)


def ended(failure: str, directory: Path) -> NoReturn:
    """Leave with the exit code of a failure."""
    # Out here, the original exception is gone. Hydra keeps the exceptions of failed jobs until a multirun ends, and
    # the original's traceback would keep that job's weights in memory.
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        raise RunFailed(f"{failure} (see {directory})")  # the other jobs go on; the exit code is 1 in the end
    sys.exit(1)  # with an exception, Hydra would print the failure again


def attempt(cfg: DictConfig) -> str | None:
    """Run; None if it ended well, else what went wrong, in one sentence, after logging it."""
    try:
        from rcm.running.processors import wait_policy

        wait_policy()  # which PyTorch reads when it is loaded
        from rcm.running.run import run

        run(cfg)
    except InputError as error:
        log.error("%s", error)
        return str(error)
    except Exception as error:
        from rcm.running import launchers

        if told := launchers.sentence(error):  # of a signal that came in its midst
            log.error("%s", told)
            return told
        if isinstance(error, OSError) and error.errno in FULL:  # wherever it was: a library's cache, a temporary file
            full = f"{error.filename or 'A disk'} cannot be written ({error.strerror}); make room there and run again."
            log.error("%s", full)
            return full
        log.exception("The run in %s failed", HydraConfig.get().runtime.output_dir)
        return f"{type(error).__name__}: {error}"
    return None


def subcommand(arguments: list[str]) -> str | None:
    """The room that a first word such as `report` stands for: `rcm report runs` is `python -m rcm.report runs`. None of
    an override or a flag; leaves with a sentence where it is neither."""
    first = arguments[0] if arguments else ""
    if not re.fullmatch(r"[A-Za-z_]\w*", first):
        return None
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__main__.py"))
    if first in rooms:
        return first
    if close := get_close_matches(first, rooms, n=1):
        sys.exit(f"{first}: did you mean rcm {close[0]}?")
    sys.exit(f"{first}: this is no command; there are {', '.join(rooms)}. A setting is written KEY=VALUE")


def nameless(overrides: list[str]) -> str | None:
    """What is wrong with an override that names no setting, at which Hydra's own assertion fails; None if all do."""
    found = next((one for one in overrides if one.lstrip("+~").startswith("=")), None)
    return f"{on_one_line(found)}: this override names no setting; write KEY=VALUE" if found else None


def without_signature(override: str) -> str:
    """With a reference to the environment for what signs an address: Hydra writes to multirun.yaml what stands on the
    command line, before any of our code sees it. Such an address stands in quotes, or Hydra would not take it."""

    def reference(found: re.Match[str]) -> str:
        name = f"RCM_SIGNATURE_{hashlib.sha256(found[2].encode()).hexdigest()[:8]}"
        os.environ[name] = found[2]  # which the processes of other launchers inherit
        return f"{found[1]}${{oc.env:{name}}}"

    return re.sub(r"""(https?://[^\s?'"]+\?)([^\s'"]+)(?=['"])""", reference, override)


def command() -> None:
    """`main`, or another room; an estimate in a folder of its own, so that nothing of it stays."""
    if room := subcommand(sys.argv[1:]):
        sys.argv = [f"rcm {room}", *sys.argv[2:]]
        runpy.run_module(f"rcm.{room}", run_name="__main__")
        return
    with ExitStack() as stack:
        # Here, one after the other: another launcher's jobs would ask other machines.
        own = [argument for argument in sys.argv if not argument.startswith((*LAUNCHERS, *PLACES))]
        asked = [i for i, one in enumerate(own) if re.fullmatch(r"\+{0,2}estimate=true", one, re.IGNORECASE)]
        if asked:
            folder = stack.enter_context(TemporaryDirectory(prefix="rcm-estimate-"))
            # Beside it, since Hydra's parser takes no overrides behind a flag that stands behind others.
            sys.argv[:] = own
            sys.argv[asked[-1] : asked[-1]] = [f"{place}{folder}" for place in PLACES]
            stack.callback(_tell_all)
        _hydra()


def _tell_all() -> None:
    """What several runs will take, in one table."""
    module = sys.modules.get("rcm.running.estimate")  # not there where nothing was estimated
    if module is not None and len(module.TOLD) > 1:
        log.info("%s", module.table(module.TOLD))


def _hydra() -> None:
    """`main`, with one sentence for every wrong override in place of Hydra's paragraphs."""
    sys.argv[1:] = map(without_signature, sys.argv[1:])
    os.environ[COMMAND] = shlex.join(sys.argv)
    if unnamed := nameless(sys.argv[1:]):
        sys.exit(unnamed)
    if "HYDRA_FULL_ERROR" in os.environ:
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra raise what it would print
    try:
        main()
    except (CompactHydraException, ValueError) as error:
        if isinstance(error.__cause__, OSError):  # of the run's log
            sys.exit(unwritable(error.__cause__))
        if not isinstance(error, CompactHydraException) and not str(error).startswith(HYDRAS):
            if HydraConfig.initialized():
                raise  # those are Hydra's, of model=3 and of -m with --cfg; any other is a bug
            sys.exit(uncomposed(error))
        from rcm.running.overrides import sentence

        sys.exit(sentence(error))
    except OSError as error:  # of Hydra's, which makes the folder: whatever a run itself raises is caught in there
        sys.exit(unwritable(error))
    except Exception as error:
        from rcm.running import launchers

        if told := launchers.sentence(error):
            sys.exit(told)
        if HydraConfig.initialized():
            raise
        sys.exit(uncomposed(error))  # before there was a config: Hydra's own, of what it did not expect


def uncomposed(error: Exception) -> str:
    """Of whatever Hydra stumbles over while it composes, such as dataset=[null], or a sweeper that is a plugin."""
    why = on_one_line(f"{type(error).__name__}: {first_sentence(error)}")
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    if plugin := next((name for name in modules if name.startswith("hydra_plugins.")), None):
        return f"Hydra's plugin {plugin.split('.')[1]} failed ({why}); what was logged before says why"
    return f"Hydra cannot compose these overrides ({why}); write KEY=VALUE, a group as NAME or [NAME,NAME]"
