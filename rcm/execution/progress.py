"""Progress: a bar on a terminal; elsewhere, as in a log file, a line every half minute."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")
log = logging.getLogger(__name__)
EVERY = 30.0  # seconds between two lines


def track(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items, and tell how far it is, how fast it goes, and how long it will take."""
    with progress(len(items), label) as done:
        for item in items:
            yield item
            done(1)


@contextmanager
def progress(of: int, label: str | None) -> Iterator[Callable[[int], None]]:
    """The same for a loop that says itself how many more of its items are done; without a label nothing is told."""
    console = Console(stderr=True)
    if label is None:
        yield lambda more: None
        return
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(label, total=of)
            yield lambda more: bar.advance(task, more)
        return
    loop, over = Loop(label, of, time.monotonic()), threading.Event()
    _tell_if_due(loop)
    # One item may take minutes, as a large batch of replies does: a line must come in its midst.
    threading.Thread(target=_tell_until, args=(over, loop), daemon=True).start()
    try:
        yield loop.advance
    finally:
        over.set()


@dataclass
class Loop:
    """How far a loop is. `began`: by the monotonic clock; `took`: the seconds in which the first `done` were done."""

    label: str
    of: int
    began: float
    done: int = 0
    took: float = 0.0

    def advance(self, more: int) -> None:
        self.done, self.took = self.done + more, time.monotonic() - self.began
        if self.done < self.of:
            _tell_if_due(self)

    def so_far(self, now: float) -> str:
        """In one line. What was done tells the rate, and what is under way has its share of the time already."""
        if not self.done:
            return f"{self.label}: 0 of {self.of}, since {now - self.began:.0f} s"
        each = self.took / self.done
        rate = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
        left = max(each * (self.of - self.done) - (now - self.began - self.took), 0.0)
        until = f"{left / 60:.1f} min" if left >= 90 else f"{left:.0f} s"
        return f"{self.label}: {self.done} of {self.of}, {rate}, about {until} left"


class _Last:
    """When the last line came. All loops share it: many that are short are as silent as one that is long."""

    told = time.monotonic()
    lock = threading.Lock()


_last = _Last()


def _tell_if_due(loop: Loop) -> None:
    with _last.lock:
        now = time.monotonic()
        if now - _last.told >= EVERY:
            log.info("%s", loop.so_far(now))
            _last.told = now


def _tell_until(over: threading.Event, loop: Loop) -> None:
    while not over.wait(max(_last.told + EVERY - time.monotonic(), EVERY / 100)):
        _tell_if_due(loop)
