"""Figures over the steps of training, drawn."""

from markupsafe import Markup

from rcm.comparison.emergence import Series
from rcm.record.results import Curve, Line, Scalar
from rcm.report.curves import curve, vertical_limits

NAN = float("nan")
DRAWN = (
    (
        "behaviour: share of prompts refused",
        {
            "harmful": "behaviour/refusal_rate_harmful",
            "harmless": "behaviour/refusal_rate_harmless",
            "safe lookalikes": "behaviour/refusal_rate_lookalike",
        },
    ),
    (
        "representation: told apart on test prompts",
        {"probe accuracy": "direction/probe_accuracy", "AUROC": "direction/auroc"},
    ),
    ("representation: separation, in standard deviations", {"separation": "direction/separation"}),
    (
        "cause: refusal log-odds under intervention",
        {"direction added": "direction/induce", "direction ablated": "direction/bypass"},
    ),
)
# Whose nulls are drawn beside them, as the runs reported them; that of bypass, where low is good, is a low one.
NULLED = (
    "behaviour/refusal_rate_harmful",
    "direction/probe_accuracy",
    "direction/auroc",
    "direction/separation",
    "direction/induce",
    "direction/bypass",
)


def pictures(series: Series) -> list[tuple[str, Markup]]:
    """A curve for each kind of figure that any checkpoint has."""
    found = []
    for title, lines in DRAWN:
        drawn = [_line(series, label, name) for label, name in lines.items() if _has(series, name)]
        drawn += [_null(series, label, name) for label, name in lines.items() if name in NULLED and _has(series, name)]
        if drawn:
            one = Curve(f"{series.name}: {title}", [float(step) for step in series.steps], drawn, "training step", "")
            found.append((title, curve(one, vertical_limits([one]))))
    return found


def _has(series: Series, name: str) -> bool:
    return any(reading.scalar(name) for reading in series.readings)


def _line(series: Series, label: str, name: str) -> Line:
    scalars = [reading.scalar(name) or Scalar(name, NAN) for reading in series.readings]
    ends = [scalar.interval or (NAN, NAN) for scalar in scalars]
    return Line(label, [s.value for s in scalars], [low for low, _ in ends], [high for _, high in ends])


def _null(series: Series, label: str, name: str) -> Line:
    nulls = [scalar.null if (scalar := reading.scalar(name)) else None for reading in series.readings]
    return Line(f"{label}: null", [NAN if null is None else null for null in nulls])
