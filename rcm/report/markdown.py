"""The page's twin in Markdown: the same tables and sentences, a few replies of each condition, and no pictures.

`escaped` makes a line that no reader of Markdown takes for markup, links included, out of whatever a model wrote.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from rcm.comparison.emergence import outside, series
from rcm.comparison.reading import Comparison, Reading
from rcm.comparison.verdict import Tuning
from rcm.record.results import Scalar, Transcripts
from rcm.record.storage import file_names
from rcm.record.transcripts import cell, condition_names
from rcm.record.units import TIED, known, plain
from rcm.report import categories, changes, emergence, equal_kl, figures, heads, sections, transplants
from rcm.report import provenance as circumstances
from rcm.report import transcripts as said
from rcm.report.figures import Cell, Told
from rcm.report.formatting import visible

EXAMPLES = 2  # replies of each condition
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", ":": "&#58;", "@": "&#64;", ".": "&#46;"}
NOTHING = "No run of the method map has finished here, so there is nothing to compare yet."


def escaped(text: str) -> str:
    """One line that says nothing but the text: fit for a cell of a table, a heading, and an item of a list."""
    line = visible(text).replace("\n", " ⏎ ").replace(TIED, " ")
    line = re.sub(r"[&<>]|:(?=\S)|@|(?<=www)\.", lambda found: ENTITIES[found[0]], line, flags=re.IGNORECASE)
    line = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    return re.sub(r"^\s*(?:(\d+)(?=[.)](?:\s|$))|(?=[#+=-]))", r"\1\\", line)


def page(comparison: Comparison, tunings: Sequence[Tuning]) -> str:
    """The whole twin as text."""
    parts = [
        "# Refusal Circuit Mapping",
        *_short(comparison, tunings),
        *_figures(comparison, tunings),
        *_others(comparison),
        *_transcripts(comparison),
        *_provenance(comparison),
        *_unfinished(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose cells are escaped already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(comparison: Comparison, tunings: Sequence[Tuning]) -> Iterator[str]:
    yield "## In short"
    yield from (f"> **Careful.** {escaped(warning)}" for warning in circumstances.warnings(comparison))
    yield from (f"**{escaped(one.name)}: {one.judged.value}.** {escaped(one.judged.said)}" for one in tunings)
    emerging = series(comparison.others)
    yield from (f"**{escaped(one.name)} over {len(one.steps)} checkpoints.** {escaped(one.said)}" for one in emerging)
    if comparison.compared:
        yield "\n".join(f"- {_title(reading)}: {_concluded(reading)}" for reading in comparison.compared)
    elif not emerging:
        yield NOTHING


def _concluded(reading: Reading) -> str:
    return " ".join(map(escaped, sections.conclusions(reading)))


def _title(reading: Reading) -> str:
    return f"**{escaped(reading.name)}** ({escaped(reading.stage)}, run {escaped(reading.run.id)})"


def _figures(comparison: Comparison, tunings: Sequence[Tuning]) -> Iterator[str]:
    if not comparison.compared:
        return
    yield "## Figures"
    yield (
        "A figure comes with its 95 % interval, with what the null reaches (shuffled labels, random directions or "
        "random heads), and with the number of prompts behind it; it is met if it exceeds both its target and its null."
    )
    for section in sections.sections(comparison.compared):
        yield f"### {section.title}"
        columns = ["", *(_title(reading) for reading in comparison.compared)]
        yield table(columns, ([escaped(row.label), *map(_cell, row.cells)] for row in section.rows))
    yield from _changes(tunings)
    yield from _transplants(comparison)
    yield from _of_runs(comparison.compared)


def _cell(cell: Cell) -> str:
    told = (f"**{cell.verdict}**" if cell.verdict else "", escaped(cell.text), escaped(cell.detail))
    return "; ".join(part for part in told if part)


def _categories(readings: Sequence[Reading]) -> Iterator[str]:
    found = categories.categories(readings)
    if found:
        yield "### Refusal by category"
        yield escaped(categories.HINT)
    for reading, shares in found:
        yield _title(reading)
        yield table(["category", *shares.kinds], ([escaped(name), *map(_cell, cells)] for name, cells in shares.rows))


def _of_runs(readings: Sequence[Reading]) -> Iterator[str]:
    """Tables that each run has of its own."""
    yield from _categories(readings)
    yield from _tables("Critical heads", heads.critical_heads(readings), heads.COLUMNS, "Strongest first. ")
    yield from _tables("Ways to steer, at equal KL", equal_kl.at_equal_kl(readings), equal_kl.COLUMNS)


def _changes(tunings: Sequence[Tuning]) -> Iterator[str]:
    for tuning in tunings:
        told = changes.told(tuning.changes)
        yield f"### What tuning changed: {escaped(tuning.name)}"
        yield escaped(f"{told.said} {_explained(changes.COLUMNS)}")
        yield _table(told, changes.COLUMNS)


def _transplants(comparison: Comparison) -> Iterator[str]:
    told = transplants.matrix(comparison.others)
    if told:
        yield "### Transplants"
        yield escaped(told.said)
        yield _table(told, transplants.COLUMNS)


def _table(told: Told, columns: Sequence[tuple[str, str]]) -> str:
    return table([name for name, _ in columns], (map(_cell, row) for row in told.rows))


def _explained(columns: Sequence[tuple[str, str]]) -> str:
    return f"{'; '.join(f'{name}: {hint}' for name, hint in columns if hint)}."


def _tables(
    title: str, found: Sequence[tuple[Reading, Told]], columns: Sequence[tuple[str, str]], lead: str = ""
) -> Iterator[str]:
    if found:
        yield f"### {title}"
        yield escaped(lead + _explained(columns))
    for reading, told in found:
        yield f"{_title(reading)}: {escaped(told.said)}"
        if told.rows:
            yield _table(told, columns)


def _others(comparison: Comparison) -> Iterator[str]:
    for one in series(comparison.others):
        yield f"## {escaped(one.name)}: emergence over {len(one.steps)} checkpoints"
        named = [(label, name) for _, lines in emergence.DRAWN for label, name in lines.items()]
        rows = (
            [str(step), *(_value(reading, name) for _, name in named)]
            for step, reading in zip(one.steps, one.readings, strict=True)
        )
        yield table(["step", *(label for label, _ in named)], rows)
    for reading in outside(comparison.others):
        yield f"## {_title(reading)}: {escaped(reading.run.choices['method'])}"
        if concluded := _concluded(reading):
            yield concluded
        scalars = reading.every(Scalar)
        if scalars:
            rows = ([escaped(s.name), plain(s.value), escaped(figures.detail(s, plain))] for s in scalars)
            yield table(["figure", "value", ""], rows)
        yield from _of_runs([reading])


def _value(reading: Reading, name: str) -> str:
    scalar = reading.scalar(name)
    return plain(scalar.value) if scalar and known(scalar.value) else "–"


def _transcripts(comparison: Comparison) -> Iterator[str]:
    yield "## Transcripts"
    yield f"At most {EXAMPLES} replies under each condition; the files beside the runs have them all."
    for reading in comparison.finished:
        for transcripts in reading.every(Transcripts):
            yield from _said(reading, transcripts)


def _said(reading: Reading, transcripts: Transcripts) -> Iterator[str]:
    files = ", ".join(f"{reading.run.id}/{name}" for name in file_names(transcripts))
    yield f"### {_title(reading)}: {escaped(transcripts.name)}"
    yield f"{len(transcripts.rows)} replies, all of them in {escaped(files)}."
    names = [*condition_names(transcripts), *said.VERDICTS]
    counted = said.counts(transcripts)
    yield table(names, ([*map(escaped, one.condition), *map(str, one.verdicts)] for one in counted))
    columns = said.columns(transcripts)
    chosen = said.samples(transcripts, EXAMPLES)
    yield table([*map(escaped, columns)], ([escaped(cell(row, name)) for name in columns] for row in chosen))


def _provenance(comparison: Comparison) -> Iterator[str]:
    told = [circumstances.facts(reading) for reading in comparison.finished]
    yield "## Provenance"
    if told:
        columns = ["", *(_title(reading) for reading in comparison.finished)]
        yield table(columns, ([label, *(escaped(facts[label]) for facts in told)] for label in told[0]))


def _unfinished(comparison: Comparison) -> Iterator[str]:
    if not comparison.unfinished:
        return
    yield "## Not finished"
    rows = (
        [run.id, run.choices["model"], run.choices["method"], run.status, run.started, run.error or ""]
        for run in comparison.unfinished
    )
    columns = ["run", "model", "method", "status", "started (UTC)", "error"]
    yield table(columns, ([escaped(part) for part in row] for row in rows))
