"""A second method for the stubs, in whose middle a job can be killed."""

import os
import time
from collections.abc import Generator
from pathlib import Path

import rcm.methods
from rcm.methods import Study
from rcm.record.results import Result, Scalar

GO = "RCM_STUB_GO"  # in the environment: the file that the method waits for
OPTION = "# @package method.waiting\n_target_: tests.cluster.waiting.Waiting\nseeds: []\n"


class Waiting(rcm.methods.Method):
    """Reports a figure, then, with one of these seeds, waits until there is a file, and reports another."""

    seeds: tuple[int, ...]

    def run(self, study: Study) -> Generator[Result, None, None]:
        yield Scalar("waiting/before", 1.0)
        while study.seed in self.seeds and not Path(os.environ[GO]).exists():
            time.sleep(0.05)
        yield Scalar("waiting/after", 2.0)
