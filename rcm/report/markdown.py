"""The page's twin in Markdown: the same tables and sentences, a few replies of each condition, and no pictures.

`escaped` makes a line that no reader of Markdown takes for markup, links included, out of whatever a model wrote.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from rcm.comparison import Comparison
from rcm.comparison.reading import Reading
from rcm.comparison.warnings import Warned
from rcm.record.encoding import file_names
from rcm.record.results import Transcripts
from rcm.record.transcripts import cell, condition_names
from rcm.record.units import TIED
from rcm.report import changes, emergence, provenance, tables, transcripts, transplants
from rcm.report.cells import Cell
from rcm.report.formatting import visible
from rcm.report.legend import legend
from rcm.report.sections import in_short, sections, spoken
from rcm.report.tables import Sheet
from rcm.report.warnings import caveats

EXAMPLES = 2  # replies of each condition
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", ":": "&#58;", "@": "&#64;", ".": "&#46;"}


def escaped(text: str) -> str:
    """One line that says nothing but the text: fit for a cell of a table, a heading, and an item of a list."""
    line = visible(text).replace("\n", " ⏎ ").replace(TIED, " ")
    line = re.sub(r"[&<>]|:(?=\S)|@|(?<=www)\.", lambda found: ENTITIES[found[0]], line, flags=re.IGNORECASE)
    line = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    return re.sub(r"^\s*(?:(\d+)(?=[.)](?:\s|$))|(?=[#+=-]))", r"\1\\", line)


def page(comparison: Comparison) -> str:
    """The whole twin as text."""
    parts = [
        "# Refusal Circuit Mapping",
        *_short(comparison),
        *_figures(comparison),
        *_emergence(comparison),
        *_others(comparison),
        *_words(comparison),
        *_transcripts(comparison),
        *_provenance(comparison),
        *_unfinished(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose cells are escaped already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(comparison: Comparison) -> Iterator[str]:
    yield "## In short"
    yield from (f"> **Careful.** {escaped(warning.sentence)}" for warning in comparison.warnings)
    for one in comparison.emergence:
        yield f"**{escaped(one.name)} over {len(one.steps)} checkpoints.** {escaped(one.sentence)}"
    for tuning in comparison.tunings:
        beside = "".join(f" ({escaped(caveat)})" for caveat in caveats(comparison.warnings, tuning))
        yield f"**{escaped(tuning.name)}: {escaped(tuning.verdict.value)}.** {escaped(tuning.verdict.said)}{beside}"
        if evidence := tuning.verdict.evidence:
            yield "\n".join(f"- {escaped(sentence)}" for sentence in evidence)
    if not comparison.finished:
        yield "No run has finished here, so there is nothing to compare yet."
    for run in in_short(comparison):
        said = (f"- **{escaped(s.what)}.** {escaped(why)}" for s, why in zip(run.first, run.every, strict=True))
        yield "\n".join([f"{_title(run.reading)}:", "", *said])
    if comparison.left_out or comparison.unreadable:
        yield "### Not compared"
        left_out = comparison.left_out
        unreadable = [f"- {escaped(why)}" for why in comparison.unreadable]
        others = [f"- **{escaped(o.run.label)}** (run {escaped(o.run.id)}): {escaped(o.why)}" for o in left_out]
        yield "\n".join([*unreadable, *others])


def _title(reading: Reading) -> str:
    return f"**{escaped(reading.name)}** ({escaped(reading.stage)}, run {escaped(reading.run.id)})"


def _figures(comparison: Comparison) -> Iterator[str]:
    if comparison.compared:
        yield "## Figures"
        yield (
            "A figure comes with its 95 % interval, with its null, which is what chance alone reaches (in brackets "
            "what was drawn, and how often), and with n, of what it was counted over; it is met if it exceeds both its "
            "target and its null."
        )
        yield from _sections(comparison.compared, comparison.warnings)
        for tuning in comparison.tunings:
            for sheet in changes.sheets(tuning):
                yield f"### What tuning changed: {escaped(sheet.title)}"
                yield from _sheet(sheet)
        yield from _stored_tables(comparison.compared)
    if transplanted := transplants.sheets(comparison.transplants):
        yield "## Transplants"
        for sheet in transplanted:
            yield f"### {escaped(sheet.title)}"
            yield from _sheet(sheet)


def _sections(readings: Sequence[Reading], warnings: Sequence[Warned] = ()) -> Iterator[str]:
    columns = ["", *map(_title, readings)]
    for section in sections(readings, warnings):
        yield f"### {escaped(section.title)}"
        if hints := [f"- {escaped(row.label)}: {escaped(row.hint)}" for row in section.measured if row.hint]:
            yield "\n".join(hints)
        if section.measured:
            yield table(columns, ([escaped(row.label), *map(_cell, row.cells)] for row in section.measured))
        if section.missing:
            yield escaped(section.missing)


def _cell(cell: Cell) -> str:
    parts = (f"**{cell.standing}**" if cell.standing else "", escaped(cell.text), escaped(cell.detail))
    return "; ".join(part for part in parts if part)


def _stored_tables(readings: Sequence[Reading]) -> Iterator[str]:
    for method, of_method in tables.by_method(readings):
        for found in of_method:
            yield f"### {escaped(spoken(method))}: {escaped(found.title)}"
            yield from (escaped(text) for text in (found.hint, *found.missing) if text)
            for sheet in found.sheets:
                yield f"**{escaped(sheet.title)}**"
                yield from _sheet(sheet)


def _sheet(sheet: Sheet) -> Iterator[str]:
    """What goes before it, how its columns are read, and the table."""
    hints = "; ".join(f"{column.label or column.name}: {column.hint}" for column in sheet.columns if column.hint)
    if about := " ".join(filter(None, (sheet.note, f"{hints}." if hints else ""))):
        yield escaped(about)
    if sheet.rows:
        columns = [escaped(column.label or column.name) for column in sheet.columns]
        yield table(columns, (map(_cell, row) for row in sheet.rows))


def _emergence(comparison: Comparison) -> Iterator[str]:
    for one in comparison.emergence:
        yield f"## {escaped(one.name)} over {len(one.steps)} checkpoints"
        yield from _sheet(emergence.sheet(one))


def _others(comparison: Comparison) -> Iterator[str]:
    for group in comparison.others:
        yield f"## {escaped(spoken(group.title))}"
        yield from _sections(group.readings)
        yield from _stored_tables(group.readings)


def _words(comparison: Comparison) -> Iterator[str]:
    """Those that occur here, with what they mean."""
    if occur := legend(comparison).occur:
        yield "## How to read the outcomes"
        explained = ((one.word, one.of, f"{one.means[:1].upper()}{one.means[1:]}.", one.then) for one in occur)
        yield table(("outcome", "of", "means", "what to do next"), (map(escaped, row) for row in explained))


def _transcripts(comparison: Comparison) -> Iterator[str]:
    yield "## Transcripts"
    yield f"At most {EXAMPLES} replies under each condition; the files beside the runs have them all."
    for reading in comparison.finished:
        for stored in reading.every(Transcripts):
            yield from _replies(reading, stored)


def _replies(reading: Reading, stored: Transcripts) -> Iterator[str]:
    files = ", ".join(f"{reading.run.id}/{name}" for name in file_names(stored))
    yield f"### {_title(reading)}: {escaped(transcripts.title(stored))}"
    yield escaped(f"{stored.hint} {transcripts.replies(stored)}, all in {files}.".lstrip())
    names = [*map(escaped, condition_names(stored)), *transcripts.VERDICTS]
    counted = transcripts.counts(stored)
    yield table(names, ([*map(escaped, one.condition), *map(str, one.verdicts)] for one in counted))
    columns = transcripts.columns(stored)
    chosen = transcripts.samples(stored, EXAMPLES)
    yield table([*map(escaped, columns)], ([escaped(cell(row, name)) for name in columns] for row in chosen))


def _provenance(comparison: Comparison) -> Iterator[str]:
    yield "## Provenance"
    if comparison.finished:
        columns = ["", *map(_title, comparison.finished)]
        facts = provenance.facts(comparison.finished)
        yield table(columns, ([escaped(label), *map(escaped, values)] for label, values in facts.items()))


def _unfinished(comparison: Comparison) -> Iterator[str]:
    if comparison.unfinished:
        yield "## Not finished"
        rows = (map(escaped, provenance.unfinished(run)) for run in comparison.unfinished)
        yield table(provenance.UNFINISHED, rows)
