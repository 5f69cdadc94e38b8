"""What is wrong with an override of the command line, in one sentence: Hydra's own messages are paragraphs."""

from collections.abc import Iterable
from difflib import get_close_matches

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rcm.errors import on_one_line
from rcm.packaged import CONF


def sentence(error: CompactHydraException | ValueError) -> str:
    """The value, the place and the cure, where Hydra tells them apart; else Hydra's words on one line."""
    return on_one_line(_told(error))


def _told(error: CompactHydraException | ValueError) -> str:
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
        return f"{cause.full_key}: there is no such setting; {_cure(str(cause.key), map(str, cause.parent_node))}"
    if isinstance(error, ValueError) and str(error).startswith("Only one of"):
        return f"{str(error).rstrip('.')}; leave -m away to see the settings of one job"
    if isinstance(error, ValueError):
        return f"{error}; give the name of an option, as --help lists them"
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


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
