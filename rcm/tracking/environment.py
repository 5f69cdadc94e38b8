"""W&B's own variables in the environment: which a run follows, which give way to an override, which rcm has no use for.

`conf/tracker/wandb.yaml` reads WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY, so that an override of `tracker.mode` on the
command line beats them as it beats the file. NAME, RUN_GROUP and TAGS are read here; NOTES, the key, the server, its
certificates and the folders for caches, by W&B's client itself. A sweep agent sets some for the runs that it starts.
"""

import os
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from rcm.errors import InputError, on_one_line
from rcm.record.identity import sweep_agent

SETTINGS = {"WANDB_MODE": "mode", "WANDB_PROJECT": "project", "WANDB_ENTITY": "entity"}
LABELS = ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_NOTES")
FORMER = {"dryrun": "offline", "run": "online"}  # modes of W&B by their names of before
OF_THE_AGENT = ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_ID", "WANDB_DIR")
NOT_FOLLOWED = {
    "WANDB_DIR": "what W&B records lies with the run; hydra.run.dir=FOLDER, with -m hydra.sweep.dir=FOLDER, moves both",
    "WANDB_RUN_ID": "a run is called by a digest of its settings",
    "WANDB_RESUME": "a run that was killed goes on by itself, under its own id",
    "WANDB_JOB_TYPE": "it is the model's stage, by which the page and the workspace group; model.stage=STAGE sets it",
}


def followed(settings: Mapping[str, str | None]) -> list[str]:
    """The variables that hold, as `NAME=value`; `settings`: mode, project and entity, as the run has them."""
    held = [name for name, key in SETTINGS.items() if (one := os.environ.get(name)) and same(one, settings[key])]
    return [f"{name}={os.environ[name]}" for name in (*held, *(name for name in LABELS if os.environ.get(name)))]


def not_followed(settings: Mapping[str, str | None]) -> Iterator[str]:
    """A sentence for each variable that is set and does not hold."""
    agents = OF_THE_AGENT if sweep_agent() else ()
    for name, key in SETTINGS.items():
        given = os.environ.get(name)
        if given and not same(given, settings[key]) and name not in agents:
            yield f"{name}={given} gives way to tracker.{key}={'null' if settings[key] is None else settings[key]}"
    for name, why in NOT_FOLLOWED.items():
        if os.environ.get(name) and name not in agents:
            yield f"{name}={os.environ[name]} is not followed: {why}"


def same(given: str, ours: str | None) -> bool:
    """Whether a variable says what the setting says."""
    return FORMER.get(given, given) == ours


def tags() -> list[str]:
    """Those of WANDB_TAGS."""
    return [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]


def check_switched_on() -> None:
    """Raises InputError where W&B is to do nothing at all. WANDB_MODE=offline is of runs: who syncs, asks for it."""
    if os.environ.get("WANDB_MODE") == "disabled":
        raise InputError(
            "WANDB_MODE=disabled turns W&B off, so that nothing is sent; unset it to send what runs recorded."
        )
    check()


def check() -> None:
    """Raises InputError where a variable has a value that W&B's client does not take; it reads all at once."""
    import wandb

    try:
        wandb.setup()
    except ValidationError as error:
        problem = error.errors()[0]
        setting = str(problem["loc"][0]).upper()
        names = (f"WANDB_{setting}", f"WANDB_{setting.removeprefix('RUN_')}")
        name = next((name for name in names if name in os.environ), names[0])
        why = problem["msg"].removeprefix("Value error, ").replace(". ", "; ")
        raise InputError(
            on_one_line(f"{name}={os.environ.get(name, '')}: W&B does not take this ({why}); set another, or unset it.")
        ) from None
