"""The run's settings in plain values, and its id: `${rcm.run_id:}` names the run directory in `conf/config.yaml`. And
whether it has finished already.

Importing this registers the resolver. It brings no PyTorch, so that `launch.py` answers at once.
"""

import json
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rcm.record.identity import IDENTITY, RECORD, finished, settings_digest, sweep_agent
from rcm.record.provenance import commit_of, git
from rcm.record.sources import sources_digest


def plain_settings(cfg: DictConfig, groups: list[str] | None = None) -> dict[str, Any]:
    """All groups of a composed config, or some.

    An experiment has settings for methods that may have been left away on the command line: they do not count.
    """
    given = cfg if groups is None else OmegaConf.masked_copy(cfg, groups)
    settings = cast(dict[str, Any], OmegaConf.to_container(given, resolve=True))
    methods = settings.get("method")
    if methods and "_target_" not in methods:
        settings["method"] = {
            name: method for name, method in methods.items() if isinstance(method, dict) and "_target_" in method
        }
    return settings


def id_of(cfg: DictConfig) -> str:
    """The id of the run that a composed config describes."""
    return digest_of(cfg)[:8]


def digest_of(cfg: DictConfig) -> str:
    """The whole digest of what the id names."""
    return settings_digest(plain_settings(cfg, [group for group in IDENTITY if group in cfg]))


def code_of(settings: dict[str, Any]) -> str:
    """The digest of the code that a run of these settings is measured by."""
    return sources_digest({group: settings[group] for group in IDENTITY if group in settings})


def finished_already(cfg: DictConfig, directory: Path) -> str | None:
    """Where the run that the config describes has finished, and by which code if by another; None where it has not, or
    is to be run all the same."""
    if not finished(directory) or cfg.get("rerun") or sweep_agent():
        return None
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        made, by = record.get("sources"), commit_of(record["provenance"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        made, by = None, "not known"
    if made == code_of(plain_settings(cfg)):
        return f"Finished already: {directory} (rerun=true runs it again)"
    now = commit_of({"git": git()})
    return f"Finished already, by other code ({by}; this is {now}): {directory} (rerun=true runs it again, by this)"


def _resolve(*, _root_: DictConfig) -> str:
    return id_of(_root_)  # OmegaConf hands over the whole config


OmegaConf.register_new_resolver("rcm.run_id", _resolve, replace=True)
