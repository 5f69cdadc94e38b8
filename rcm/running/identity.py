"""The run's id as Hydra knows it: `${rcm.run_id:}` names the run directory in `conf/config.yaml`.

Importing this registers the resolver. It brings no PyTorch, so that `launch.py` answers at once.
"""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from rcm.record.identity import IDENTITY, run_id


def id_of(cfg: DictConfig) -> str:
    """The id of the run that a composed config describes."""
    given = OmegaConf.masked_copy(cfg, [group for group in IDENTITY if group in cfg])
    return run_id(cast(dict[str, Any], OmegaConf.to_container(given, resolve=True)))


def _resolve(*, _root_: DictConfig) -> str:
    return id_of(_root_)  # OmegaConf hands over the whole config


OmegaConf.register_new_resolver("rcm.run_id", _resolve, replace=True)
