"""One method of the command line, on a model in memory, after what it needs."""

import hashlib
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from rcm.api.datasets import dataset as dataset_of
from rcm.api.directions import Direction
from rcm.api.findings import Finding
from rcm.api.localised import Circuit, Patching
from rcm.api.models import Model
from rcm.errors import InputError
from rcm.execution.batches import rows_at_once
from rcm.execution.passes import last_logits
from rcm.execution.seeding import seed_everything
from rcm.judges import Judge
from rcm.methods import Method, Study, collected, run_method
from rcm.prompts import Split, texts
from rcm.running.composed import composed, with_needs

log = logging.getLogger(__name__)
KINDS: Mapping[str, type[Finding]] = {"direction": Direction, "patching": Patching, "circuit": Circuit}
SIZES = ("train", "validation", "test")
LONG = 60.0  # seconds, from which on it is said beforehand


@cache
def method(name: str) -> Callable[..., Finding]:
    """The method as a function: `method("direction")(model, max_kl=0.3)`."""

    def measure(
        model: Any,  # anything, to be told in a sentence of ours
        /,
        *,
        dataset: str | Split | None = None,
        harmful: Sequence[Any] | None = None,
        harmless: Sequence[Any] | None = None,
        judge: str | Judge | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> Finding:
        return measured(name, model, dataset, harmful, harmless, judge, seed, settings)

    measure.__name__ = measure.__qualname__ = name
    measure.__doc__ = (
        f"What `method={name}` of the command line finds in a model.\n\n"
        f"`settings`: those of conf/method/{name}.yaml; `train`, `validation`, `test`: sizes of the data set; what "
        "another method found, under its name (`direction=direction`), in place of what would be found first. "
        "`dataset`: the name of an option, or what `rcm.dataset` gives; `harmful`, `harmless`: lists of your own. "
        "`judge`: the name of an option, or a judge. Raises InputError for what cannot work."
    )
    return measure


def measured(
    name: str,
    model: Any,
    dataset: str | Split | None,
    harmful: Sequence[Any] | None,
    harmless: Sequence[Any] | None,
    judge: str | Judge | None,
    seed: int | None,
    settings: Mapping[str, Any],
) -> Finding:
    if not isinstance(model, Model):
        raise InputError(f"rcm.{name} takes a model of rcm.load or rcm.wrap, not a {type(model).__name__}.")
    given = {key: one for key, one in settings.items() if isinstance(one, Finding)}
    sizes = {key: settings[key] for key in SIZES if key in settings}
    own = {key: one for key, one in settings.items() if key not in (*given, *sizes)}
    before = next(iter(given.values())) if given else None
    judge = judge or (before.study.judge if before else "calibrated")
    named = judge if isinstance(judge, str) else "calibrated"  # of which only the settings of methods are taken
    seed = seed if seed is not None else before.study.seed if before else 0
    chosen = composed({"judge": named, "method": with_needs(name)}, {f"method.{name}": own}, seed)
    if before and dataset is None and harmful is None and harmless is None and not sizes:
        prompts = before.study.prompts
    elif isinstance(dataset, Split):
        if sizes or harmful is not None or harmless is not None:
            raise InputError("dataset= has its prompts and sizes already; give those to rcm.dataset.")
        prompts = dataset
    else:
        prompts = dataset_of(dataset, harmful=harmful, harmless=harmless, **sizes)
    if isinstance(judge, str):
        judge = chosen.judge
    judge = judge.on(model.loaded.device)
    study = Study(model.loaded, replace(prompts, template=model.template), judge, chosen.seed)
    for key, one in given.items():
        _check_given(name, chosen.methods[name], key, one, model, study)
    for step in chosen.methods.values():
        step.check()
    model.check(study.prompts, max(getattr(step, "max_new_tokens", 0) for step in chosen.methods.values()))
    seed_everything(chosen.seed)
    found = {type(one.finding): one for one in given.values()}
    for step_name, step in chosen.methods.items():
        if step_name in given:
            continue
        one = _found(step_name, step, model, study, found, name)
        if step.gives is not None:
            found[step.gives] = one
    return one


def _check_given(name: str, method: Method, key: str, one: Finding, model: Model, study: Study) -> None:
    if type(one.finding) not in (*method.needs, *method.uses):
        raise InputError(f"{name} builds on no finding of {one.method}; leave {key}= away.")
    if key != one.method:
        raise InputError(f"{key}= is what the method {one.method} found; write {one.method}=.")
    if one.model is not model:
        raise InputError(f"{key}= was found in another model; find it in this one first.")
    if one.study.prompts != study.prompts or one.study.seed != study.seed:
        raise InputError(f"{key}= was found on other prompts or with another seed; leave dataset and seed away.")


def _found(
    name: str,
    step: Method,
    model: Model,
    study: Study,
    before: Mapping[type, Finding],
    wanted: str,
) -> Finding:
    """What was found before for the same, or else what the method finds now."""
    taken = {kind: before[kind] for kind in (*step.needs, *step.uses) if kind in before}
    key = _key(name, step, study, taken)
    if key in model.found:
        if name != wanted:
            log.info("%s: the %s was found before, with the same settings on the same prompts", wanted, name)
        known: Finding = model.found[key]
        return known if known.study.judge == study.judge else replace(known, study=study)
    if name != wanted:
        log.info("%s needs the %s: finding it first, with its default settings", wanted, name)
    _say_how_long(name, study)
    start = time.monotonic()
    given = study.given({kind: one.finding for kind, one in taken.items()})
    results, finding = collected(run_method(name, step, given))
    log.info("%s: done in %.0f s", name, time.monotonic() - start)
    by_name = {one.method: one for one in taken.values()}
    made = KINDS.get(name, Finding)(name, model, study, results, finding, by_name)
    model.found[key] = made
    return made


def _key(name: str, step: Method, study: Study, taken: Mapping[type, Finding]) -> Hashable:
    prompts = hashlib.sha256(repr(study.prompts).encode()).hexdigest()
    judge: Judge | None = study.judge if step.judged else None
    return name, repr(step), prompts, repr(judge), study.seed, tuple(id(one.finding) for one in taken.values())


def _say_how_long(name: str, study: Study) -> None:
    """A lower bound, by how long one batch takes: reading each prompt once."""
    model, prompts = study.model, study.prompts
    some = texts(prompts.train.harmful[: rows_at_once(model)])
    start = time.monotonic()
    last_logits(model, some)
    seconds = (time.monotonic() - start) / len(some) * len(prompts.everything)
    if seconds > LONG:
        log.info(
            "%s: reading its %d prompts once takes about %.0f minutes here, and all of it longer; train=, validation= "
            "and test= take fewer",
            *(name, len(prompts.everything), seconds / 60),
        )
