"""Locks on disks that have them, and on disks that do not: flock is made to say so, as such disks do."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from rcm.errors import InputError
from rcm.record.findings import Place
from rcm.record.locks import Timeout, held
from rcm.running.run import alone_in


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the disk says, in the system's words."""
    number = getattr(errno, request.param)

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return os.strerror(number)


def test_a_second_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(Timeout), held(tmp_path / "lock"):
        pass
    with held(tmp_path / "lock"):
        assert not (tmp_path / "lock.held").exists()


def test_without_locks_a_file_keeps_the_second_out_and_is_gone_after_the_first(
    tmp_path: Path, no_locks: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lock").touch()  # of a run on this disk when it had locks still
    with caplog.at_level(logging.WARNING), alone_in(tmp_path):
        told = r"wait until it has finished, or remove \S+/lock\.held if its machine has died\.$"
        with pytest.raises(InputError, match=told), alone_in(tmp_path):
            pass
        assert f"{tmp_path / 'lock'}: this disk has no locks ({no_locks}); lock.held stands for one." in caplog.text
    with alone_in(tmp_path):
        pass
    assert not (tmp_path / "lock.held").exists()
    place = Place(tmp_path, "0a1b")
    with place.alone():
        assert (tmp_path / ".findings" / "0a1b.lock.held").exists()


def test_a_file_of_a_process_of_this_machine_that_is_gone_keeps_nobody_out(tmp_path: Path, no_locks: str) -> None:
    child = os.fork()
    if child == 0:
        with held(tmp_path / "lock"):
            os._exit(0)  # as a kill would
    os.waitpid(child, 0)
    assert (tmp_path / "lock.held").exists()
    with held(tmp_path / "lock"):
        pass


def test_what_is_no_matter_of_locks_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"File exists|Not a directory"), held(tmp_path / "file" / "lock"):
        pass
