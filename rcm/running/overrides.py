"""What is wrong with an override of the command line, in one sentence: Hydra's own messages are paragraphs."""

import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rcm.errors import on_one_line
from rcm.packaged import CONF

# Plugins of Hydra's that bring an option, by its name, and how each is installed.
PLUGINS = {
    "hydra/launcher/submitit_slurm": ("hydra/launcher=slurm", '"rcm[slurm]"'),
    "hydra/launcher/joblib": ("hydra/launcher=joblib", "hydra-joblib-launcher"),
    "hydra/launcher/ray": ("hydra/launcher=ray", "hydra-ray-launcher"),
    "hydra/sweeper/optuna": ("hydra/sweeper=optuna", "hydra-optuna-sweeper"),
}
ONE = ("model", "dataset", "judge", "device", "tracker", "experiment")  # groups that take one option, and no list


def sentence(error: CompactHydraException | ValueError) -> str:
    """The value, the place and the cure, where Hydra tells them apart; else Hydra's words on one line."""
    return on_one_line(_told(error))


def _told(error: CompactHydraException | ValueError) -> str:
    if isinstance(error, MissingConfigException) and (plugin := PLUGINS.get(str(error.missing_cfg_file))):
        return f"{plugin[0]} needs what is not installed here: pip install {plugin[1]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: there is no such option; {_cure(option, error.options)}"
    if isinstance(error, MissingConfigException) and (found := _options_beside(error.missing_cfg_file)):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: there is no such option; {_cure(option, found)}"
    if isinstance(error, OverrideParseException):
        return _quoted(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        if not cause.parent_node:  # an empty mapping, for the user to fill
            return f"{cause.full_key}: nothing stands there yet; add it with +{cause.full_key}=VALUE"
        return f"{cause.full_key}: there is no such setting; {_cure_of_key(error, cause)}"
    if isinstance(error, ValueError) and str(error).startswith("Only one of"):
        if {"-m", "--multirun"} & {*sys.argv[1:]}:
            return f"{str(error).rstrip('.')}; leave -m away to see the settings of one job"
        return f"{str(error).rstrip('.')}; leave all but one of them away"
    if several := re.match(r"Ambiguous value for argument '([^']*)'", str(error)):
        key, _, values = several[1].partition("=")
        told = f"{several[1]}: several values need -m, a run for each: -m {several[1]}"
        return told if key in ONE else f"{told}; one list is {key}=[{values}]"
    if isinstance(error, ValueError):
        return f"{error}; give the name of an option, as --help lists them"
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _cure_of_key(error: Exception, cause: OmegaConfBaseException) -> str:
    """What is meant by a setting that is not there: one beside it, one of that name elsewhere, or one that is called
    nearly so."""
    assert isinstance(cause.parent_node, DictConfig)
    beside = [str(key) for key in cause.parent_node if key != "hydra"]
    asked = re.search(r"Could not override '([^']+)'", str(error))
    path = asked[1] if asked else str(cause.full_key)
    last = path.rpartition(".")[2]
    if close := get_close_matches(str(cause.key), beside, n=1):
        return f"did you mean {'.'.join([*str(cause.full_key).split('.')[:-1], *close])}?"
    every = list(_paths(cause.parent_node._get_root(), ""))
    names = {one.rpartition(".")[2] for one in every}
    named = get_close_matches(last, names, n=1, cutoff=0.8)
    meant = [one for one in every if one.endswith(f".{path}")] or [
        one for one in every if one.rpartition(".")[2] in named
    ]
    return f"did you mean {' or '.join(meant)}?" if meant else _cure(str(cause.key), beside)


def _paths(node: Any, place: str) -> Iterator[str]:
    """Of every setting below, but for Hydra's own."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in map(str, node):
            path = f"{place}.{key}".lstrip(".")
            if path != "hydra":
                yield path
                yield from _paths(node._get_node(key), path)


def _options_beside(missing: str | None) -> list[str]:
    """Our options of the group; Hydra does not tell them where several were asked for."""
    return sorted(path.stem for path in (CONF / str(missing)).parent.glob("*.yaml")) if missing else []


def _quoted(error: OverrideParseException) -> str:
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: this is no override; write KEY=VALUE"
    inside = value.strip("\"'").replace('"', '\\"')
    return f"{error.override}: Hydra does not take this value as it stands; put it in quotes: '{key}=\"{inside}\"'"


def _cure(given: str, known: Iterable[str]) -> str:
    options = list(known)
    close = get_close_matches(given, options, n=1)
    return f"did you mean {close[0]}?" if close else f"choose one of {', '.join(options)}"
