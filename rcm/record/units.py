"""Units, and numbers as people read them."""

import math
from collections.abc import Callable

# `share`: a fraction, shown in percent; `sigma`: standard deviations within a class; `count` and `index`: whole
# numbers; any other stands behind the number (nats, log-odds, tokens); empty where a number has none.
Unit = str
Format = Callable[[float], str]
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
TIED = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line


def percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}{TIED}%"  # no minus before a zero


def sigmas(value: float) -> str:
    return f"{value:.2f}{TIED}{SIGMA}"


def plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def in_unit(unit: Unit) -> Format:
    """How figures of this unit are written."""
    match unit:
        case "share":
            return percent
        case "sigma":
            return sigmas
        case "count" | "index":
            return whole
        case "":
            return plain
        case _:
            return lambda value: f"{plain(value)}{TIED}{unit}"


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and not math.isnan(value)


def interval(ends: tuple[float, float] | None, shown: Format) -> str:
    """The 95 % interval; empty where it is not known."""
    if ends is None or not all(map(known, ends)):
        return ""
    low, high = map(shown, ends)
    number, tied, unit = low.partition(TIED)
    repeated = tied and unit.replace("-", "").isalpha() and unit != SIGMA and high.endswith(tied + unit)
    return f"95{TIED}%: {number if repeated else low} to {high}"  # 5.8 to 6.6 nats, but 10.0 % to 20.0 %
