"""Hydra's entry point: python launch.py -m model=smollm2-135m,smollm2-135m-refusal

Composes the config of a run, hands it to `rcm.running.run`, and reports a failure once. Only Hydra is imported here, so
that --help, tab completion and a run that has finished already answer at once.
"""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

import rcm.running.identity  # noqa: F401 (registers ${rcm.run_id:}, the name of the run directory)
from rcm.errors import InputError
from rcm.record import identity

log = logging.getLogger("rcm")


class RunFailed(CompactHydraException):
    """One job of several failed; its log has the details. Hydra shows this kind as a sentence, without a traceback."""


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    directory = Path(HydraConfig.get().runtime.output_dir)
    if identity.finished(directory) and not cfg.get("rerun") and not identity.sweep_agent():
        log.info("Finished already: %s (rerun=true runs it again)", directory)
        return
    failure = attempt(cfg)
    if failure is None:
        return
    # Out here, the original exception is gone. Hydra keeps the exceptions of failed jobs until a multirun ends, and
    # the original's traceback would keep that job's weights in memory.
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        raise RunFailed(f"{failure} (see {directory})")  # the other jobs go on; the exit code is 1 in the end
    sys.exit(1)  # with an exception, Hydra would print the failure again


def attempt(cfg: DictConfig) -> str | None:
    """Run; None if it ended well, else what went wrong, in one sentence, after logging it."""
    try:
        from rcm.running.run import run

        run(cfg)
    except InputError as error:
        log.error("%s", error)
        return str(error)
    except Exception as error:
        log.exception("The run in %s failed", HydraConfig.get().runtime.output_dir)
        return f"{type(error).__name__}: {error}"
    return None


def command() -> None:
    """`main`, with one sentence for every wrong override in place of Hydra's paragraphs."""
    if "HYDRA_FULL_ERROR" in os.environ:
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets Hydra raise what it would print
    try:
        main()
    except (CompactHydraException, ValueError) as error:
        if not isinstance(error, CompactHydraException) and not str(error).startswith("Config group override"):
            raise  # that one is Hydra's, of model=3; any other is a bug
        from rcm.running.overrides import sentence

        sys.exit(sentence(error))


if __name__ == "__main__":
    command()
