"""The settings of a run, checked, as objects: the only place that instantiates what the config names."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError

from rcm.errors import InputError, first_sentence, on_one_line
from rcm.judges import Judge
from rcm.judges.named import named
from rcm.methods import Method
from rcm.models import Model
from rcm.models.devices import Device
from rcm.packaged import CONF
from rcm.prompts import Dataset
from rcm.running.order import in_order
from rcm.settings import Settings
from rcm.tracking.tracker import Tracker

# What an object of each group must be able to do.
DOES = {
    "model": ("check", "load"),
    "dataset": ("load",),
    "method": ("check", "run"),
    "judge": ("verdicts",),
    "device": ("resolve",),
    "tracker": ("open",),
}
LISTS = ("tuple_type", "list_type", "set_type", "frozen_set_type")  # pydantic's names of what is no list
# How Hydra begins where `_target_` names nothing that can be made.
NO_TARGET = ("Error locating target", "Expected a callable target", "Error getting")


class Chosen(NamedTuple):
    """The settings of each group, checked, the seed, and whether what is kept is used."""

    model: Model
    dataset: Dataset
    methods: Mapping[str, Method]
    judge: Judge
    device: Device
    tracker: Tracker
    seed: int
    reuse: bool


class Whole(Settings):
    """The settings that belong to no group. `seed`: NumPy takes 32 bits."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    rerun: bool
    reuse: bool
    estimate: bool
    optimize: str | None


def chosen_settings(cfg: DictConfig) -> Chosen:
    """The settings of all groups; raises one InputError that names everything that is wrong in any of them."""
    problems: list[str] = []
    whole = _whole(cfg, problems)
    single = [group for group in DOES if group not in ("method", "judge")]
    groups = {group: _part(cfg.get(group), group, problems) for group in single}
    groups["judge"] = _judge(cfg.get("judge"), problems)
    methods = _methods(cfg.get("method"), problems)
    if problems:
        several = f"{len(problems)} settings cannot work:\n  " if len(problems) > 1 else ""
        raise InputError(several + "\n  ".join(problems))
    assert whole is not None  # else there was a problem
    return Chosen(**groups, methods=in_order(methods), seed=whole.seed, reuse=whole.reuse)


def _whole(cfg: DictConfig, problems: list[str]) -> Whole | None:
    try:
        return Whole(**{name: cfg.get(name) for name in Whole.model_fields})
    except ValidationError as error:
        problems += _sentences("", error)
    except OmegaConfBaseException as error:
        problems.append(_unresolved("seed", error))
    return None


def _part(node: DictConfig | None, group: str, problems: list[str]) -> Any:
    """The object that the group's settings describe; adds to `problems` what is wrong with them."""
    if node is None:
        problems.append(f"{group} was taken away; choose an option with {group}=NAME, as --help lists them")
        return None
    try:
        if missing := sorted(map(str, OmegaConf.missing_keys(node))):  # full names
            problems += [f"{key} has no value; give it one: {key}=VALUE" for key in missing]
            return None
        made = instantiate(node, _convert_="all")
        if lacking := [name for name in DOES[group.partition(".")[0]] if not callable(getattr(made, name, None))]:
            problems.append(f"{group}._target_ makes no {group}: it cannot {' nor '.join(lacking)}")
        return made
    except OmegaConfBaseException as error:
        problems.append(_unresolved(group, error))
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            problems += _sentences(group, cause)
        elif str(error).startswith(NO_TARGET):
            why = on_one_line(first_sentence(cause if isinstance(cause, Exception) else error))
            problems.append(f"{group}._target_={on_one_line(node._target_)} is no class that can be found ({why})")
        else:
            raise
    return None


def _unresolved(group: str, error: OmegaConfBaseException) -> str:
    """Of a reference to what is not there."""
    return f"{group}: {on_one_line(first_sentence(error))}; write the value itself"


def _methods(node: DictConfig | None, problems: list[str]) -> dict[str, Any]:
    """Each method by the name under which its settings stand."""
    if not node:
        problems.append("method was taken away; choose one or several with method=[NAME,NAME], as --help lists them")
        return {}
    if "_target_" in node:
        problems.append(f"the option of {node._target_} must open with the line '# @package method.NAME', its name")
        return {}
    composed = [str(name) for name in node if isinstance(node[name], DictConfig) and "_target_" in node[name]]
    options = _options()
    # An experiment may have settings for methods that are left away here, but not for methods that there are not.
    for name in map(str, node):
        if name not in composed and name not in options:
            problems.append(f"method.{name}: there is no method {name}; choose one of {', '.join(options)}")
    return {name: _part(node[name], f"method.{name}", problems) for name in composed}


def _options() -> list[str]:
    """The methods that there are: ours, and those that Hydra finds elsewhere."""
    ours = [path.stem for path in (CONF / "method").glob("*.yaml")]
    hydra = GlobalHydra.instance().hydra if GlobalHydra.instance().is_initialized() else None
    return sorted({*ours, *(hydra.config_loader.get_group_options("method") if hydra else ())})


def _judge(node: DictConfig | None, problems: list[str]) -> Any:
    """The judge, and the second one that it names by its option."""
    try:
        second = node.get("second") if node is not None else None
    except OmegaConfBaseException as error:
        problems.append(_unresolved("judge.second", error))
        return None
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
        _sentence(".".join([place, *map(str, problem["loc"])]).strip("."), dict(problem)) for problem in error.errors()
    ]


def _sentence(place: str, problem: Mapping[str, Any]) -> str:
    given = problem["input"]
    if problem["type"] in LISTS:
        lists = f"[{given}]" if isinstance(given, int | float | str) else "[VALUE,VALUE]"
        return on_one_line(f"{place}{_given(given)}: several values belong here; give a list: '{place}={lists}'")
    message = problem["msg"].removeprefix("Value error, ")  # pydantic's prefix to what our own validators say
    return on_one_line(f"{place}{_given(given)}: {message}")


def _given(value: object) -> str:
    """The value as on the command line; nothing where it is a whole group of settings."""
    return "" if isinstance(value, dict) else f"={'null' if value is None else value}"
