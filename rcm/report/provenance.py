"""Where each run comes from, and what should make one hesitate to compare two of them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rcm.comparison.reading import Comparison, Reading
from rcm.record.units import known, percent
from rcm.report.formatting import cut, duration
from rcm.report.sections import kappa, positions, prompts

UNKNOWN = "unknown"
GROUPS = ("dataset", "method", "judge")  # their settings must agree, or the figures mean different things
SEEN = "behaviour/seen_in_training"


def facts(reading: Reading) -> dict[str, str]:
    """Everything that tells how to get this run again, by label."""
    run, weights = reading.run, reading.weights
    told = run.provenance
    return {
        "run": run.id,
        "model": f"{run.choices['model']} ({reading.stage})",
        "weights": weights.get("model") or source(run.config.get("model", {})),
        "revision": weights.get("model_revision") or revision(reading),
        "adapter": str(reading.setting("model", "adapter") or "none"),
        "dtype": str(reading.setting("model", "dtype") or UNKNOWN),
        "template": f"{weights.get('template') or reading.setting('dataset', 'template') or UNKNOWN}, "
        f"hash {weights.get('template_hash') or UNKNOWN}",
        "data set": f"{run.choices['dataset']} ({settings(run.config.get('dataset', {}))})",
        "prompts of each class (train / validation / test)": prompts(reading),
        "positions": positions(reading),
        "method": run.choices["method"],
        "judge": f"{run.choices['judge']} ({kappa(reading)}; settings {digest(run.config.get('judge', {}))})",
        "seed": str(run.config.get("seed", UNKNOWN)),
        "code": commit(told),
        "packages": ", ".join(f"{name} {version}" for name, version in told.get("packages", {}).items() if version),
        "Python": str(told.get("python", UNKNOWN)),
        "machine": machine(told),
        "started (UTC)": run.started,
        "wall time": duration(run.seconds),
        "command": str(told.get("command", UNKNOWN)),
    }


def source(config: Mapping[str, Any]) -> str:
    """What the settings say about where the weights come from."""
    return settings({key: config.get(key) for key in ("name", "path", "package", "version", "architecture")}) or UNKNOWN


def revision(reading: Reading) -> str:
    """Which version of the weights the settings ask for."""
    asked = reading.setting("model", "revision") or reading.setting("model", "sha256") or UNKNOWN
    return str(asked)[:12]


def settings(config: Mapping[str, Any]) -> str:
    """Settings as on the command line; those without a value stay away."""
    shown = {key: value for key, value in config.items() if value is not None and not key.startswith("_")}
    return ", ".join(f"{key}={cut(str(value), 80)}" for key, value in shown.items())


def digest(config: Mapping[str, Any]) -> str:
    """Eight hex digits that differ where settings differ."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def commit(provenance: Mapping[str, Any]) -> str:
    git = provenance.get("git")
    if not git:
        version = provenance.get("packages", {}).get("rcm")
        return f"not from a repository (rcm {version or UNKNOWN})"
    return f"{git['commit'][:12]}{' with changes that are not committed' if git['dirty'] else ''}"


def machine(provenance: Mapping[str, Any]) -> str:
    parts = (provenance.get("platform"), f"{provenance.get('cpus', '?')} CPUs", provenance.get("gpu") or "no GPU")
    return ", ".join(str(part) for part in parts if part)


def warnings(comparison: Comparison) -> list[str]:
    """One sentence for each reason to be careful."""
    compared = comparison.compared
    return [*_differences(compared), *_templates(comparison), *_unclean(compared), *_seen(compared)]


def _differences(readings: Sequence[Reading]) -> Iterator[str]:
    """Code, seed and settings that are not the same in all compared runs."""
    told = [_comparable(reading) for reading in readings]
    for key in dict.fromkeys(key for one in told for key in one):
        yield from _difference(key, readings, [one.get(key, "no such setting") for one in told])


def _comparable(reading: Reading) -> dict[str, str]:
    parts: dict[str, Any] = {"commit": commit(reading.run.provenance), "seed": reading.run.config.get("seed")}
    for group in GROUPS:
        parts[group] = reading.run.choices[group]
        parts |= _flat(reading.run.config.get(group, {}), group)
    return {key: str(value) for key, value in parts.items()}


def _flat(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings under their full names."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}.{key}"
        found |= _flat(value, name) if isinstance(value, Mapping) else {name: value}
    return found


def _templates(comparison: Comparison) -> Iterator[str]:
    """Templates may differ between families, but twins must be asked in the same words."""
    for family in comparison.families:
        known_ones = [reading for reading in family.readings if reading.weights.get("template_hash")]
        yield from _difference("template hash", known_ones, [r.weights["template_hash"] for r in known_ones])


def _difference(what: str, readings: Sequence[Reading], values: Sequence[str]) -> Iterator[str]:
    if len(set(values)) > 1:
        by_value = {value: [r.run.id for r, v in zip(readings, values, strict=True) if v == value] for value in values}
        told = "; ".join(f"{cut(value, 60)} in {', '.join(ids)}" for value, ids in by_value.items())
        yield f"The compared runs differ in {what}: {told}."


def _unclean(readings: Sequence[Reading]) -> Iterator[str]:
    ids = [reading.run.id for reading in readings if (reading.run.provenance.get("git") or {}).get("dirty")]
    if ids:
        yield f"Made with code that was not committed: {', '.join(ids)}."


def _seen(readings: Sequence[Reading]) -> Iterator[str]:
    for reading in readings:
        seen = reading.scalar(SEEN)
        if seen is not None and known(seen.value) and seen.value > 0:
            yield f"The adapter of {reading.run.id} was trained on {percent(seen.value)} of its test prompts."
