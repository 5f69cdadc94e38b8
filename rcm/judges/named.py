"""A judge by the name of its option."""

from pydoc import locate
from typing import cast

import yaml

from rcm.errors import InputError
from rcm.judges.base import Judge
from rcm.packaged import CONF


def named(name: str) -> Judge:
    """The judge of `conf/judge/NAME.yaml`, with its values."""
    path = CONF / "judge" / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"There is no judge {name!r}; choose one of {', '.join(names())}.")
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return cast(type[Judge], locate(settings.pop("_target_")))(**settings)


def names() -> list[str]:
    """Of all judges in `conf/judge`."""
    return sorted(path.stem for path in (CONF / "judge").glob("*.yaml"))
