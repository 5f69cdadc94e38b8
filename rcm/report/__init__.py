"""One page that compares runs: what they found, how sure that is, and under which circumstances.

It draws what runs and their comparison say, knows no method, and concludes nothing: which figures, tables, maps and
curves there are, what they are called and how they are read stands in the stored results (`rcm.record.results`).

    cells            what one run says in one place of a table
    sections         the table that stands first: a row for each figure, a section for each method
    legend           what the words of outcomes mean, as the results say it
    warnings         what to be careful about, the gravest first
    tables           tables that runs stored; changes, transplants, emergence: those of the comparison
    hero             the picture of a family, which stands above all; hero_in_print for slides
    pictures         maps, curves and circuits side by side, on common scales; drawn by heatmaps, curves, scatters,
                     diagrams, svg, in colours
    transcripts      their columns, their filters, their counts
    provenance       where each run comes from
    formatting       untrusted text and durations, as people read them
    html, markdown   the page and its twin
    paper            all tables as CSV and LaTeX, all pictures as PDF and PNG (matplotlib_figures)

Nothing on the page is fetched, and nothing that a model wrote is taken for markup.
"""

from collections.abc import Sequence
from pathlib import Path

from rcm.comparison import compare
from rcm.comparison.comparison_json import as_text
from rcm.errors import FULL, InputError
from rcm.record.storage import whole
from rcm.record.stored import readable_runs
from rcm.report.html import page as html_page
from rcm.report.markdown import page as markdown_page

PAGE, TWIN, DATA, PAPER = "index.html", "report.md", "comparison.json", "paper"


def write(places: Path | Sequence[Path], out: Path, paper: bool = False) -> tuple[Path, Path]:
    """Compare the runs at these places, folders of runs or single ones; return the page and its Markdown twin, both in
    `out`. Beside them lie what was concluded, as JSON, and the picture of each family, for slides; with `paper`, tables
    and pictures as files (`rcm.report.paper`)."""
    every = [places] if isinstance(places, Path) else places
    runs, unreadable = readable_runs(*every)
    if not runs:
        others = f" that can be read: {' '.join(unreadable)}" if unreadable else "; python launch.py makes one."
        raise InputError(f"There are no runs in {', '.join(map(str, every))}{others}")
    from rcm.report.hero_in_print import slides  # here, as the pictures for papers: matplotlib takes a second to import

    comparison = compare(runs, unreadable)
    texts = {
        PAGE: html_page(comparison),
        TWIN: markdown_page(comparison),
        DATA: as_text(comparison),
    }
    try:
        for name, text in texts.items():
            with whole(out / name) as file:
                file.write_text(text, encoding="utf-8")
        for path, content in slides(comparison):
            with whole(out / path) as file:
                file.write_bytes(content)
        if paper:
            from rcm.report.paper import write as write_paper

            write_paper(comparison, out / PAPER)
    except OSError as error:
        room = "make room there, or " if error.errno in FULL else ""
        raise InputError(f"Cannot write to {out} ({error.strerror}); {room}name another folder with --out.") from error
    return out / PAGE, out / TWIN
