"""A tracker opens a run and takes its results; it sees neither models nor prompts."""

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args

import yaml
from pydantic import AfterValidator, BeforeValidator, NonNegativeFloat

from rcm.errors import InputError
from rcm.record.identity import finished, sweep_agent
from rcm.record.results import Result
from rcm.record.run import Run
from rcm.settings import Settings
from rcm.tracking import client, environment
from rcm.tracking.best_effort import BestEffort
from rcm.tracking.lineage import inputs

if TYPE_CHECKING:
    import wandb  # at run time inside functions, like the plots: both take a second, and tracker=disk needs neither

log = logging.getLogger(__name__)
Track = Callable[[Result], None]
Picture = Callable[[Path], Path | None]  # draws the finished run of a directory as PNG; None where it shows nothing
TAG = 64  # letters that W&B takes


class Tracker(Protocol):
    def open(self, run: Run, picture: Picture | None = None) -> AbstractContextManager[Track]:
        """Open the run and give the function that takes its results; an exception closes it as failed. `picture` draws
        the run, once it has finished and lies on the disk."""
        ...


class Disk(Settings):
    """Nothing but the run directory, which `rcm.record.storage` fills in any case."""

    @contextmanager
    def open(self, run: Run, picture: Picture | None = None) -> Generator[Track, None, None]:
        yield lambda result: None


def _known_to_wandb(project: str) -> str:
    if project and not set(project) & set("/\\#?%:"):
        return project
    raise ValueError(
        "W&B takes no name of a project with any of / \\ # ? % : in it; a team is tracker.entity (WANDB_PROJECT and "
        "WANDB_ENTITY in the environment)"
    )


def _mode(given: object) -> object:
    """By its name of today."""
    known = environment.FORMER.get(str(given), given)
    if known in get_args(Mode):
        return known
    raise ValueError("choose offline, online or disabled, here or by WANDB_MODE in the environment")


Mode = Literal["offline", "online", "disabled"]


class Wandb(Settings):
    """Weights & Biases, recorded in the run directory. `mode`: online also publishes, beside the run and at its end, in
    a process of its own, for which the run then waits at most `wait` seconds; disabled records nothing."""

    project: Annotated[str, AfterValidator(_known_to_wandb)]
    entity: Annotated[str | None, AfterValidator(lambda entity: entity or None)]
    mode: Annotated[Mode, BeforeValidator(_mode)]
    wait: NonNegativeFloat

    @contextmanager
    def open(self, run: Run, picture: Picture | None = None) -> Generator[Track, None, None]:
        self._tell(run)
        if self.mode == "disabled":
            yield lambda result: None
            return
        swept_values = _swept()
        _prepare(run)  # before W&B is asked for anything: it reads the environment once
        environment.check()
        if self.mode == "online":
            _check_key()
        earlier, had_finished = _attempts(run), finished(run.directory)
        effort = BestEffort(run)
        try:
            live = self._started(run, swept_values)
        except OSError as error:
            effort.refused(error)
            yield lambda result: None
            return
        from rcm.tracking.views import show_picture, shown

        exit_code, took_place = 1, False
        try:
            with self._published(live, run):
                try:  # not `with live`, which would print a traceback of its own
                    with shown(live, run, effort) as track:
                        yield track
                        took_place = True  # the run is on the disk by now, and what had finished before is gone
                    effort(lambda: show_picture(drawn, live, run) if (drawn := _drawn(run, picture)) else None)
                    exit_code = 0 if effort.whole else 1  # W&B has only a part of it
                finally:
                    effort.last(partial(live.finish, exit_code=exit_code))
        finally:  # of attempts with this id the record that stays is that of the results that do
            own = {Path(live.dir).parent} & _attempts(run)
            for attempt in own if had_finished and not took_place else earlier - own:
                shutil.rmtree(attempt, ignore_errors=True)

    def _tell(self, run: Run) -> None:
        """Where the record goes, and by whose word."""
        settings = {"mode": self.mode, "project": self.project, "entity": self.entity}
        by = "; ".join(environment.followed(settings))
        by = f" ({by})" if by else ""
        match self.mode:
            case "disabled":
                log.info("W&B is off%s; all that the run finds is in %s", by, run.directory)
            case "online":
                log.info("W&B publishes to project %s while the run goes on%s", self.project, by)
            case "offline":
                here = Path.cwd()
                place = run.directory.relative_to(here) if run.directory.is_relative_to(here) else run.directory
                log.info(
                    "W&B records offline, for project %s%s: python -m rcm.tracking sync %s sends it; to look without "
                    "an account: python -m rcm.report %s, or wandb leet %s/wandb",
                    *(self.project, by, place, place.parent, place),
                )
        for sentence in environment.not_followed(settings):
            log.warning("%s", sentence)

    def _started(self, run: Run, swept_values: Mapping[str, Any]) -> "wandb.Run":
        import wandb

        swept = sweep_agent()  # it has chosen id and project, and knows the run by them
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", self.project) if swept else self.project,
            entity=(os.environ.get("WANDB_ENTITY", self.entity) if swept else self.entity) or "",  # None: its variable
            id=None if swept else run.id,
            mode="offline",
            dir=run.directory,
            name=os.environ.get("WANDB_NAME") or "/".join((run.label, run.choices["dataset"], run.choices["method"])),
            group=os.environ.get("WANDB_RUN_GROUP")
            or "/".join(filter(None, (run.family, run.choices.get("experiment"))))
            or None,
            job_type=run.stage,
            tags=[tag[:TAG] for tag in (*run.methods, run.choices["dataset"], run.choices["judge"])]
            + environment.tags(),
            config=_config(run, swept_values),
            reinit="create_new",  # else the second run of a process would get the first one's
            settings=client.recording(),
        )

    @contextmanager
    def _published(self, live: "wandb.Run", run: Run) -> Generator[None, None, None]:
        if self.mode == "offline":
            yield
            return
        file = Path(live.dir).parent / f"run-{live.id}.wandb"
        with (run.directory / "wandb" / "publishing.log").open("w", encoding="utf-8") as output:
            follower = client.Publisher(["-m", "rcm.tracking", "follow", str(file)], output, client.publishing())
            try:
                yield
            finally:
                _wait(follower, self.wait)
                _log_arrival(follower, run)


def _drawn(run: Run, picture: Picture | None) -> Path | None:
    return None if picture is None else picture(run.directory)


def _prepare(run: Run) -> None:
    """What the client reads from the environment, and room for this attempt."""
    client.without_reports()
    # For staged artifacts, which else go to the user's home.
    os.environ["WANDB_DATA_DIR"] = str(run.directory / "wandb" / "data")
    # A sweep agent's parameters would be locked over the config: `model` would be a name, and its settings lost.
    os.environ.pop("WANDB_SWEEP_PARAM_PATH", None)


def _attempts(run: Run) -> set[Path]:
    """What W&B recorded of this run so far."""
    return set((run.directory / "wandb").glob(f"offline-run-*-{run.id}"))


def _check_key() -> None:
    from rcm.tracking.arrival import has_key

    if not has_key():
        raise InputError(
            "W&B cannot publish with tracker.mode=online (or WANDB_MODE=online), for it knows no key; run "
            "`wandb login`, or use tracker.mode=offline or tracker=disk."
        )


def _swept() -> dict[str, Any]:
    """What a sweep agent gave to this run, by the keys of the sweep, such as `method.direction.max_kl`."""
    file = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not sweep_agent() or file is None or not Path(file).is_file():
        return {}
    told: dict[str, Any] = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    return {key: one["value"] for key, one in told.items() if isinstance(one, dict) and "value" in one}


def _config(run: Run, swept: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting under the name that it has on the command line, such as `method.direction.max_kl`, as W&B's panels,
    filters and sweeps find it: they search neither nested settings nor lists, which become text. Option names stand
    under those of their groups, of methods all of them with commas. What was swept stays as the sweep gave it.
    `model.name` is for people; `weights` and `data` tell like from unlike."""
    return {
        **_flat(run.config),
        **_flat({"provenance": run.provenance}),
        **swept,
        **run.choices,
        "model.name": run.label,
        "weights": run.weights,
        "data": run.data,
        "inputs": inputs(run.config),
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Without what has no value, and without the names of classes, which the options stand for."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None and key != "_target_":
            found[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return found


def _wait(follower: client.Publisher, seconds: float) -> None:
    """Tell the follower that the run is over, and give it time for what is left."""
    assert follower.stdin is not None
    follower.stdin.close()
    for patience in (seconds, 2):
        try:
            follower.wait(patience)
            break
        except subprocess.TimeoutExpired:
            follower.terminate()  # which lets it end the client's sync
    follower.end()


def _log_arrival(follower: client.Publisher, run: Run) -> None:
    output = (run.directory / "wandb" / "publishing.log").read_text(encoding="utf-8").strip()
    last = output.rpartition("\n")[2] or "it did not answer in time"
    if follower.returncode == 0:
        log.info("W&B: %s", last)
    else:
        cure = f"python -m rcm.tracking sync {run.directory}"
        log.warning("W&B has not got all of this run yet (%s); nothing is lost: %s sends the rest", last, cure)
