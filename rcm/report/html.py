"""The page: one HTML file that holds all it needs.

Every value that the template prints is escaped (autoescape), and its invisible characters are written out (`_printed`).
Replies lie in it as JSON, without a character that HTML gives a meaning to, until a reader opens them: rows of a table
would take longer to load than all the rest.

Besides, the page forbids itself to fetch anything and to run any script but its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rcm.comparison.emergence import outside, series
from rcm.comparison.reading import Comparison, Reading
from rcm.comparison.verdict import Tuning
from rcm.record.results import Scalar, Transcripts
from rcm.record.transcripts import condition_names
from rcm.record.units import plain
from rcm.report import categories, changes, emergence, equal_kl, figures, heads, sections, transplants
from rcm.report import provenance as circumstances
from rcm.report import transcripts as said
from rcm.report.curves import strip
from rcm.report.formatting import duration, visible
from rcm.report.pictures import curve_rows, map_rows, tuning_rows

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src '{}'; base-uri 'none'; form-action 'none'"


def page(comparison: Comparison, tunings: Sequence[Tuning]) -> str:
    """The whole page as text."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            comparison=comparison,
            tunings=[(one, changes.told(one.changes)) for one in tunings],
            alike={family.name: tuning_rows(family, tunings) for family in comparison.families},
            emerging=series(comparison.others),
            others=outside(comparison.others),
            transplants=transplants.matrix(comparison.others),
            sections=sections.sections(comparison.compared),
            facts=[circumstances.facts(reading) for reading in comparison.finished],
            warnings=circumstances.warnings(comparison),
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # Markup: these two are the page's own
            script=Markup(script),
            policy=POLICY.format(_digest(script)),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "curve_rows": curve_rows,
        "map_rows": map_rows,
        "strip": strip,
        "categories": categories.categories,
        "CATEGORIES_HINT": categories.HINT,
        "critical_heads": heads.critical_heads,
        "HEAD_COLUMNS": heads.COLUMNS,
        "at_equal_kl": equal_kl.at_equal_kl,
        "KL_COLUMNS": equal_kl.COLUMNS,
        "TRANSPLANT_COLUMNS": transplants.COLUMNS,
        "CHANGE_COLUMNS": changes.COLUMNS,
        "conclusions": sections.conclusions,
        "duration": duration,
        "pictures": emergence.pictures,
        "said": said,
        "condition_names": condition_names,
        "transcripts_of": transcripts_of,
        "scalars_of": scalars_of,
    }
    return made


def _printed(value: Any) -> Any:
    return value if isinstance(value, Markup) else visible(str(value))


def transcripts_of(reading: Reading) -> list[Transcripts]:
    return reading.every(Transcripts)


def scalars_of(reading: Reading) -> list[tuple[Scalar, str]]:
    """The figures of a run of another method, each with its detail."""
    return [(scalar, figures.detail(scalar, plain)) for scalar in reading.every(Scalar)]


def _digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
