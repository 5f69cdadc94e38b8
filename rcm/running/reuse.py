"""What each method of a run finds: made once, and taken from where it is kept by every run that would find the same.

A finding is of the method's settings, the model (its whole content), the prompts, the judge where one is asked, the
seed, the kind of device, the versions of the libraries, the sources (`rcm.record.sources`), and what the methods before
it found, as far as it takes that. All of this is known before any weights load; they load when something must be made.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rcm.checks import quickly_checked
from rcm.errors import InputError
from rcm.methods import Method, Study, run_method
from rcm.models import LoadedModel
from rcm.models.template import Kind, Lent
from rcm.prompts import Split
from rcm.record.encoding import file_names
from rcm.record.findings import FOLDER, Kept, NotPlainError, Place, Writer, key_of
from rcm.record.identity import by_content
from rcm.record.results import Adapter, Result, Tensors
from rcm.record.run import Run
from rcm.record.sources import sources_digest, versions
from rcm.record.storage import link

log = logging.getLogger(__name__)
NAMES = ("family", "stage")  # of a model's settings: what it is called, which no method knows
SELF_CHECKS = "self_checks"


@dataclass(frozen=True)
class Circumstances:
    """All but the method that a finding may depend on. `commits`: what the revisions of model and judge stand for, of
    those on a hub."""

    config: Mapping[str, Any]
    prompts: Split
    template: Kind | Lent
    judge: Any
    seed: int
    device: torch.device
    longest_reply: int
    commits: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Step:
    """One part of a run. `of`: what its finding is of; empty where nothing is kept."""

    name: str
    of: Mapping[str, Any]
    gives: type | None
    run: Callable[[Study], Generator[Result, None, Any]]

    @property
    def key(self) -> str:
        return key_of(self.of)


def steps_of(
    methods: Mapping[str, Method], given: Circumstances, *, reuse: bool = True, now: bool = False
) -> list[Step]:
    """How the model is checked, then each method, in order. `reuse`: whether to find out what each is of; raises
    InputError where that cannot be read. `now`: by the sources as they are by now."""
    runs: dict[str, Callable[[Study], Generator[Result, None, Any]]] = {
        name: partial(run_method, name, method) for name, method in methods.items()
    }
    if is_checked(methods):
        runs = {SELF_CHECKS: partial(_checks, given.longest_reply), **runs}
    of = _of(methods, given, now) if reuse else {name: {} for name in runs}
    gives = {name: method.gives for name, method in methods.items()}
    return [Step(name, of[name], gives.get(name), run) for name, run in runs.items()]


def is_checked(methods: Mapping[str, Method]) -> bool:
    """Whether the model is checked before these methods; not where all they do is to look for what is wrong with it."""
    return not all(method.examines for method in methods.values())


def _of(methods: Mapping[str, Method], given: Circumstances, now: bool) -> dict[str, dict[str, Any]]:
    """What the finding of each step is of."""
    model = {key: value for key, value in given.config["model"].items() if key not in NAMES}
    common = {
        # Also as it is called: that stands beside the tensors.
        "model": [by_content(model, whole=True), model, given.commits[0]],
        "prompts": hashlib.sha256(repr(given.prompts).encode()).hexdigest(),
        "template": repr(given.template),
        "device": given.device.type,
        "packages": versions(),
    }
    found = {SELF_CHECKS: {**common, "reply": given.longest_reply, "sources": sources_digest(model, now=now)}}
    givers: dict[type, str] = {}  # the key of what gives each kind
    for name, method in methods.items():
        settings = given.config["method"][name]
        judges = [given.config["judge"], _settings_of(getattr(given.judge, "second", None))] if method.judged else []
        found[name] = {
            **common,
            "method": by_content(settings, whole=True),
            "judge": [by_content(judges, whole=True), given.commits[1] if judges else ""],
            "seed": given.seed,
            "sources": sources_digest([settings, model, judges], now=now),
            "before": {
                f"{kind.__module__}.{kind.__qualname__}": givers[kind]
                for kind in (*method.needs, *method.uses)
                if kind in givers
            },
        }
        if method.gives is not None:
            givers[method.gives] = key_of(found[name])
    return found


def _settings_of(judge: Any) -> dict[str, Any] | None:
    """Of a second judge, which the config names by its option alone."""
    if judge is None:
        return None
    return {"_target_": f"{type(judge).__module__}.{type(judge).__qualname__}", **judge.model_dump(mode="json")}


def checked_lengths(study: Study, reply: int) -> list[int]:
    """Of the prompts in tokens, with what is to be said."""
    return [len(study.model.template.tokens(one)) + reply for one in study.prompts.everything]


def _checks(reply: int, study: Study) -> Generator[Result, None, None]:
    if isinstance(study.model, LoadedModel):
        yield quickly_checked(study.model, study.prompts, checked_lengths(study, reply), study.seed)


def results(
    steps: Sequence[Step],
    study: Callable[[], Study],
    run: Run,
    reuse: bool,
    note: Callable[[str, str], None],
    again: Callable[[], Sequence[Step]] | None = None,
) -> Generator[Result, None, None]:
    """What all steps report; of those that are kept without running them. `study` loads the weights. `note` is told of
    each step that was taken from a run. `again` gives the steps as they are by now: what has changed while it was
    computed is not kept. Nor is what there is no room for: that costs time another day, and no run."""
    findings: dict[type, Any] = {}
    for step in steps:
        with ExitStack() as stack:
            place = _alone(Place(run.directory.resolve().parent, step.key), stack) if reuse else None
            kept = place.read(step.gives) if place else None
            if place and kept:
                note(step.name, kept.by)
                found = yield from _replayed(step, kept, place, run.directory)
            else:
                start = time.monotonic()
                writer = stack.enter_context(place.writing()) if place else None
                keeping = Keeping(step.name, writer, run)
                found = yield from keeping.noted(step.run(study().given(findings)))
                seconds = round(time.monotonic() - start, 1)
                keeping.finish(found, step, seconds, again is None or _same(step, again))
        if step.gives is not None:
            findings[step.gives] = found


def _same(step: Step, again: Callable[[], Sequence[Step]]) -> bool:
    """Whether it is by now of what it was of when it began."""
    try:
        return any(one.key == step.key for one in again())
    except InputError:  # of what can no longer be read
        return False


def _alone(place: Place, stack: ExitStack) -> Place | None:
    """The place, once nobody else is at it; None where nothing can be kept."""
    try:
        stack.enter_context(place.alone())
    except OSError as error:
        log.warning("Nothing is kept beside the runs: %s (%s).", error.filename, error.strerror)
        return None
    return place


def _replayed(step: Step, kept: Kept, place: Place, directory: Path) -> Generator[Result, None, Any]:
    log.info("%s: found before, by run %s, in %.0f s (reuse=false finds it anew)", step.name, kept.by, kept.seconds)
    for result in kept.results:
        yield result
        if isinstance(result, Tensors | Adapter):
            for name in file_names(result):
                with contextlib.suppress(OSError):  # it saves room: the run has the file already
                    link(place.folder / name, directory / name)
    return kept.finding


def _refused(error: OSError, run: Run) -> str:
    """What could not be written, and why; to write into an open file is refused without its name."""
    return f"{error.filename or run.directory.parent / FOLDER}: {error.strerror}"


class Keeping:
    """Hands on what a step reports and keeps it, as long as that goes well."""

    def __init__(self, step: str, writer: Writer | None, run: Run) -> None:
        self._step, self._writer, self._run = step, writer, run

    def noted(self, step: Generator[Result, None, Any]) -> Generator[Result, None, Any]:
        """The same results; each is kept once whoever takes them has saved it."""
        while True:
            try:
                result = next(step)
            except StopIteration as end:
                return end.value
            yield result
            if self._writer is not None:
                try:
                    self._writer.add(result, self._run.directory)
                except OSError as error:
                    self._give_up(_refused(error, self._run))

    def finish(self, found: Any, step: Step, seconds: float, same: bool) -> None:
        """Keep the finding with them, if all is of the `same` as when it began."""
        if self._writer is None:
            return
        if not same:
            self._give_up("the files that it is of, or the code, changed meanwhile")
            return
        try:
            self._writer.finish(found, step.gives, step.of, self._run.id, seconds)
        except OSError as error:
            self._give_up(_refused(error, self._run))
        except NotPlainError as reason:
            self._give_up(str(reason))

    def _give_up(self, why: str) -> None:
        self._writer = None
        log.warning("What %s found is not kept (%s).", self._step, why)
