"""What should make one hesitate to compare runs that stand side by side."""

from collections.abc import Iterator, Mapping, Sequence

from rcm.comparison.families import Family
from rcm.comparison.identity import seed_of, weights_of
from rcm.comparison.names import SEEN_IN_TRAINING
from rcm.comparison.reading import Reading
from rcm.comparison.settings import differing, shortened
from rcm.record.provenance import commit_of
from rcm.record.units import known, percent


def warnings(families: Sequence[Family]) -> list[str]:
    """One sentence for each reason to be careful."""
    compared = [reading for family in families for reading in family.readings]
    return [
        *_difference("commit", [(reading, commit_of(reading.run.provenance)) for reading in compared]),
        *_seeds(compared),
        *_settings(compared),
        *_templates(families),
        *_unclean(compared),
        *_seen(compared),
    ]


def _settings(readings: Sequence[Reading]) -> Iterator[str]:
    """Where two data sets or judges stand side by side, that each has settings of its own goes without saying."""
    found = differing(readings)
    for name, values in found.items():
        group, _, setting = name.partition(".")
        if not (setting and group in ("dataset", "judge") and group in found):
            yield from _difference(name, values)


def _seeds(readings: Sequence[Reading]) -> Iterator[str]:
    """Models that share no seed; that one model was run with several is no reason to be careful."""
    seeds: dict[str, set[str]] = {}
    for reading in readings:
        seeds.setdefault(weights_of(reading), set()).add(str(seed_of(reading)))
    if seeds and not set.intersection(*seeds.values()):
        yield from _difference("seed", [(reading, str(seed_of(reading))) for reading in readings])


def _templates(families: Sequence[Family]) -> Iterator[str]:
    """Templates may differ between families, but twins must be asked in the same words."""
    for family in families:
        values = [
            (reading, f"{reading.weights.get('template', '')} ({reading.weights['template_hash']})")
            for reading in family.readings
            if reading.weights.get("template_hash")
        ]
        for sentence in _difference("template", values):
            yield (
                f"{sentence} They read other words and decide at other tokens: run them with the same "
                "dataset.template, of:MODEL for a chat template that all are asked in, or plain."
            )


def _difference(what: str, values: Sequence[tuple[Reading, str]]) -> Iterator[str]:
    by_value: dict[str, list[str]] = {}
    for reading, value in values:
        by_value.setdefault(value, []).append(_named(reading))
    if len(by_value) > 1:
        parts = "; ".join(f"{shortened(value)} in {', '.join(names)}" for value, names in by_value.items())
        yield f"The compared runs differ in {what}: {parts}."


def _named(reading: Reading) -> str:
    return f"{reading.name} ({reading.run.id})"


def _unclean(readings: Sequence[Reading]) -> Iterator[str]:
    names = [_named(reading) for reading in readings if _git(reading).get("dirty")]
    if names:
        yield f"Made with code that was not committed: {', '.join(names)}."


def _git(reading: Reading) -> Mapping[str, object]:
    return reading.run.provenance.get("git") or {}


def _seen(readings: Sequence[Reading]) -> Iterator[str]:
    for reading in readings:
        seen = reading.scalar(SEEN_IN_TRAINING)
        if seen is not None and known(seen.value) and seen.value > 0:
            yield f"The adapter of {_named(reading)} was trained on {percent(seen.value)} of its test prompts."
