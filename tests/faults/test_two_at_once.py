"""Several processes that begin at once: each thing is done by one of them, and nobody reads what is half done."""

import os
import signal
import time
from pathlib import Path

from tests.faults.homes import a_home, check_whole, noting
from tests.faults.methods import SECONDS, calls
from tests.faults.processes import Done, Held, Process, launch, started


def at_once(home: Path, *overrides: tuple[str, ...], seconds: float = 0.0) -> list[Process]:
    """A process for each of these launches, none of which begins before the last is ready. `seconds`: that the method
    `find` takes."""
    start = home.parent / "start"
    under_way = [
        started(home, launch(*one), Held(start), environment={**noting(home), SECONDS: str(seconds)})
        for one in overrides
    ]
    time.sleep(0.3)  # they are forked by now; a process that is not waits for nothing
    start.touch()
    return under_way


def test_of_two_at_one_run_one_makes_it_and_the_other_says_so(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    done = sorted(
        (one.done() for one in at_once(home, ("seed=0",), ("seed=0",), seconds=1.5)), key=lambda one: one.code
    )
    assert done[0].code == 0
    assert _finished_or_refused(done[1])
    assert calls(tmp_path / "calls") == ["find 0", "show 0", "use 0"]
    assert len(check_whole(home)) == 1


def _finished_or_refused(done: Done) -> bool:
    if done.code == 0:  # the machine was so busy that it came late
        return "Finished already" in done.said
    return done.code == 1 and "Another process is at this very run" in done.sentence


def test_two_runs_that_share_findings_make_them_once(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    both = at_once(home, ("seed=0", "method.use.by=2"), ("seed=0", "method.use.by=3"), seconds=1)
    assert [one.done().code for one in both] == [0, 0]
    assert sorted(calls(tmp_path / "calls")) == ["find 0", "show 0", "use 0", "use 0"]
    scaled = sorted(float(run.metrics["use/scaled"] or 0) for run in check_whole(home))
    assert len(scaled) == 2
    assert scaled[0] < scaled[1]


def test_who_waits_for_a_finding_makes_it_when_its_maker_is_killed(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    maker, other = at_once(home, ("seed=0", "method.use.by=2"), ("seed=0", "method.use.by=3"), seconds=1.5)
    while not calls(tmp_path / "calls"):
        time.sleep(0.01)
    time.sleep(0.5)  # the other waits for it by now
    if "waiting for what it finds" in "".join(maker.output):
        maker, other = other, maker
    assert maker.job.pid is not None
    os.killpg(maker.job.pid, signal.SIGKILL)
    assert maker.done().code == -signal.SIGKILL
    done = other.done()
    assert (done.code, "waiting for what it finds" in done.said) == (0, True), done.said
    assert calls(tmp_path / "calls") == ["find 0", "find 0", "show 0", "use 0"]
    assert [run.status for run in check_whole(home)] == ["finished"]
