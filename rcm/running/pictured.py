"""The picture of a run that has finished (`rcm.report.hero`), for whoever watches it besides its directory."""

from pathlib import Path

from rcm.record.storage import whole
from rcm.record.stored import stored_run

NAME = "overview.png"


def pictured(directory: Path) -> Path | None:
    """Draw the finished run of this directory, and give the file beside its results; None of a run that measured no
    model, which has none."""
    from rcm.comparison import compare  # here, because drawing imports matplotlib, for a second
    from rcm.comparison.overview import overview
    from rcm.report.hero_in_print import png

    families = compare([stored_run(directory)]).families
    if not families:
        return None
    with whole(directory / NAME) as path:
        path.write_bytes(png(overview(families[0])))
    return directory / NAME
