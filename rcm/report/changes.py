"""What differs between two runs, as a table."""

from collections.abc import Iterator

from rcm.comparison.changes import Change
from rcm.comparison.tunings import Tuning
from rcm.record.results import Column
from rcm.record.units import in_unit, interval, known, plain
from rcm.report.cells import NOTHING, Cell, lines
from rcm.report.tables import Sheet

COLUMNS = (
    Column("figure"),
    Column("before"),
    Column("after"),
    Column("difference", hint="95 % interval over resampled prompts"),
    Column("p", hint="models exchanged within prompts; Holm, over all that are tested"),
    Column("d", hint="Cohen's, within prompts"),
    Column("prompts"),
)


def sheets(tuning: Tuning) -> Iterator[Sheet]:
    """A table for each pair of runs."""
    for pair in tuning.pairs:
        title = tuning.name
        if len(tuning.pairs) > 1:
            title += f", {pair.name}: {pair.verdict.value}"
        others = [one.label for one in pair.changes if one.n is None and known(one.p)]
        untested = [one.label for one in pair.changes if not known(one.p)]
        note = [
            "On the prompts that both were asked.",
            f"Not asked the same prompts, so not compared within them: {', '.join(others)}." if others else "",
            f"Resting on fits, too, or without a value, and so not tested: {', '.join(untested)}." if untested else "",
        ]
        yield Sheet(title, " ".join(lines(*note)), COLUMNS, [_row(one) for one in pair.changes])


def _row(one: Change) -> list[Cell]:
    in_its_unit = in_unit(one.unit)
    difference = f"{'+' if one.difference > 0 else ''}{in_its_unit(one.difference)}"
    significant = "significant" if one.significant else "not significant"
    return [
        Cell(one.label),
        Cell(in_its_unit(one.before)),
        Cell(in_its_unit(one.after)),
        Cell(difference, lines(interval(one.interval, in_its_unit) if known(one.p) else "")),
        Cell(plain(one.p), (significant,)) if known(one.p) else Cell(NOTHING),
        Cell(NOTHING if one.d is None else plain(one.d)),
        Cell("others" if one.n is None else str(one.n)),
    ]
