"""Numbers as people read them."""

import math
from collections.abc import Callable

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
TIED = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line

Unit = Callable[[float], str]


def percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}{TIED}%"  # no minus before a zero


def sigmas(value: float) -> str:
    return f"{value:.2f}{TIED}{SIGMA}"


def plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and not math.isnan(value)


def interval(ends: tuple[float, float] | None, unit: Unit) -> str:
    """The 95 % interval; empty where it is not known."""
    return f"95{TIED}%: {unit(ends[0])} to {unit(ends[1])}" if ends and all(map(known, ends)) else ""
