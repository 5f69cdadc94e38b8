"""W&B's record is a copy of what lies on the disk: what it cannot take costs no run, and is said once."""

import logging
from collections.abc import Callable

from rcm.record.run import Run

log = logging.getLogger(__name__)


class BestEffort:
    """`whole`: whether W&B has got everything so far."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.whole = True

    def __call__(self, step: Callable[[], object]) -> None:
        """Do it, unless something was refused before: W&B would have a part without another."""
        if self.whole:
            self.last(step)

    def last(self, step: Callable[[], object]) -> None:
        """Do it, whatever was before."""
        try:
            step()
        except OSError as error:
            self.refused(error)

    def refused(self, error: OSError) -> None:
        if self.whole:
            log.warning(
                "W&B does not get the rest of this run (%s: %s); the run goes on and lies whole in %s, and with "
                "rerun=true W&B gets it.",
                *(error.filename2 or error.filename or "its disk", error.strerror or error, self._run.directory),
            )
        self.whole = False
