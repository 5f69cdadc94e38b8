"""Progress: a bar on a terminal; elsewhere, as in a log file, a line every half minute."""

import logging
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")
log = logging.getLogger(__name__)
EVERY = 30.0  # seconds between two lines


def track(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items, and tell how far it is, how fast it goes, and how long it will take."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from rich_track(items, label, console=console, transient=True)
        return
    began = monotonic()
    for done, item in enumerate(items):
        if (now := monotonic()) - _last.told >= EVERY:
            log.info("%s", so_far(label, done, len(items), now - began))
            _last.told = now
        yield item


class _Last:
    """When the last line came. All loops share it: many that are short are as silent as one that is long."""

    told = monotonic()


_last = _Last()


def so_far(label: str, done: int, of: int, seconds: float) -> str:
    """`seconds`: that the first `done` of so many took."""
    if not done:
        return f"{label}: 0 of {of}"
    each = seconds / done
    rate = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
    left = each * (of - done)
    return f"{label}: {done} of {of}, {rate}, about {f'{left / 60:.1f} min' if left >= 90 else f'{left:.0f} s'} left"
