"""A tracker opens a run and takes its results; it sees neither models nor prompts."""

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import yaml
from pydantic import AfterValidator, NonNegativeFloat

from rcm.errors import InputError
from rcm.record.identity import finished, sweep_agent
from rcm.record.results import Result
from rcm.record.run import Run
from rcm.settings import Settings
from rcm.tracking import client
from rcm.tracking.lineage import inputs

if TYPE_CHECKING:
    import wandb  # at run time inside functions, like the plots: both take a second, and tracker=disk needs neither

log = logging.getLogger(__name__)
Track = Callable[[Result], None]
TAG = 64  # letters that W&B takes


class Tracker(Protocol):
    def open(self, run: Run) -> AbstractContextManager[Track]:
        """Open the run and give the function that takes its results; an exception closes it as failed."""
        ...


class Disk(Settings):
    """Nothing but the run directory, which `rcm.record.storage` fills in any case."""

    @contextmanager
    def open(self, run: Run) -> Generator[Track, None, None]:
        yield lambda result: None


def _known_to_wandb(project: str) -> str:
    if project and not set(project) & set("/\\#?%:"):
        return project
    raise ValueError("W&B takes no name of a project with any of / \\ # ? % : in it; a team is tracker.entity")


class Wandb(Settings):
    """Weights & Biases, recorded in the run directory. `mode`: online also publishes, beside the run and at its end, in
    a process of its own, for which the run then waits at most `wait` seconds."""

    project: Annotated[str, AfterValidator(_known_to_wandb)]
    entity: str | None
    mode: Literal["offline", "online"]
    wait: NonNegativeFloat

    @contextmanager
    def open(self, run: Run) -> Generator[Track, None, None]:
        swept_values = _swept()
        _prepare(run)  # before W&B is asked for anything: it reads the environment once
        self._tell_unheard()
        if self.mode == "online":
            _check_key()
        earlier, had_finished = _attempts(run), finished(run.directory)
        live = self._started(run, swept_values)
        from rcm.tracking.views import shown

        exit_code, took_place = 1, False
        try:
            with self._published(live, run):
                try:  # not `with live`, which would print a traceback of its own
                    with shown(live, run) as track:
                        yield track
                        took_place = True  # the run is on the disk by now, and what had finished before is gone
                    exit_code = 0
                finally:
                    live.finish(exit_code=exit_code)
        finally:  # of attempts with this id the record that stays is that of the results that do
            own = {Path(live.dir).parent} & _attempts(run)
            for attempt in own if had_finished and not took_place else earlier - own:
                shutil.rmtree(attempt, ignore_errors=True)

    def _tell_unheard(self) -> None:
        """W&B's own variables that settings of ours take the place of; under a sweep agent some are followed."""
        followed = ("WANDB_PROJECT", "WANDB_ENTITY") if sweep_agent() else ()
        for variable, setting in (("MODE", "mode"), ("PROJECT", "project"), ("ENTITY", "entity")):
            given, ours = os.environ.get(f"WANDB_{variable}"), getattr(self, setting)
            if given and given != ours and f"WANDB_{variable}" not in followed:
                instead = "tracker=disk" if given in ("disabled", "dryrun") else f"tracker.{setting}={given}"
                log.warning(
                    "WANDB_%s=%s is not followed (tracker.%s=%s); use %s", variable, given, setting, ours, instead
                )

    def _started(self, run: Run, swept_values: Mapping[str, Any]) -> "wandb.Run":
        import wandb

        swept = sweep_agent()  # it has chosen id and project, and knows the run by them
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", self.project) if swept else self.project,
            entity=os.environ.get("WANDB_ENTITY", self.entity) if swept else self.entity,
            id=None if swept else run.id,
            mode="offline",
            dir=run.directory,
            name="/".join((run.label, run.choices["dataset"], run.choices["method"])),
            group="/".join(filter(None, (run.family, run.choices.get("experiment")))) or None,
            job_type=run.stage,
            tags=[tag[:TAG] for tag in (*run.methods, run.choices["dataset"], run.choices["judge"])],
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
            "W&B cannot publish with tracker.mode=online, for it knows no key; run `wandb login`, or use "
            "tracker.mode=offline or tracker=disk."
        )


def _swept() -> dict[str, Any]:
    """What a sweep agent gave to this run, by the keys of the sweep, such as `method.direction.max_kl`."""
    file = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not sweep_agent() or file is None or not Path(file).is_file():
        return {}
    told: dict[str, Any] = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    return {key: one["value"] for key, one in told.items() if isinstance(one, dict) and "value" in one}


def _config(run: Run, swept: Mapping[str, Any]) -> dict[str, Any]:
    """Option names on top, of methods all of them with commas, and settings below, as `config.method.direction.max_kl`:
    a sweep over `model` puts its name over a setting called `model`. `weights` and `data` tell like from unlike. What
    was swept stands under the sweep's own keys, too, where W&B's search and its panels look for it."""
    return {
        **swept,
        **run.choices,
        "weights": run.weights,
        "data": run.data,
        "config": run.config,
        "provenance": run.provenance,
        "inputs": inputs(run.config),
    }


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
