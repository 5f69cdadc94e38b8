"""The figure of a finished run that a sweeper optimises; the setting `optimize` names it.

It brings no PyTorch, so that a run that has finished already answers at once.
"""

import json
import logging
from pathlib import Path

from rcm.errors import InputError
from rcm.record.identity import METRICS

log = logging.getLogger(__name__)
PARTS = ("_low", "_high", "_n", "_null", "_unscored", "_kappa")  # beside a figure; left out of a list for people


def objective(directory: Path, name: str | None) -> float | None:
    """The figure of that name in `metrics.json`; None where none is named, or where it could not be measured.

    Raises InputError where the run has no such figure: only then is it known, for a method may report what it likes.
    """
    if name is None:
        return None
    metrics = json.loads((directory / METRICS).read_text(encoding="utf-8"))
    figures = [one for one, value in metrics.items() if not isinstance(value, str)]
    if name not in figures:
        listed = ", ".join(one for one in figures if not one.endswith(PARTS))
        raise InputError(f"optimize={name}: {directory} has no such figure; choose one of {listed}")
    if metrics[name] is None:
        # Not NaN: Optuna fails a trial for None and goes on, and Hydra's sweeper breaks off at NaN.
        log.warning("optimize=%s: %s could not measure it, so that the sweeper gets no value", name, directory)
        return None
    return float(metrics[name])
