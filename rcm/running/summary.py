"""What a run comes to: the figures that have a target, whatever methods report them, and how many are met.

A figure is met if it exceeds its target *and* its null.
"""

from collections.abc import Iterator, Sequence

from rcm.record.results import SUMMARY, Column, Outcome, Result, Scalar, Table
from rcm.record.units import known

COLUMNS = ("figure", "value", "low", "high", "n", "null", "target", "met")


def summary(scalars: Sequence[Scalar]) -> Iterator[Result]:
    """Nothing where no figure has a target."""
    figures = [scalar for scalar in scalars if scalar.target is not None]
    if not figures:
        return
    rows = [
        (f.name, f.value, *(f.interval or (None, None)), f.n, f.null and f.null.value, f.target, bool(f.met))
        for f in figures
    ]
    shown = [Column("figure"), Column("value"), Column("target"), Column("met")]
    yield Table(f"{SUMMARY}/targets", COLUMNS, rows, "targets", "What a good analysis shows.", shown)
    met = [f for f in figures if f.met]
    rest = [("Not met", [f for f in figures if not f.met and known(f.value)])]
    rest += [("Not measured", [f for f in figures if not known(f.value)])]
    because = [f"{what}: {', '.join(f.label or f.name for f in some)}." for what, some in rest if some]
    because = because or [f"{_listed([f.label or f.name for f in figures])} met."]
    for caveat in dict.fromkeys(f.caveat for f in met if f.caveat):
        because.append(f"Of a {caveat}: {', '.join(f.label or f.name for f in met if f.caveat == caveat)}.")
    yield Outcome(f"{SUMMARY}/outcome", f"{len(met)} of {len(figures)} met", " ".join(because))


def _listed(names: Sequence[str]) -> str:
    """As a sentence begins: A, b and c are."""
    joined = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{joined[0].upper()}{joined[1:]} {'are' if len(names) > 1 else 'is'}"


def as_text(scalars: Sequence[Scalar]) -> str:
    """The same as a table for the log; empty if there is none."""
    figures = [scalar for scalar in scalars if scalar.target is not None]
    if not figures:
        return ""
    rows = [("", "value [95 % interval]", "null", "target", ""), *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("\n  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(scalar: Scalar) -> tuple[str, str, str, str, str]:
    null = "" if scalar.null is None or not known(scalar.null.value) else f"{scalar.null.value:.3g}"
    verdict = "met" if scalar.met else "NOT MET" if known(scalar.value) else "not measured"
    return scalar.name, f"{value_of(scalar)}{in_brackets(scalar)}", null, f"> {scalar.target:.3g}", verdict


def value_of(scalar: Scalar) -> str:
    """A dash for what was not measured."""
    return f"{scalar.value:.3g}" if known(scalar.value) else "-"


def in_brackets(scalar: Scalar) -> str:
    """The interval, after a space; empty where there is none."""
    return " [{:.3g}, {:.3g}]".format(*scalar.interval) if scalar.interval and all(map(known, scalar.interval)) else ""
