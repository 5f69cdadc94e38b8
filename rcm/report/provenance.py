"""Where each run comes from: everything that tells how to get it again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rcm.comparison.names import SELF_CHECKS
from rcm.comparison.reading import Reading
from rcm.record.provenance import commit_of
from rcm.record.stored import StoredRun
from rcm.record.units import known
from rcm.report.formatting import cut, duration

UNKNOWN, NOT_RUN = "unknown", "not run"
PARTS = ("train", "validation", "test")
UNFINISHED = ("run", "model", "method", "status", "started (UTC)", "error")


def facts(readings: Sequence[Reading]) -> dict[str, list[str]]:
    """For each fact what it is in each run."""
    methods = dict.fromkeys(method for reading in readings for method in reading.run.methods)
    found = [_facts(reading, list(methods)) for reading in readings]
    return {label: [one[label] for one in found] for label in found[0]} if found else {}


def _facts(reading: Reading, methods: Sequence[str]) -> dict[str, str]:
    run, weights, config = reading.run, reading.weights, reading.run.config
    return {
        "run": run.id,
        "model": f"{reading.name} ({reading.stage}; model={run.choices['model']})",
        "weights": weights.get("model") or source(config.get("model", {})),
        "revision": weights.get("model_revision") or revision(reading),
        "adapter": str(reading.setting("model", "adapter") or "none"),
        "dtype": str(reading.setting("model", "dtype") or UNKNOWN),
        "digests of weights and prompts": f"{run.weights or UNKNOWN}, {run.data or UNKNOWN}",
        "template": f"{weights.get('template') or reading.setting('dataset', 'template') or UNKNOWN}, "
        f"hash {weights.get('template_hash') or UNKNOWN}",
        "data set": f"{run.choices['dataset']} ({settings(config.get('dataset', {}))})",
        "prompts of each class (train / validation / test)": prompts(reading),
        "methods": ", ".join(run.methods) or run.choices["method"],
        **{f"method.{method}": method_settings(reading, method) for method in methods},
        "judge": f"{run.choices['judge']} ({kappa(reading)}; settings {digest(config.get('judge', {}))})",
        "second judge": str(reading.setting("judge", "second") or "none"),
        "seed": str(config.get("seed", UNKNOWN)),
        "code": commit_of(run.provenance),
        "sources": run.sources or UNKNOWN,
        "found before": found_before(run),
        "packages": packages(run.provenance),
        "Python": str(run.provenance.get("python", UNKNOWN)),
        "machine": machine(run.provenance),
        "started (UTC)": run.started,
        "wall time": duration(run.seconds),
        "self-checks": self_checks(reading),
        "command": str(run.provenance.get("command", UNKNOWN)),
        "tensors and adapters": "; ".join(f"{label}: {file}" for label, file in run.labelled_files()) or "none",
    }


def self_checks(reading: Reading) -> str:
    """What the model was checked for before it was measured, and which way that left."""
    told = [_check(row) for row in reading.rows(SELF_CHECKS)]
    return "; ".join(told) or "none"


def _check(row: Mapping[str, Any]) -> str:
    off = f", off by {row['off_by']:.0e}" if known(row["off_by"]) else ""
    return f"{row['what']} ({row['way']}{off})"


def found_before(run: StoredRun) -> str:
    """The steps that were not run, since what they find was kept, and the run that made each."""
    return ", ".join(f"{step} (run {by})" for step, by in run.reused.items()) or "nothing"


def unfinished(run: StoredRun) -> list[str]:
    """As UNFINISHED names it."""
    status = "failed" if run.status == "failed" else "running, or killed"
    return [run.id, run.choices["model"], ", ".join(run.methods), status, run.started, run.error or ""]


def method_settings(reading: Reading, method: str) -> str:
    """The settings of a method, as on the command line."""
    if method not in reading.run.methods:
        return NOT_RUN
    given = reading.setting("method", method)
    return settings(given) or "no settings" if isinstance(given, Mapping) else written(given)


def prompts(reading: Reading) -> str:
    """How many prompts of each class the config asks for."""
    if PARTS[0] not in reading.run.config.get("dataset", {}):
        return "as the data set has them"
    parts = [reading.setting("dataset", part) for part in PARTS]
    return " / ".join("all" if part is None else str(part) for part in parts)


def kappa(reading: Reading) -> str:
    """The judge's agreement with people, as its settings state it."""
    measured = reading.setting("judge", "kappa")
    return "kappa not measured" if measured is None else f"kappa {measured:g}"


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
    return ", ".join(f"{key}={cut(written(value), 80)}" for key, value in shown.items())


def written(value: Any) -> str:
    """A value as on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def digest(config: Mapping[str, Any]) -> str:
    """Eight hex digits that differ where settings differ."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def machine(provenance: Mapping[str, Any]) -> str:
    parts = (provenance.get("platform"), f"{provenance.get('cpus', '?')} CPUs", provenance.get("gpu") or "no GPU")
    return ", ".join(str(part) for part in parts if part)


def packages(provenance: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in provenance.get("packages", {}).items() if version)
