"""The run's settings in plain values, and its id: `${rcm.run_id:}` names the run directory in `conf/config.yaml`.

Importing this registers the resolver. It brings no PyTorch, so that `launch.py` answers at once.
"""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rcm.record.identity import IDENTITY, run_id


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
    return run_id(plain_settings(cfg, [group for group in IDENTITY if group in cfg]))


def _resolve(*, _root_: DictConfig) -> str:
    return id_of(_root_)  # OmegaConf hands over the whole config


OmegaConf.register_new_resolver("rcm.run_id", _resolve, replace=True)
