"""The life of one run, from a composed config to `metrics.json`.

In order: whatever fails cheaply, the tracker, the weights, then each result to the log, the disk and the tracker as the
methods yield it.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rcm.errors import InputError, unsigned, unwritable
from rcm.execution.batches import find_batch_size
from rcm.execution.seeding import seed_everything
from rcm.execution.self_checks import self_checks
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.models.lending import asked
from rcm.models.template import Kind, Lent
from rcm.packaged import CONF
from rcm.prompts import Split
from rcm.record.encoding import file_names
from rcm.record.findings import Place
from rcm.record.identity import data_digest, finished, weights_digest
from rcm.record.locks import Timeout, held, left_behind
from rcm.record.provenance import provenance
from rcm.record.results import Outcome, Result, Scalar
from rcm.record.run import Run
from rcm.record.storage import Store, put_back
from rcm.record.units import known
from rcm.running.chosen import Chosen, chosen_settings
from rcm.running.estimate import TOLD, estimated
from rcm.running.identity import code_of, digest_of, finished_already, id_of, plain_settings
from rcm.running.pictured import pictured
from rcm.running.processors import set_threads
from rcm.running.reuse import Circumstances, checked_lengths, is_checked, results, steps_of
from rcm.running.summary import as_text, in_brackets, summary

log = logging.getLogger(__name__)
NAMED = ("model", "dataset", "judge", "experiment")  # groups whose option says what was run


class Prepared(NamedTuple):
    """What a run would work with, in memory: the study, and by name the methods, in order."""

    study: Study
    methods: Mapping[str, Method]


def prepared(*overrides: str) -> Prepared:
    """The same from Python as `python launch.py OVERRIDES` from a shell, up to where the first method would begin.

    Nothing is recorded. Raises InputError for what the user can mend.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = chosen_settings(compose("config", overrides=list(overrides)))
    seed_everything(chosen.seed)
    set_threads(chosen.device.threads)
    prompts, template = _checked(chosen)
    model = chosen.model.load(chosen.device.placement(), template, chosen.device.batch_size)
    return Prepared(Study(model, prompts, chosen.judge.on(model.device), chosen.seed), chosen.methods)


def _checked(chosen: Chosen) -> tuple[Split, Kind | Lent]:
    """The prompts and the template that they are asked in, when all that can fail cheaply has not."""
    for method in chosen.methods.values():
        method.check()
    prompts = chosen.dataset.load()
    template = asked(prompts.template)
    chosen.model.check(prompts.everything, template, _longest_reply(chosen.methods))
    return prompts, template


def _commits(chosen: Chosen) -> tuple[str, str]:
    """What the revisions of the model and of the judges stand for, where they are of a hub, and where one is asked."""
    asked = any(method.judged for method in chosen.methods.values())
    judges = (chosen.judge, getattr(chosen.judge, "second", None)) if asked else ()
    model = " ".join(str(getattr(chosen.model, name, "")) for name in ("commit", "adapter_commit")).strip()
    return model, " ".join(str(getattr(one, "commit", "")) for one in judges)


def _longest_reply(methods: Mapping[str, Method]) -> int:
    return max((getattr(method, "max_new_tokens", 0) for method in methods.values()), default=0)


def run(cfg: DictConfig) -> None:
    """Run it, in the directory that Hydra made; raises InputError for what the user can mend. With `estimate`, only say
    what it will take, as if nothing had been found before, and raise one where that does not fit."""
    if cfg.get("estimate"):
        chosen = chosen_settings(cfg)
        set_threads(chosen.device.threads)
        foretold(chosen, *_checked(chosen), chosen.methods, only=True)
        return
    directory = Path(HydraConfig.get().runtime.output_dir)
    with alone_in(directory):
        put_back(directory)  # what had finished, where a rerun of it was killed
        if already := finished_already(cfg, directory):  # while this one waited for PyTorch
            log.info("%s", already)
            return
        chosen = chosen_settings(cfg)
        perform(chosen, run_of(cfg, directory, list(chosen.methods)))


def foretold(
    chosen: Chosen, prompts: Split, template: Kind | Lent, methods: Mapping[str, Method], only: bool = False
) -> None:
    """Log what these methods will take. Raises InputError where that certainly does not fit; with `only`, also where it
    may not."""
    found = estimated(chosen, prompts, template, methods)
    if found is None:
        log.info("What it will take is not known: nobody here knows the shape of this kind of model")
        return
    log.info("%s", found.sentence)
    if only:
        TOLD.append((HydraConfig.get().runtime.choices["model"], found))
    if found.impossible or (only and not found.fits):
        raise InputError(found.cure)
    if not found.fits:
        log.warning("It may not fit: %s", found.cure)


@contextmanager
def alone_in(directory: Path) -> Generator[None, None, None]:
    """Keep other processes out of a run directory. The kernel lifts the lock when the process dies, however it dies."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(lock := directory / "lock"))
        except Timeout:
            raise InputError(
                f"Another process is at this very run, in {directory}; wait until it has finished{left_behind(lock)}."
            ) from None
        except OSError as error:
            raise InputError(f"{unwritable(error, directory)}.") from error
        yield


def run_of(cfg: DictConfig, directory: Path, methods: Sequence[str]) -> Run:
    """The run in plain values, for the disk and the tracker; `methods` in the order in which they go."""
    config = plain_settings(cfg)
    config["method"] = {name: config["method"][name] for name in methods}
    options = HydraConfig.get().runtime.choices
    choices = {group: options[group] for group in NAMED if options.get(group)}  # without an experiment it is None
    choices["method"] = ",".join(methods)  # of which Hydra has no entry where there are several
    return Run(
        id=id_of(cfg),
        directory=directory,
        choices=choices,
        config=_unsigned(config),
        provenance=provenance(),
        weights=weights_digest(config["model"]),
        data=data_digest(config["dataset"]),
        sources=code_of(config),
        digest=digest_of(cfg),
    )


def _unsigned(value: Any) -> Any:
    """Settings, whose addresses may be signed, as they may be recorded and published."""
    match value:
        case str():
            return unsigned(value)
        case dict():
            return {key: _unsigned(part) for key, part in value.items()}
        case list():
            return [_unsigned(part) for part in value]
        case _:
            return value


def perform(chosen: Chosen, run: Run) -> None:
    """Everything after the settings: cheap failures first, weights last, each result to the disk as it comes."""
    scalars: list[Scalar] = []
    with ExitStack() as stack:
        with _failure_recorded(run):
            seed_everything(chosen.seed)
            device, reason = chosen.device.resolve()
            placement = chosen.device.placement()
            log.info("Run %s in %s, on %s: %s", run.id, run.directory, device, reason)
            log.info("%s", set_threads(chosen.device.threads))
            prompts, template = _checked(chosen)
            reply, commits = _longest_reply(chosen.methods), _commits(chosen) if chosen.reuse else ("", "")
            given = Circumstances(run.config, prompts, template, chosen.judge, chosen.seed, device, reply, commits)
            steps = steps_of(chosen.methods, given, reuse=chosen.reuse)
            log.info("To come: %s, on %d prompts", ", ".join(chosen.methods), len(prompts.everything))
            run = replace(run, findings={step.name: step.key for step in steps} if chosen.reuse else {})
            kept = {step.name for step in steps if chosen.reuse and Place(_runs(run), step.key).folder.exists()}
            if left := {name: method for name, method in chosen.methods.items() if name not in kept}:
                foretold(chosen, prompts, template, left)
            track = stack.enter_context(chosen.tracker.open(run, pictured))
        store = stack.enter_context(Store(run))

        @cache
        def study() -> Study:
            model = chosen.model.load(placement, template, chosen.device.batch_size)
            made = Study(model, prompts, chosen.judge.on(device), chosen.seed)
            if isinstance(model, LoadedModel):
                lengths = checked_lengths(made, reply)
                find_batch_size(model, max(lengths))
                if is_checked(chosen.methods):  # of all lengths, so that each method goes the same way, kept or not
                    self_checks(model, lengths)
            return made

        again = partial(steps_of, chosen.methods, given, now=True) if chosen.reuse else None
        reported = results(steps, study, run, chosen.reuse, store.reused, again)
        for result in _summed_up(reported, scalars):
            store.save(result)
            track(result)
            log.info("%s", described(result))
    log.info("Finished: %s%s", run.directory, as_text(scalars))


def _runs(run: Run) -> Path:
    """The folder in which runs lie side by side, with what they found."""
    return run.directory.resolve().parent


@contextmanager
def _failure_recorded(run: Run) -> Generator[None, None, None]:
    """What fails before anything on the disk is touched becomes the run's record, unless one had finished here."""
    try:
        yield
    except Exception:
        if not finished(run.directory):
            with Store(run):
                raise
        raise


def _summed_up(reported: Iterator[Result], scalars: list[Scalar]) -> Iterator[Result]:
    """What is reported, then what it comes to; adds every figure to `scalars`."""
    for result in reported:
        if isinstance(result, Scalar):
            scalars.append(result)
        yield result
    yield from summary(scalars)


def described(result: Result) -> str:
    """One line for the log."""
    match result:
        case Scalar() if not known(result.value):
            return f"{result.name}: not measured{f' ({result.absent})' if result.absent else ''}"
        case Scalar():
            return f"{result.name} = {result.value:.4g}{in_brackets(result)}"
        case Outcome():
            return f"{result.name}: {result.value} ({result.because})"
        case _:
            return f"{result.name}: {', '.join(file_names(result)) or type(result).__name__.lower()}"
