"""What each method of a run finds: made once, and taken from where it is kept by every run that would find the same.

A finding is of the method's settings, the model (its whole content), the prompts, the judge where one is asked, the
seed, the kind of device, the versions of the libraries, the sources (`rcm.record.sources`), and what the methods before
it found, as far as it takes that. All of this is known before any weights load; they load when something must be made.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rcm.execution.self_checks import self_checks
from rcm.methods import Method, Study, run_method
from rcm.models import LoadedModel
from rcm.models.template import Kind, Lent
from rcm.prompts import Split
from rcm.record.encoding import file_names
from rcm.record.findings import Kept, NotPlainError, Place, Writer, key_of
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
    """All but the method that a finding may depend on."""

    config: Mapping[str, Any]
    prompts: Split
    template: Kind | Lent
    judge: Any
    seed: int
    device: torch.device
    longest_reply: int


@dataclass(frozen=True)
class Step:
    """One part of a run. `of`: what its finding is of; `takes`: the kinds of findings that it is given."""

    name: str
    of: Mapping[str, Any]
    gives: type | None
    takes: Sequence[type]
    run: Callable[[Study], Generator[Result, None, Any]]

    @property
    def key(self) -> str:
        return key_of(self.of)


def steps_of(methods: Mapping[str, Method], now: Circumstances) -> list[Step]:
    """How the model is checked, then each method, in order."""
    model = by_content({key: value for key, value in now.config["model"].items() if key not in NAMES}, whole=True)
    common = {
        "model": model,
        "prompts": hashlib.sha256(repr(now.prompts).encode()).hexdigest(),
        "template": repr(now.template),
        "device": now.device.type,
        "packages": versions(),
    }
    checked = {**common, "reply": now.longest_reply, "sources": sources_digest(now.config["model"])}
    steps = [Step(SELF_CHECKS, checked, None, (), partial(_checks, now.longest_reply))]
    given: dict[type, str] = {}  # the key of what gives each kind
    for name, method in methods.items():
        settings = now.config["method"][name]
        judge = now.config["judge"] if method.judged else None
        takes = (*method.needs, *method.uses)
        of = {
            **common,
            "method": by_content(settings, whole=True),
            # A second judge is named by its option, whose settings stand in the object alone.
            "judge": [by_content(judge, whole=True), repr(getattr(now.judge, "second", None))] if judge else None,
            "seed": now.seed,
            "sources": sources_digest([settings, now.config["model"], judge]),
            "before": {kind.__qualname__: given[kind] for kind in takes if kind in given},
        }
        step = Step(name, of, method.gives, takes, partial(run_method, name, method))
        steps.append(step)
        if method.gives is not None:
            given[method.gives] = step.key
    return steps


def _checks(reply: int, study: Study) -> Generator[Result, None, None]:
    if isinstance(study.model, LoadedModel):
        template = study.model.template
        yield self_checks(study.model, [len(template.tokens(one)) + reply for one in study.prompts.everything])


def results(
    steps: Sequence[Step], study: Callable[[], Study], run: Run, reuse: bool, note: Callable[[str, str], None]
) -> Generator[Result, None, None]:
    """What all steps report; of those that are kept without running them. `study` loads the weights. `note` is told of
    each step that was taken from a run."""
    findings: dict[type, Any] = {}
    for step in steps:
        place = Place(run.directory.resolve().parent, step.key)
        with place.alone() if reuse else nullcontext():
            kept = place.read(step.gives) if reuse else None
            if kept is not None:
                note(step.name, kept.by)
                found = yield from _again(step, kept, place, run.directory)
            else:
                found = yield from _made(step, study, findings, run, place if reuse else None)
        if step.gives is not None:
            findings[step.gives] = found


def _again(step: Step, kept: Kept, place: Place, directory: Path) -> Generator[Result, None, Any]:
    log.info("%s: found before, by run %s, in %.0f s (reuse=false finds it anew)", step.name, kept.by, kept.seconds)
    for result in kept.results:
        yield result
        if isinstance(result, Tensors | Adapter):
            for name in file_names(result):
                link(place.folder / name, directory / name)
    return kept.finding


def _made(
    step: Step, study: Callable[[], Study], findings: Mapping[type, Any], run: Run, place: Place | None
) -> Generator[Result, None, Any]:
    start = time.monotonic()
    with place.writing() if place else nullcontext() as writer:
        step_study = study().given(findings)
        found = yield from _noted(step.run(step_study), writer, run.directory)
        if writer is not None:
            try:
                writer.finish(found, step.gives, step.of, run.id, round(time.monotonic() - start, 1))
            except NotPlainError as reason:
                log.info("What %s found is not kept: %s.", step.name, reason)
    return found


def _noted(step: Generator[Result, None, Any], writer: Writer | None, directory: Path) -> Generator[Result, None, Any]:
    """The same results; each is added once whoever takes them has saved it."""
    while True:
        try:
            result = next(step)
        except StopIteration as end:
            return end.value
        yield result
        if writer is not None:
            writer.add(result, directory)
