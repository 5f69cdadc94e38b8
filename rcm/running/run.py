"""The life of one run, from a composed config to `metrics.json`.

The only module that instantiates settings. In order: whatever fails cheaply, the tracker, the weights, then each result
to the log, the disk and the tracker as the method yields it.
"""

import logging
import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from rcm.errors import InputError
from rcm.judges.named import named
from rcm.models.devices import Device
from rcm.packaged import CONF
from rcm.record.provenance import provenance
from rcm.record.results import Outcome, Result, Scalar
from rcm.record.storage import Run, Store, file_names
from rcm.running.identity import id_of
from rcm.settings import Settings
from rcm.tracking.tracker import Tracker

if TYPE_CHECKING:  # for the reader and the type checker; the settings bring their own modules
    from rcm.judges import Judge
    from rcm.methods import Method
    from rcm.models import LoadedModel, Model
    from rcm.prompts import Dataset, Split

log = logging.getLogger(__name__)
NAMED = ("model", "dataset", "method", "judge", "experiment")  # groups whose option says what was run


class Chosen(NamedTuple):
    """The settings of each group, checked, and the seed."""

    model: "Model"
    dataset: "Dataset"
    method: "Method"
    judge: "Judge"
    device: Device
    tracker: Tracker
    seed: int


class Whole(Settings):
    """The settings that belong to no group. `seed`: NumPy takes 32 bits."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    rerun: bool


class Prepared(NamedTuple):
    """What a run would work with, in memory."""

    model: "LoadedModel"
    prompts: "Split"
    method: "Method"
    judge: "Judge"
    seed: int


def prepared(*overrides: str) -> Prepared:
    """The same from Python as `python launch.py OVERRIDES` from a shell, up to where the method would begin.

    Nothing is recorded. Raises InputError for what the user can mend.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = chosen_settings(compose("config", overrides=list(overrides)))
    seed_everything(chosen.seed)
    prompts = _checked(chosen)
    model = chosen.model.load(chosen.device.resolve().device, prompts.template, chosen.device.batch_size)
    return Prepared(model, prompts, chosen.method, chosen.judge, chosen.seed)


def _checked(chosen: Chosen) -> "Split":
    """The prompts, when all that can fail cheaply has not."""
    chosen.method.check()
    prompts = chosen.dataset.load()
    chosen.model.check(prompts.everything, prompts.template)
    return prompts


def run(cfg: DictConfig) -> None:
    """Run it, in the directory that Hydra made; raises InputError for what the user can mend."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    with alone_in(directory):
        perform(chosen_settings(cfg), run_of(cfg, directory))


@contextmanager
def alone_in(directory: Path) -> Generator[None, None, None]:
    """Keep other processes out of a run directory. The kernel lifts the lock when the process dies, however it dies."""
    lock = FileLock(directory / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"Another process is at this very run, in {directory}; wait until it has finished.") from None
    try:
        yield
    finally:
        lock.release()


def chosen_settings(cfg: DictConfig) -> Chosen:
    """The settings of all groups; raises one InputError that names everything that is wrong in any of them."""
    problems: list[str] = []
    seed = _seed(cfg, problems)
    groups = {
        group: _part(cfg.get(group), group, problems) for group in Chosen._fields if group not in ("judge", "seed")
    }
    groups["judge"] = _judge(cfg.get("judge"), problems)
    if problems:
        several = f"{len(problems)} settings cannot work:\n  " if len(problems) > 1 else ""
        raise InputError(several + "\n  ".join(problems))
    return Chosen(**groups, seed=seed)


def _seed(cfg: DictConfig, problems: list[str]) -> int:
    try:
        return Whole(seed=cfg.get("seed"), rerun=cfg.get("rerun")).seed
    except ValidationError as error:
        problems += _sentences("", error)
        return 0


def _part(node: DictConfig | None, group: str, problems: list[str]) -> Any:
    """The object that the group's settings describe; adds to `problems` what is wrong with them."""
    if node is None:
        problems.append(f"{group} was taken away; choose an option with {group}=NAME, as --help lists them")
        return None
    if missing := sorted(map(str, OmegaConf.missing_keys(node))):  # full names
        problems += [f"{key} has no value; give it one: {key}=VALUE" for key in missing]
        return None
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        problems += _sentences(group, error.__cause__)
        return None


def _judge(node: DictConfig | None, problems: list[str]) -> Any:
    """The judge, and the second one that it names by its option."""
    second = node.get("second") if node is not None else None
    if node is None or not isinstance(second, str):
        return _part(node, "judge", problems)
    judge = _part(cast(DictConfig, OmegaConf.merge(node, {"second": None})), "judge", problems)
    try:
        return judge and judge.model_copy(update={"second": named(second)})
    except InputError as error:
        problems.append(f"judge.second={second}: {error}")
        return None


def _sentences(place: str, error: ValidationError) -> list[str]:
    """One for each problem: which value, where, and what would be right."""
    return [
        f"{'.'.join([place, *map(str, problem['loc'])]).strip('.')}{_given(problem['input'])}: "
        + problem["msg"].removeprefix("Value error, ")  # pydantic's prefix to what our own validators say
        for problem in error.errors()
    ]


def _given(value: object) -> str:
    """The value as on the command line; nothing where it is a whole group of settings."""
    return "" if isinstance(value, dict) else f"={'null' if value is None else value}"


def run_of(cfg: DictConfig, directory: Path) -> Run:
    """The run in plain values, for the disk and the tracker."""
    choices = HydraConfig.get().runtime.choices
    return Run(
        id=id_of(cfg),
        directory=directory,
        choices={group: choices[group] for group in NAMED if choices.get(group)},  # without an experiment it is None
        config=cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)),
        provenance=provenance(),
    )


def perform(chosen: Chosen, run: Run) -> None:
    """Everything after the settings: cheap failures first, weights last, each result to the disk as it comes."""
    targets: list[Scalar] = []
    with Store(run) as store:
        seed_everything(chosen.seed)
        device, reason = chosen.device.resolve()
        log.info("Run %s in %s, on %s: %s", run.id, run.directory, device, reason)
        prompts = _checked(chosen)
        with chosen.tracker.open(run) as track:
            model = chosen.model.load(device, prompts.template, chosen.device.batch_size)
            for result in chosen.method.run(model, prompts, chosen.judge, chosen.seed):
                store.save(result)
                track(result)
                log.info("%s", described(result))
                if isinstance(result, Scalar) and result.target is not None:
                    targets.append(result)
    log.info("Finished: %s%s", run.directory, summary(targets))


def seed_everything(seed: int) -> None:
    """Equal seeds, equal numbers: on one kind of device, with one version of PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # As use_deterministic_algorithms(True, warn_only=True), which would first import a compiler for 1.5 seconds.
    torch.set_deterministic_debug_mode("warn")


def described(result: Result) -> str:
    """One line for the log."""
    match result:
        case Scalar():
            return f"{result.name} = {result.value:.4g}{_interval(result)}"
        case Outcome():
            return f"{result.name}: {result.value} ({result.because})"
        case _:
            return f"{result.name}: {', '.join(file_names(result)) or type(result).__name__.lower()}"


def _interval(scalar: Scalar) -> str:
    return " [{:.3g}, {:.3g}]".format(*scalar.interval) if scalar.interval else ""


def summary(scalars: list[Scalar]) -> str:
    """A table of the figures that have a target, which is met above it; empty if there is none."""
    if not scalars:
        return ""
    rows = [("", "value [95 % interval]", "null", "target", ""), *map(_row, scalars)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("\n  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(scalar: Scalar) -> tuple[str, str, str, str, str]:
    null = "" if scalar.null is None else f"{scalar.null:.3g}"
    target = cast(float, scalar.target)
    verdict = "met" if scalar.value > target else "NOT MET"
    return scalar.name, f"{scalar.value:.3g}{_interval(scalar)}", null, f"> {target:.3g}", verdict
