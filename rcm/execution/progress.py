"""Progress bars: shown on a terminal, silent elsewhere."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

Item = TypeVar("Item")


def track(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Yield the items; on a terminal, show how far it is and how long it will take."""
    console = Console(stderr=True)
    yield from rich_track(items, label, console=console, disable=not console.is_terminal, transient=True)
