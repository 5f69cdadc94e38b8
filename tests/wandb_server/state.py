"""What the server has, and what the client's mutations do to it."""

import base64
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

Tree = dict[str, Any]
USER = "tester"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def global_id(*parts: str) -> str:
    return base64.b64encode(":".join(parts).encode()).decode()


@dataclass
class Run:
    entity: str
    project: str
    name: str
    display_name: str = ""
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    sweep: str | None = None
    state: str = "running"
    exit_code: int | None = None
    config: Tree = field(default_factory=dict)
    summary: Tree = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    files: dict[str, Path | None] = field(default_factory=dict)  # None: announced, not uploaded
    logged: list["Artifact"] = field(default_factory=list)
    used: list["Artifact"] = field(default_factory=list)
    created: str = field(default_factory=now)

    @property
    def history(self) -> list[Tree]:
        return [json.loads(line) for line in self.lines]

    @property
    def settings(self) -> Tree:
        """The config without the server's wrapping and the client's own notes."""
        return {key: entry["value"] for key, entry in self.config.items() if key != "_wandb"}


@dataclass
class Artifact:
    id: str
    entity: str
    project: str
    collection: str
    type: str
    digest: str
    metadata: str | None
    aliases: list[str]
    run: Run | None
    state: str = "PENDING"
    version: int | None = None
    files: dict[str, Path] = field(default_factory=dict)
    manifest: Path | None = None
    created: str = field(default_factory=now)


@dataclass
class Sweep:
    name: str
    entity: str
    project: str
    config: str = ""
    state: str = "PENDING"
    todo: Iterator[Tree] = field(default_factory=lambda: iter(()))
    started: dict[str, Tree] = field(default_factory=dict)  # what an agent was told to run, by run id
    given_to: dict[str, str] = field(default_factory=dict)  # which agent

    @property
    def id(self) -> str:
        return global_id("Sweep", self.name)

    @property
    def spec(self) -> Tree:
        return yaml.safe_load(self.config)


class State:
    """Everything, in memory; uploads lie below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder, ""
        self.runs: dict[tuple[str, str, str], Run] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, str] = {}  # an agent's sweep
        self.workspaces: dict[str, Tree] = {}
        self.unknown: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)

    def run(self, project: str, name: str, entity: str = USER) -> Run:
        return self.runs[entity, project, name]

    def maybe_run(self, entity: str | None, project: str | None, name: str | None) -> Run | None:
        return self.runs.get((entity or USER, project or "uncategorized", name or ""))

    def make_run(self, entity: str | None, project: str | None, name: str | None) -> Run:
        key = (entity or USER, project or "uncategorized", name or f"run{next(self._numbers):06d}")
        return self.runs.setdefault(key, Run(*key))

    def committed(self, entity: str, project: str, name: str) -> Artifact | None:
        """`collection:version`, where the version is an alias or a number."""
        collection, _, version = name.rpartition("/")[2].partition(":")
        for artifact in self.artifacts.values():
            place = (artifact.entity, artifact.project, artifact.collection)
            names = (*artifact.aliases, f"v{artifact.version}")
            if place == (entity, project, collection) and artifact.state == "COMMITTED" and version in names:
                return artifact
        return None

    def upload_url(self, *parts: str) -> str:
        return "/".join([self.url, "storage", *parts])

    # Mutations: `given` is their input.

    def upsert_run(self, given: Tree) -> tuple[Run, bool]:
        place = (given.get("entityName"), given.get("modelName"), given.get("name"))
        if not given.get("name") and given.get("id"):
            _, name, project, entity = base64.b64decode(given["id"]).decode().split(":")
            place = (entity, project, name)
        fresh = self.maybe_run(*place) is None
        run = self.make_run(*place)
        names = {"displayName": "display_name", "groupName": "group", "jobType": "job_type"}
        for key in ("displayName", "groupName", "jobType", "sweep", "tags", "state"):
            if given.get(key) is not None:
                setattr(run, names.get(key, key), given[key])
        run.config |= json.loads(given.get("config") or "{}")
        run.summary |= json.loads(given.get("summaryMetrics") or "{}")
        return run, fresh

    def announce_files(self, given: Tree) -> tuple[Run, list[Tree]]:
        run = self.make_run(given["entityName"], given["projectName"], given["runName"])
        place = ("runs", run.entity, run.project, run.name)
        for name in given["files"]:
            run.files.setdefault(name, None)
        return run, [{"name": name, "uploadUrl": self.upload_url(*place, name)} for name in given["files"]]

    def stream(self, entity: str, project: str, name: str, given: Tree) -> None:
        """Rows of the history, the summary, and in the end the exit code."""
        run = self.make_run(entity, project, name)
        files = given.get("files", {})
        if rows := files.get("wandb-history.jsonl"):
            run.lines[rows["offset"] : rows["offset"] + len(rows["content"])] = rows["content"]
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1])
        if given.get("complete"):
            run.exit_code = given.get("exitcode", 0)
            run.state = "failed" if run.exit_code else "finished"

    def store(self, place: str, data: bytes) -> None:
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kind, *rest = place.split("/", 4)
        if kind == "runs":
            entity, project, name, file = rest
            self.make_run(entity, project, name).files[file] = path

    def create_artifact(self, given: Tree) -> Artifact:
        place = (given["entityName"] or USER, given["projectName"], given["artifactCollectionName"])
        run = self.maybe_run(*place[:2], given.get("runName"))
        aliases = [entry["alias"] for entry in given.get("aliases") or []]
        for artifact in self._versions(place):
            if artifact.digest == given["digest"] and artifact.state == "COMMITTED":
                break
        else:
            key = global_id("Artifact", str(next(self._numbers)))
            kind, digest, metadata = given["artifactTypeName"], given["digest"], given.get("metadata")
            artifact = self.artifacts[key] = Artifact(key, *place, kind, digest, metadata, aliases, run)
        if run is not None and artifact not in run.logged:
            run.logged.append(artifact)
        return artifact

    def _versions(self, place: tuple[str, str, str]) -> list[Artifact]:
        return [one for one in self.artifacts.values() if (one.entity, one.project, one.collection) == place]

    def artifact_place(self, artifact: Artifact) -> str:
        return f"artifacts/{artifact.collection}/{artifact.id.strip('=')}"

    def commit(self, artifact: Artifact) -> Artifact:
        """Like the real one: not before every file of it is there."""
        missing = [name for name, path in artifact.files.items() if not path.exists()]
        assert not missing, missing
        if artifact.state != "COMMITTED":
            versions = self._versions((artifact.entity, artifact.project, artifact.collection))
            artifact.version = sum(one.state == "COMMITTED" for one in versions)
            artifact.state = "COMMITTED"
            for other in versions:
                other.aliases = [alias for alias in other.aliases if alias != "latest" or other is artifact]
            artifact.aliases = list({*artifact.aliases, "latest"})
        return artifact

    def use_artifact(self, given: Tree) -> Artifact:
        artifact = self.artifacts[given["artifactID"]]
        run = self.make_run(given["entityName"], given["projectName"], given["runName"])
        if artifact not in run.used:
            run.used.append(artifact)
        return artifact

    def upsert_sweep(self, given: Tree) -> Sweep:
        if given.get("id"):
            sweep = next(one for one in self.sweeps.values() if one.id == given["id"])
        else:
            name = f"sweep{next(self._numbers):03d}"
            sweep = Sweep(name, given.get("entityName") or USER, given.get("projectName") or "uncategorized")
            self.sweeps[name] = sweep
        sweep.state = given.get("state") or sweep.state
        if given.get("config"):
            sweep.config = given["config"]
            sweep.todo = proposals(sweep.spec)
        return sweep

    def create_agent(self, given: Tree) -> str:
        agent = global_id("Agent", str(next(self._numbers)))
        self.agents[agent] = given["sweep"]
        self.sweeps[given["sweep"]].state = "RUNNING"
        return agent

    def heartbeat(self, given: Tree) -> list[Tree]:
        """What the agent is to do next: nothing while it is busy, another run, or go home."""
        sweep = self.sweeps[self.agents[given["id"]]]
        if json.loads(given.get("runState") or "{}"):
            return []
        arguments = next(sweep.todo, None) if sweep.state == "RUNNING" else None
        if arguments is None:
            sweep.state = "FINISHED"
            return [{"type": "exit"}]
        name = f"{sweep.name}run{len(sweep.started)}"
        sweep.started[name], sweep.given_to[name] = arguments, given["id"]
        told = {key: {"value": value} for key, value in arguments.items()}
        return [{"type": "run", "run_id": name, "program": sweep.spec["program"], "args": told}]

    def upsert_workspace(self, given: Tree) -> tuple[Tree, bool]:
        key = given.get("id") or global_id("View", str(next(self._numbers)))
        fresh = key not in self.workspaces
        workspace = self.workspaces.setdefault(key, {"id": key, "createdAt": now()})
        workspace.update({name: value for name, value in given.items() if value is not None}, updatedAt=now())
        return workspace, fresh


def proposals(spec: Tree) -> Iterator[Tree]:
    """Every combination of a grid; of any other method, the first values again and again: nothing is optimised here."""
    values = {key: _values(choice) for key, choice in spec["parameters"].items()}
    grid = (dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values()))
    return grid if spec["method"] == "grid" else itertools.cycle(grid)


def _values(choice: Tree) -> list[Any]:
    return choice.get("values") or [choice.get("value", choice.get("min"))]
