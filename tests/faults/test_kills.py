"""SIGKILL at any moment: what was whole stays so, what had finished is not run again, and the same command ends well.

Moments are counted in writes, renames, removals and links, which hits between any two of them more surely than a clock;
`NoMoreThan` kills in the midst of one. Killed runs are started again and killed again, as a cluster would do it.
"""

import random
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from rcm.record.storage import PARTIAL, records
from rcm.record.stored import stored_run
from tests.faults.homes import a_home, check_whole, kept_steps, noting, what_runs_say
from tests.faults.methods import calls
from tests.faults.processes import Counted, Fault, KilledAt, NoMoreThan, ended, launch

SWEEP = ("-m", "seed=0,1")
KILLS = 20


class Undisturbed(NamedTuple):
    """What the multirun comes to; `moments`: at how many a kill can hit it."""

    files: Mapping[str, bytes]
    moments: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = a_home(tmp_path_factory.mktemp("undisturbed"))
    done = ended(home, launch(*SWEEP), Counted(home.parent / "moments"), environment=noting(home))
    assert done.code == 0, done.said
    return Undisturbed(what_runs_say(home), (home.parent / "moments").stat().st_size)


def attempt(home: Path, *faults: Fault) -> int:
    """The exit code of the multirun under a fault, once it is known that it ran nothing again, and lost nothing."""
    finished, kept, before = check_whole(home), kept_steps(home), len(calls(home.parent / "calls"))
    written = {run.directory / "results.jsonl": (run.directory / "results.jsonl").stat() for run in finished}
    done = ended(home, launch(*SWEEP), *faults, environment=noting(home))
    assert "Traceback" not in done.said
    assert not set(calls(home.parent / "calls")[before:]) & kept
    assert {path: path.stat() for path in written} == written
    assert {run.id for run in check_whole(home)} >= {run.id for run in finished}
    assert kept_steps(home) >= kept
    return done.code


def test_a_multirun_that_is_killed_at_twenty_moments_ends_as_if_it_had_not_been(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    draw, kills = random.Random(21), 0
    for round in count():
        (tmp_path / str(round)).mkdir()
        home, left = a_home(tmp_path / str(round)), undisturbed.moments
        # Anywhere at first, then somewhere in the first half of what is left, so that it is mostly hit again.
        while kills < KILLS and (code := attempt(home, KilledAt(draw.randint(1, left)))) != 0:
            assert code == -9
            kills, left = kills + 1, undisturbed.moments // 3
        assert attempt(home) == 0
        assert what_runs_say(home) == undisturbed.files
        assert not list(home.rglob(f"*{PARTIAL}*"))
        if kills == KILLS:
            break


@pytest.mark.parametrize("size", [150, 2500, 9000])
def test_a_kill_in_the_midst_of_a_write_leaves_no_half_file(
    undisturbed: Undisturbed, tmp_path: Path, size: int
) -> None:
    home = a_home(tmp_path)
    assert attempt(home, NoMoreThan(size, kills=True)) == -25
    assert attempt(home) == 0
    assert what_runs_say(home) == undisturbed.files


def test_what_had_finished_stays_whole_until_its_successor_is(tmp_path: Path) -> None:
    """Killed while it is run anew with other figures, a run is the old one in every file, or the new one in every."""
    home = a_home(tmp_path)
    action = launch("seed=0", "reuse=false")
    assert ended(home, action, environment=noting(home, 1)).code == 0
    (run,) = check_whole(home)
    old = what_it_says(run.directory)
    anew, draw, kills, value = launch("seed=0", "reuse=false", "rerun=true"), random.Random(3), 0, 2
    assert ended(home, anew, Counted(tmp_path / "moments"), environment=noting(home, value)).code == 0
    new, moments = what_it_says(run.directory), (tmp_path / "moments").stat().st_size
    assert all(old[name] != new[name] for name in ("metrics.json", "results.jsonl", "show_streams.safetensors"))
    seen = {1: old, 2: new}
    for nth in sorted(draw.sample(range(1, moments + 1), 10)):
        value = 3 - value
        code = ended(home, anew, KilledAt(nth), environment=noting(home, value)).code
        assert code in (0, -9)
        kills += code == -9
        (now,) = check_whole(home)
        said = what_it_says(now.directory)
        assert said in (old, new), nth
        value = next(one for one in seen if seen[one] == said)
    assert kills >= 8
    assert ended(home, launch("seed=0", "reuse=false")).code == 0  # and then it has finished already
    assert what_it_says(run.directory) == seen[value]
    assert not (run.directory / ".before").exists()


def what_it_says(directory: Path) -> dict[str, bytes]:
    """Every file that a finished run names, and its figures."""
    names = [name for record in records(directory) for name in record["files"]]
    return {name: (directory / name).read_bytes() for name in (*names, "results.jsonl", "metrics.json")}


def test_a_reader_of_a_killed_run_is_told_what_it_is(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    assert ended(home, launch("seed=0"), NoMoreThan(9000, kills=True), environment=noting(home)).code == -25
    (directory,) = [path.parent for path in (home / "runs").glob("*/run.json")]
    assert stored_run(directory).status == "started"
