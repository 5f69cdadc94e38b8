"""One page that compares runs: what they found, how sure that is, and under which circumstances.

    reading          the stored runs, sorted into families and stages
    sections         the table that stands first: which figures stand in it
    figures          a figure as a row of it: value, interval, null and verdict, one cell for each run
    categories       how often prompts of each category are refused
    heads            the critical heads of a run
    changes          what differs between two runs of a family, prompt by prompt
    cosines          how alike the directions of two runs are
    verdict          what tuning changed, in a word with its evidence
    transplants      what the direction of each model does in each
    emergence        figures over training steps
    circumstances    where each run comes from, and what should make one hesitate to compare two of them
    said             transcripts: their columns, their filters, their counts
    words            numbers and untrusted text, as people read them
    svg, pictures    heatmaps, curves and intervals, drawn; put side by side on common scales
    html, markdown   the page and its twin
    paper            its tables as CSV and LaTeX, its pictures as PDF and PNG

Nothing on the page is fetched, and nothing that a model wrote is taken for markup.
"""

from pathlib import Path

from rcm.comparison.reading import Comparison
from rcm.comparison.verdict import tunings
from rcm.errors import InputError
from rcm.record.storage import stored_runs
from rcm.report.html import page as html_page
from rcm.report.markdown import page as markdown_page

PAGE, TWIN, PAPER = "index.html", "report.md", "paper"


def write(folder: Path, out: Path, paper: bool = False) -> tuple[Path, Path]:
    """Compare the runs in `folder`; return the page and its Markdown twin, both in `out`. With `paper`, tables and
    pictures as files beside them (`rcm.report.paper`)."""
    runs = stored_runs(folder)
    if not runs:
        raise InputError(f"There are no runs in {folder}; python launch.py makes one.")
    comparison = Comparison.of(runs)
    found = tunings(comparison)
    written = out / PAGE, out / TWIN
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in zip(written, (html_page(comparison, found), markdown_page(comparison, found)), strict=True):
            path.write_text(text, encoding="utf-8")
        if paper:
            from rcm.report.paper import write as write_paper  # draws with matplotlib, which takes a second to import

            write_paper(comparison, found, out / PAPER)
    except OSError as error:
        raise InputError(f"Cannot write to {out} ({error.strerror}); name another folder with --out.") from error
    return written
