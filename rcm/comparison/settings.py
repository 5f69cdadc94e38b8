"""Settings under their full names, and in which of them runs differ."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rcm.comparison.reading import Reading

GROUPS = ("dataset", "method", "judge")  # their settings must agree, or the figures mean different things
LONGEST = 60  # characters of a value in a sentence


def measured_with(reading: Reading) -> dict[str, str]:
    """The settings that decide what its figures mean, by full name, such as `method.direction.max_kl`; under a group's
    name alone the option."""
    found: dict[str, Any] = {"model.refusal_tokens": reading.setting("model", "refusal_tokens")}
    for group in GROUPS:
        found[group] = reading.run.choices.get(group)
        found |= _flat(reading.setting(group) or {}, group)
    return {name: str(value) for name, value in found.items()}


def _flat(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}"
        found |= _flat(value, name) if isinstance(value, Mapping) else {name: value}
    return found


def differing(readings: Sequence[Reading]) -> dict[str, list[tuple[Reading, str]]]:
    """Each setting that is not the same in all of these runs, with its value in each; a setting of a method only in the
    runs of that method."""
    settings = [(reading, measured_with(reading)) for reading in readings]
    found: dict[str, list[tuple[Reading, str]]] = {}
    for name in dict.fromkeys(name for _, of_run in settings for name in of_run):
        having = [(reading, of_run) for reading, of_run in settings if _concerns(reading, name)]
        values = [(reading, of_run.get(name, "no such setting")) for reading, of_run in having]
        if len({value for _, value in values}) > 1:
            found[name] = values
    return found


def _concerns(reading: Reading, name: str) -> bool:
    """Whether a run is of the method that the setting belongs to."""
    group, *rest = name.split(".")
    return group != "method" or len(rest) < 2 or rest[0] in reading.run.methods


def shortened(value: str) -> str:
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"


def listed(parts: Iterable[str], last: str = "and") -> str:
    """As in a sentence: a, b and c."""
    *first, end = parts
    return f"{', '.join(first)} {last} {end}" if first else end
