"""Where nobody watches a terminal, the log tells how far it is."""

import logging
from collections.abc import Iterator

import pytest

from rcm.execution import progress
from rcm.execution.progress import so_far, track


def test_the_log_has_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def clock() -> Iterator[float]:
        seconds = 0.0
        while True:
            yield seconds
            seconds += 12.0

    ticking = clock()
    monkeypatch.setattr(progress, "monotonic", lambda: next(ticking))
    monkeypatch.setattr(progress._last, "told", 0.0)
    caplog.set_level(logging.INFO)
    assert list(track(list(range(8)), "pairs")) == list(range(8))
    assert caplog.messages == [
        "pairs: 2 of 8, 18.0 s each, about 1.8 min left",
        "pairs: 5 of 8, 14.4 s each, about 43 s left",
    ]


def test_many_short_loops_are_no_silence(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter(float(i) for i in range(0, 1000, 8))
    monkeypatch.setattr(progress, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(progress._last, "told", 0.0)
    caplog.set_level(logging.INFO)
    for i in range(4):
        list(track([0], f"loop {i}"))
    assert caplog.messages == ["loop 2: 0 of 1"]


def test_what_goes_quickly_tells_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress._last, "told", progress.monotonic())
    caplog.set_level(logging.INFO)
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("done", "seconds", "told"),
    [
        (0, 40.0, "x: 0 of 8"),
        (4, 1.0, "x: 4 of 8, 4.0 a second, about 1 s left"),
        (2, 100.0, "x: 2 of 8, 50.0 s each, about 5.0 min left"),
    ],
)
def test_how_fast_it_goes_is_said(done: int, seconds: float, told: str) -> None:
    assert so_far("x", done, 8, seconds) == told
