"""A judge by the name of its option."""

from typing import TYPE_CHECKING, cast

from hydra.utils import instantiate
from omegaconf import OmegaConf

from rcm.errors import InputError
from rcm.packaged import CONF

if TYPE_CHECKING:
    from rcm.judges.base import Judge


def named(name: str) -> "Judge":
    """The judge of `conf/judge/NAME.yaml`, with its values."""
    path = CONF / "judge" / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"There is no judge {name!r}; choose one of {', '.join(names())}.")
    return cast("Judge", instantiate(OmegaConf.load(path), _convert_="all"))


def names() -> list[str]:
    """Of all judges in `conf/judge`."""
    return sorted(path.stem for path in (CONF / "judge").glob("*.yaml"))
