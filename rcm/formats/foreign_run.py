"""A run folder from another machine: is it whole, and do its own parts agree, before anybody trusts a figure of it?

Nothing in it is trusted: no path that it names is followed, links and files outside it are refused, sizes are looked at
before contents, tensors are safetensors, and what is read is data. What can be checked without the model is checked:

digest      the run's id is the beginning of its digest, and the digest that of the settings; where these name files of
            the other machine, their contents enter it, and it cannot be made again here
files       every file that results.jsonl promises lies in the folder, is a plain file, and is the only one of its name
tensors     have the shapes that their lines promise, and their safetensors headers, too
metrics     metrics.json says what results.jsonl says
rates       the refusal rates of behaviour are those that its transcripts count

That a figure is what the model does, only running it again can tell. A forger who keeps all parts consistent passes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from rcm.errors import InputError, first_sentence, on_one_line
from rcm.packaged import ASSETS, PACKAGED
from rcm.record.encoding import flat
from rcm.record.identity import METRICS, RECORD, names_a_path, settings_digest
from rcm.record.results import Outcome, Result, Scalar, Transcripts
from rcm.record.storage import RESULTS, records
from rcm.record.stored import StoredRun, stored_run
from rcm.record.units import TIED

Standing = Literal["holds", "FAILS", "not checked"]
MOST_BYTES = 2**30  # of a file that is read whole
RATE = "behaviour/refusal_rate_"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, how it stands, and why."""

    what: str
    standing: Standing
    because: str


def verified(directory: Path) -> tuple[StoredRun, list[Check]]:
    """The run in a folder that somebody else made, and what was checked of it. Raises InputError where it is none, or
    cannot be opened safely."""
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}; give a run's, such as runs/1a2b3c4d.")
    for name in (RECORD, METRICS, RESULTS):
        path = directory / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is a link or no plain file, and is not followed; ask for the file itself.")
        if path.exists() and path.stat().st_size > MOST_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size / 2**20:.0f} MiB, more than any run writes; do not open it."
            )
    run = stored_run(directory)
    try:
        lines, results = records(directory), _results(run)
        checks = [_digest(run), *_files(directory, lines), *_tensors(directory, lines)]
        return run, [*checks, _metrics(run, results), *_rates(results)]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{directory / RESULTS} holds no results of rcm ({first_sentence(error)}).") from error


def _results(run: StoredRun) -> list[Result]:
    """What it reports. Where that cannot be read, why: the cure, which is to run it again, is for one's own runs."""
    try:
        return run.results()
    except InputError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def summarised(run: StoredRun, checks: Sequence[Check]) -> list[str]:
    """Markdown: whose run it is, the checks, and what it concluded."""
    versions: Mapping[str, Any] = run.provenance.get("packages") or {}
    failed = sum(check.standing == "FAILS" for check in checks)
    lines = [
        f"Run {run.id}, {run.status}, started {run.started}, by rcm {versions.get('rcm')}: model {run.label}, prompts "
        f"{run.choices.get('dataset')}, judge {run.choices.get('judge')}, methods {', '.join(run.methods)}.",
        f"{failed} of {len(checks)} checks fail." if failed else f"None of {len(checks)} checks fails.",
        "",
        "| check | | |",
        "|---|---|---|",
        *(f"| {check.what} | {check.standing} | {check.because} |" for check in checks),
    ]
    outcomes = [one for one in run.results() if isinstance(one, Outcome)]
    if outcomes:
        lines += ["", "| it concluded | | |", "|---|---|---|"]
        lines += [f"| {one.name} | {one.value} | {one.because} |" for one in outcomes]
    return [on_one_line(line.replace(TIED, " ")) for line in lines]


def _digest(run: StoredRun) -> Check:
    what = "digest of the settings"
    if not run.digest:
        return Check(what, "not checked", "the run has none; it was made by an early rcm")
    if not run.digest.startswith(run.id):
        return Check(what, "FAILS", f"the id {run.id} is not the beginning of the digest {run.digest[:16]}...")
    if foreign := sorted(set(_foreign(run.config))):
        return Check(what, "not checked", f"the contents of {', '.join(foreign)} enter it, and lie elsewhere")
    if settings_digest(run.config) == run.digest:
        return Check(what, "holds", f"{run.digest[:16]}... is that of the settings in {RECORD}")
    return Check(
        what, "FAILS", f"{run.digest[:16]}... is not that of the settings, or of what this rcm ships by their names"
    )


def _foreign(value: Any, key: str = "") -> Iterator[str]:
    """Settings whose digest takes what lies at a path: it is the other machine's, and is not opened."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _foreign(part, str(name))
    elif isinstance(value, list):
        for part in value:
            yield from _foreign(part, key)
    elif isinstance(value, str):
        if value.startswith(PACKAGED):
            shipped = (ASSETS / value.removeprefix(PACKAGED)).resolve()
            if not (shipped.is_relative_to(ASSETS.resolve()) and shipped.exists()):
                yield f"{key}={value}"
        elif names_a_path(key) or key == "source" or value.startswith("of:"):
            yield f"{key}={value}"


def _files(directory: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Of the files that results promise."""
    home, named = directory.resolve(), [str(name) for line in lines for name in line.get("files", ())]
    bad = []
    for name in named:
        path = directory / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(home):
            bad.append(f"{name} lies outside the folder")
        elif path.is_symlink() or not path.is_file():
            bad.append(
                f"{name} is a link or no plain file" if path.is_symlink() or path.exists() else f"{name} is missing"
            )
    bad += [f"{name} is promised twice" for name in sorted(set(named)) if named.count(name) > 1]
    yield Check("files", "FAILS" if bad else "holds", "; ".join(bad[:5]) or f"{len(named)} files are there, and plain")


def _tensors(directory: Path, lines: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Shapes and finite values, by safetensors alone."""
    for line in lines:
        if line["kind"] != "tensors":
            continue
        path, what = directory / line["files"][0], f"tensors {line['name']}"
        if path.is_symlink() or not path.is_file() or not path.resolve().is_relative_to(directory.resolve()):
            continue  # told among the files
        try:
            with safe_open(path, "pt") as file:
                found = {name: list(file.get_slice(name).get_shape()) for name in list(file.keys())}
        except (OSError, SafetensorError) as error:
            yield Check(what, "FAILS", f"{path.name} is no safetensors file ({first_sentence(error)})")
            continue
        same = found == {name: list(shape) for name, shape in line["shapes"].items()}
        because = f"{len(found)} tensors, {path.stat().st_size / 2**20:.1f} MiB, of the shapes that are told"
        yield Check(
            what, "holds" if same else "FAILS", because if same else f"{path.name} holds other shapes than told"
        )


def _metrics(run: StoredRun, results: Sequence[Result]) -> Check:
    if run.status != "finished":
        return Check("metrics", "not checked", f"the run is {run.status}, and has none")
    told = {name: value for result in results for name, value in flat(result).items()}
    wrong = sorted(
        name for name in told.keys() | run.metrics.keys() if not _same(told.get(name), run.metrics.get(name))
    )
    because = f"{', '.join(wrong[:5])} differ from {RESULTS}" if wrong else f"{len(told)} figures as in {RESULTS}"
    return Check("metrics", "FAILS" if wrong else "holds", because)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-12)
    return json.dumps(one) == json.dumps(other)


def _rates(results: Sequence[Result]) -> Iterator[Check]:
    """Of each kind of prompt, counted again from what was stored."""
    scalars = {one.name: one for one in results if isinstance(one, Scalar)}
    for transcripts in results:
        if not isinstance(transcripts, Transcripts) or transcripts.name != "behaviour/transcripts":
            continue
        for kind in dict.fromkeys(str(row["kind"]) for row in transcripts.rows):
            verdicts = [str(row["verdict"]) for row in transcripts.rows if row["kind"] == kind]
            hits, told = sum(verdict in ("refusal", "partial") for verdict in verdicts), scalars.get(RATE + kind)
            if told is None:
                continue
            same = told.n == len(verdicts) and _same(hits / len(verdicts), told.value)
            counted = f"{hits} of {len(verdicts)} transcripts refuse; told is {told.value:.4f} of {told.n}"
            yield Check(f"rate of {kind} prompts", "holds" if same else "FAILS", counted)
