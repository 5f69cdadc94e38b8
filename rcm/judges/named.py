"""A judge by the name of its option."""

from pathlib import Path
from typing import cast

from hydra.utils import instantiate
from omegaconf import OmegaConf

import rcm
from rcm.errors import InputError
from rcm.judges.base import Judge

PACKAGE = Path(rcm.__file__).parent
CONF = next((path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir()), PACKAGE / "conf")


def named(name: str) -> Judge:
    """The judge of `conf/judge/NAME.yaml`, with its values."""
    path = CONF / "judge" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml")))
        raise InputError(f"There is no judge {name!r}; choose one of {known}.")
    return cast(Judge, instantiate(OmegaConf.load(path), _convert_="all"))
