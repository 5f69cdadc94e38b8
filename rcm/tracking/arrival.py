"""What of a recorded run the server has. Only its own answers count: the client's sync exits 0 when an artifact is
refused, and calls a run synced whose files it could not find."""

import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rcm.errors import InputError
from rcm.tracking.wandb_file import OfflineRun, Row, content

if TYPE_CHECKING:
    import wandb
    from wandb.apis.public import Run

SECONDS = 10  # for each question
PROBE = b'{"query": "query Probe { serverInfo { cliVersionInfo } }"}'


class Count(NamedTuple):
    """How many of the recorded things are there."""

    arrived: int
    recorded: int

    @classmethod
    def of(cls, recorded: Mapping[str, Any], arrived: Mapping[str, Any]) -> "Count":
        """Under the same name, with the same value."""
        equal = (name in arrived and arrived[name] == value for name, value in recorded.items())
        return cls(sum(equal), len(recorded))


@dataclass(frozen=True)
class Arrival:
    """The server's state of a run. `ended`: whether it knows that the run is over. `rows`: what its history says.
    `last_step`: of its history; -1 if it has none."""

    counts: Mapping[str, Count]
    ended: bool
    url: str = ""
    rows: Counter[str] = field(default_factory=Counter[str])
    last_step: int = -1

    @property
    def complete(self) -> bool:
        return self.ended and all(count.arrived == count.recorded for count in self.counts.values())

    def __str__(self) -> str:
        return ", ".join(f"{count.arrived}/{count.recorded} {name}" for name, count in self.counts.items())


def connection() -> "wandb.Api":
    """The server, once it has answered; raises InputError where there is no key, or no server."""
    import wandb

    url = wandb.setup().settings.base_url
    if not has_key():
        raise InputError(f"There is no key for W&B at {url}; run `wandb login`, or set WANDB_API_KEY.")
    if not _answers(url):
        raise InputError(f"W&B at {url} does not answer; look at the network and at WANDB_BASE_URL.")
    return wandb.Api(timeout=SECONDS)


def has_key() -> bool:
    """Whether the client knows a key for its server; it asks neither user nor server, which the client's login does."""
    import wandb
    from requests.utils import get_netrc_auth

    settings = wandb.setup().settings
    return bool(settings.api_key or settings.identity_token_file or get_netrc_auth(settings.base_url))


def _answers(url: str) -> bool:
    """Whether somebody answers, be it that they refuse: the client itself waits for minutes."""
    request = urllib.request.Request(f"{url}/graphql", PROBE, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS / 2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def arrival(recorded: OfflineRun, api: "wandb.Api") -> Arrival:
    """Ask the server for all of it."""
    run = found(recorded, api)
    if run is None:
        return Arrival(_counts(recorded, Counter(), {}, {}, {}, set()), ended=False)
    history = list(run.scan_history(use_cache=False))
    rows = Counter(map(content, history))
    counts = _counts(
        recorded,
        rows,
        _plain(dict(run.summary)),
        run.config,
        {file.name: file.size for file in run.files()},
        {(one.name.partition(":")[0], one.digest) for one in run.logged_artifacts()},
    )
    return Arrival(counts, run.state != "running", run.url, rows, max((row["_step"] for row in history), default=-1))


def found(recorded: OfflineRun, api: "wandb.Api") -> "Run | None":
    """The run on the server, if there is one."""
    from wandb.errors import CommError

    api.flush()  # it remembers its last answer
    try:
        return api.run(f"{recorded.entity or api.default_entity}/{recorded.project}/{recorded.id}")
    except (CommError, ValueError) as error:
        if "not find" in str(error):  # else it is the server that does not answer
            return None
        raise


def _counts(
    recorded: OfflineRun,
    rows: Counter[str],
    summary: Row,
    config: Row,
    files: Mapping[str, int],
    artifacts: Set[tuple[str, str]],
) -> dict[str, Count]:
    """`artifacts`: name and digest; after several attempts one name may have several."""
    logged = Counter(map(content, recorded.rows))
    settings = {key: value for key, value in recorded.config.items() if not key.startswith("_")}
    figures = {key: value for key, value in recorded.summary.items() if not (key.startswith("_") or _is_media(value))}
    return {
        "rows": Count((logged & rows).total(), logged.total()),
        "figures": Count.of(figures, summary),
        "settings": Count.of(settings, config),
        "files": Count.of(recorded.files, files),
        "artifacts": Count(len(recorded.artifacts.items() & artifacts), len(recorded.artifacts)),
    }


def _is_media(value: Any) -> bool:
    """A figure or table, which is among the rows and the files."""
    return isinstance(value, dict)


def _plain(value: Any) -> Any:
    """Dicts in place of the API's own."""
    if hasattr(value, "items"):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def described(arrivals: Iterable[tuple[str, Arrival]]) -> str:
    """One line for each run."""
    return "\n".join(f"{name}: {_verdict(one)}: {one} {one.url}".rstrip() for name, one in arrivals)


def _verdict(one: Arrival) -> str:
    return "all arrived" if one.complete else "NOT all arrived"
