"""Where nobody watches a terminal, the log tells how far it is."""

import logging
import threading
import time

import pytest

from rcm.execution import progress
from rcm.execution.progress import Loop, track


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, with a line due every 0.1 s, the last one just now."""
    monkeypatch.setattr(progress, "EVERY", 0.1)
    monkeypatch.setattr(progress._last, "told", time.monotonic())
    caplog.set_level(logging.INFO)
    return caplog


def test_a_long_loop_tells_as_it_goes(lines: pytest.LogCaptureFixture) -> None:
    for _ in track(range(8), "pairs"):
        time.sleep(0.06)
    assert len(lines.messages) >= 2
    assert all(line.startswith("pairs: ") and "of 8, " in line for line in lines.messages)
    done = [int(line.split()[1]) for line in lines.messages]
    assert done == sorted(done)
    assert done[-1] > done[0]


def test_one_long_item_is_no_silence(lines: pytest.LogCaptureFixture) -> None:
    for _ in track([0], "replies"):
        time.sleep(0.5)
    assert len(lines.messages) >= 2
    assert {line.partition(",")[0] for line in lines.messages} == {"replies: 0 of 1"}


def test_many_short_loops_are_no_silence(lines: pytest.LogCaptureFixture) -> None:
    for i in range(12):
        for _ in track([0], f"loop {i}"):
            time.sleep(0.03)
    assert len(lines.messages) >= 2


def test_what_goes_quickly_tells_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress._last, "told", time.monotonic())
    caplog.set_level(logging.INFO)
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert not caplog.messages


@pytest.mark.parametrize("stopped", [True, False])
def test_nothing_is_told_of_a_loop_that_is_over(lines: pytest.LogCaptureFixture, stopped: bool) -> None:
    before = threading.active_count()
    loop = track(range(3), "halves")
    next(loop)
    if stopped:
        loop.close()  # type: ignore[attr-defined]  # a generator, which a loop that breaks off closes
    else:
        list(loop)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    told = len(lines.messages)
    time.sleep(0.3)
    assert len(lines.messages) == told


@pytest.mark.parametrize(
    ("done", "took", "now", "told"),
    [
        (0, 0.0, 40.0, "x: 0 of 8, since 40 s"),
        (4, 1.0, 1.0, "x: 4 of 8, 4.0 a second, about 1 s left"),
        (2, 100.0, 100.0, "x: 2 of 8, 50.0 s each, about 5.0 min left"),
        (2, 100.0, 130.0, "x: 2 of 8, 50.0 s each, about 4.5 min left"),  # in the midst of the third
        (7, 70.0, 95.0, "x: 7 of 8, 10.0 s each, about 0 s left"),  # the last one takes longer than the others
    ],
)
def test_how_fast_it_goes_is_said(done: int, took: float, now: float, told: str) -> None:
    assert Loop("x", 8, 0.0, done, took).so_far(now) == told
