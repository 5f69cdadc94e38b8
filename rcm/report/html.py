"""The page: one HTML file that holds all it needs.

Every value that the template prints is escaped (autoescape), and its invisible characters are written out (`_escaped`).
Replies lie in it as JSON, without a character that HTML gives a meaning to, until a reader opens them: rows of a table
would take longer to load than all the rest.

Besides, the page forbids itself to fetch anything and to run any script but its own.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rcm.comparison import Comparison
from rcm.comparison.overview import overview
from rcm.record.results import Transcripts
from rcm.record.transcripts import condition_names
from rcm.report import (
    changes,
    emergence,
    hero,
    legend,
    pictures,
    provenance,
    sections,
    tables,
    transcripts,
    transplants,
    warnings,
)
from rcm.report.curves import strip
from rcm.report.formatting import visible

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src '{}'; base-uri 'none'; form-action 'none'"


def page(comparison: Comparison) -> str:
    """The whole page as text."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    template = _environment().get_template("page.html.j2")
    return template.render(
        comparison=comparison,
        style=Markup(hero.style() + (HERE / "page.css").read_text(encoding="utf-8")),  # Markup: all are the page's own
        script=Markup(script),
        policy=POLICY.format(_digest(script)),
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    modules = (
        changes,
        emergence,
        hero,
        legend,
        pictures,
        provenance,
        sections,
        tables,
        transcripts,
        transplants,
        warnings,
    )
    made.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    made.globals |= {module.__name__.rsplit(".", 1)[-1]: module for module in modules}
    made.globals |= {
        "strip": strip,
        "Transcripts": Transcripts,
        "condition_names": condition_names,
        "overview": overview,
    }
    return made


def _escaped(value: Any) -> Any:
    return value if isinstance(value, Markup) else visible(str(value))


def _digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
