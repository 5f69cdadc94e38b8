"""A section for a model card on the Hugging Face Hub: what was measured of a model's refusals, and how.

Every figure stands with its 95 % interval, its null and its n, and what was concluded in the run's own words. The rates
of refusal are also given as a `model-index` block, the metadata by which the Hub shows results; it belongs into the
YAML at the top of the card. Other figures are no scores of a model on a data set, and stay out of it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from rcm.errors import InputError
from rcm.record.provenance import commit_of
from rcm.record.results import Outcome, Scalar
from rcm.record.stored import StoredRun
from rcm.record.units import in_unit, interval

REFUSAL_RATE = "behaviour/refusal_rate_"


def card(run: StoredRun) -> str:
    """Markdown; raises InputError where the run did not finish or measured nothing."""
    if run.status != "finished":
        raise InputError(f"The run in {run.directory} is {run.status}, not finished; a card is of a finished run.")
    results = run.results()
    scalars = [one for one in results if isinstance(one, Scalar) and _told(one)]
    outcomes = [one for one in results if isinstance(one, Outcome) and not one.name.startswith("summary/")]
    if not scalars and not outcomes:
        raise InputError(f"{run.directory} has neither figures nor conclusions; give a run of map or behaviour.")
    return "\n".join(_lines(run, scalars, outcomes)) + "\n"


def _told(scalar: Scalar) -> bool:
    """A figure that can be weighed: with an interval, and a null or, of a rate of the model as it is, a judge."""
    weighed = scalar.null is not None or scalar.name.startswith(REFUSAL_RATE)
    return math.isfinite(scalar.value) and scalar.interval is not None and weighed


def _lines(run: StoredRun, scalars: Sequence[Scalar], outcomes: Sequence[Outcome]) -> Iterator[str]:
    judge, kappa = run.choices.get("judge", "unknown"), run.config.get("judge", {}).get("kappa")
    yield from ("## Refusal: what was measured", "")
    agreement = (
        f"its kappa with people is {kappa}" if kappa is not None else "how far it agrees with people is not known"
    )
    yield (
        f"Measured by rcm (Refusal Circuit Mapping) {_version(run)} on {run.started[:10]}; code: "
        f"{commit_of(run.provenance)}; run `{run.id}`. Model: `{run.label}`, weights digest `{run.weights}`; prompts: "
        f"`{run.choices.get('dataset', 'unknown')}`, digest `{run.data}`. Judge of refusals: `{judge}`; {agreement}."
    )
    if outcomes:
        yield from ("", "| method | outcome | why |", "|---|---|---|")
        for one in outcomes:
            caveat = f" ({one.caveat})" if one.caveat else ""
            yield f"| {_method(one.name)} | {_cell(one.value.replace('_', ' '))}{caveat} | {_cell(one.because)} |"
    if scalars:
        yield from ("", "| figure | value | 95 % interval | null (95 %) | n |", "|---|---|---|---|---|")
        yield from map(_row, scalars)
        yield from (
            "",
            "The null is what chance alone reaches, at 95 % of the draws named beside it. Intervals are over prompts, "
            "by their categories; they do not count how often the judge errs.",
        )
    limits = "how the model behaves on other prompts, in other languages, in long conversations, or when it is attacked"
    yield from ("", f"What this does not show: {limits}.")
    yield from ("", f"To repeat it: `rcm` {_version(run)} with `{run.provenance.get('command', 'unknown')}`.")
    rates = [one for one in scalars if one.name.startswith(REFUSAL_RATE)]
    if rates:
        yield from ("", "For the YAML at the top of the card:", "", "```yaml")
        index = yaml.safe_dump({"model-index": [_index(run, rates)]}, sort_keys=False, allow_unicode=True)
        yield from (*index.rstrip().split("\n"), "```")


def _row(scalar: Scalar) -> str:
    shown = in_unit(scalar.unit)
    band = interval(scalar.interval, shown).partition(": ")[2] or "not measured"
    null = "none"
    if scalar.null is not None:
        draws = "" if scalar.null.draws is None else f"{scalar.null.draws} "
        null = f"{shown(scalar.null.value)} ({draws}{scalar.null.of})"
    caveat = f", {scalar.caveat}" if scalar.caveat else ""
    name = f"{_method(scalar.name)}: {f'{scalar.row}, ' if scalar.row else ''}{scalar.label or scalar.name}{caveat}"
    n = "" if scalar.n is None else f"{scalar.n} {scalar.counts}"
    return f"| {' | '.join(map(_cell, (name, shown(scalar.value), band, null, n)))} |"


def _index(run: StoredRun, rates: Sequence[Scalar]) -> dict[str, Any]:
    """As the Hub's specification has it; a rate is a fraction."""
    data = run.choices.get("dataset", "unknown")
    metrics = [
        {"type": one.name.removeprefix("behaviour/"), "value": round(one.value, 4), "name": one.label} for one in rates
    ]
    dataset = {"name": f"rcm {data} ({run.data})", "type": data, "split": "test"}
    result = {
        "task": {"type": "text-generation", "name": "Refusal"},
        "dataset": dataset,
        "metrics": metrics,
    }
    return {"name": run.label, "results": [result]}


def _version(run: StoredRun) -> str:
    return str((run.provenance.get("packages") or {}).get("rcm") or "of unknown version")


def _method(name: str) -> str:
    return name.partition("/")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
