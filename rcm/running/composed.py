"""The settings of a run from Python values: options by their names, settings by theirs, and what the command line would
take for all others.

Raises InputError for an option or a setting that there is not, and for a value that it cannot have.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# Importing this registers ${rcm.run_id:}, without which nothing composes.
import rcm.running.identity  # noqa: F401
from rcm.errors import InputError, on_one_line
from rcm.methods import Method
from rcm.packaged import CONF
from rcm.running.chosen import Chosen, chosen_settings
from rcm.running.order import givers

SEED = "seed"  # the one setting that belongs to no group


def options_of(group: str) -> list[str]:
    """The names of the options of a group; of methods those that are one, not several."""
    files = sorted((CONF / group).glob("*.yaml"))
    return [path.stem for path in files if "_target_:" in path.read_text(encoding="utf-8")]


@cache
def with_needs(method: str) -> tuple[str, ...]:
    """The method behind those that give what it needs."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        target = compose("config", overrides=[f"method={method}"]).method[method]._target_
    found: list[str] = []
    for need in cast(type[Method], get_class(target)).needs:
        (giver, *_) = sorted(set(givers(need)))
        found += with_needs(giver)
    return *dict.fromkeys(found), method


def composed(
    options: Mapping[str, str | Sequence[str]], settings: Mapping[str, Mapping[str, Any]], seed: Any = 0
) -> Chosen:
    """`options`: a name for each group, of methods several. `settings`: by group, of a method by `method.NAME`."""
    for group, names in options.items():
        for name in [names] if isinstance(names, str) else names:
            _known(f"There is no {group} {name!r}", name, options_of(group), f"{group}s are")
    overrides = [
        f"{group}={name if isinstance(name, str) else '[' + ','.join(name) + ']'}" for group, name in options.items()
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["tracker=disk", *overrides], return_hydra_config=True)
    for name, value in cfg.hydra.job.env_set.items():
        os.environ.setdefault(name, value)
    for place, values in settings.items():
        node = OmegaConf.select(cfg, place)
        known = [str(key) for key in node if key != "_target_"]
        for key, value in values.items():
            _known(f"{place} has no setting {key!r}", key, known, "it has")
            _set(node, place, key, value)
    _set(cfg, "", SEED, seed)
    return chosen_settings(cfg)


def _known(problem: str, given: str, known: Sequence[str], there: str) -> None:
    if given in known:
        return
    close = get_close_matches(given, known, n=1)
    raise InputError(
        f"{on_one_line(problem)}{f'; did you mean {close[0]!r}' if close else ''}: {there} {', '.join(known)}."
    )


def _set(node: DictConfig, place: str, key: str, value: Any) -> None:
    try:
        OmegaConf.update(node, key, _plain(value), merge=False)
    except OmegaConfBaseException as error:
        name = f"{place}.{key}".strip(".")
        raise InputError(
            f"{name} cannot be a {type(value).__name__}; give a number, a text, a list, true, false or None."
        ) from error


def _plain(value: Any) -> Any:
    """As a YAML file would have it."""
    match value:
        case Path():
            return str(value)
        case np.generic():
            return value.item()
        case list() | tuple() | range():
            return [_plain(part) for part in value]
        case _:
            return value
