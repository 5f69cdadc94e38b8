"""What differs between two runs, as a table."""

from collections.abc import Sequence

from rcm.comparison.changes import Change
from rcm.record.units import interval, known, plain
from rcm.report.figures import Cell, Told

COLUMNS = (
    ("figure", ""),
    ("before", ""),
    ("after", ""),
    ("difference", "95 % interval over resampled prompts"),
    ("p", "models exchanged within prompts; Holm, over all that are tested"),
    ("d", "Cohen's, within prompts"),
    ("prompts", ""),
)


def told(found: Sequence[Change]) -> Told:
    """As a table."""
    others = [one.label for one in found if one.n is None and known(one.p)]
    untested = [one.label for one in found if not known(one.p)]
    warnings = [
        f" Not asked the same prompts, so not compared within them: {', '.join(others)}." if others else "",
        f" Resting on fits, too, or without a value, and so not tested: {', '.join(untested)}." if untested else "",
    ]
    return Told(f"On the prompts that both were asked.{''.join(warnings)}", [_row(one) for one in found])


def _row(one: Change) -> list[Cell]:
    difference = f"{'+' if one.difference > 0 else ''}{one.unit(one.difference)}"
    return [
        Cell(one.label),
        Cell(one.unit(one.before)),
        Cell(one.unit(one.after)),
        Cell(difference, interval(one.interval, one.unit) if known(one.p) else ""),
        Cell(plain(one.p), "significant" if one.significant else "not significant") if known(one.p) else Cell("–"),
        Cell("–" if one.d is None else plain(one.d)),
        Cell("others" if one.n is None else str(one.n)),
    ]
