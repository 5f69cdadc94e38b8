"""The server's state as the client's queries see it: nested dicts, with a function where a field takes arguments."""
# ruff: noqa: N803 (the arguments are called what the client calls them)

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from tests.wandb_server.state import USER, Artifact, Run, State, Sweep, Tree, global_id, now

USER_VIEW: Tree = {
    "__typename": "User",
    "id": global_id("User", USER),
    "entity": USER,
    "username": USER,
    "name": USER,
    "admin": False,
    "email": f"{USER}@localhost",
    "flags": "{}",
    "teams": {"edges": [{"node": {"name": USER}}]},
    "apiKeys": {"edges": []},
    "organizations": [],
}


def connection(nodes: Iterable[Any], first: int | None = None, after: str | None = None, **_: Any) -> Tree:
    """A page of nodes; the cursor is a node's number."""
    everything = list(nodes)
    start = int(after) + 1 if after else 0
    end = min(len(everything), start + (first or len(everything)))
    edges = [{"node": everything[i], "cursor": str(i), "version": _version(everything[i])} for i in range(start, end)]
    page = {"hasNextPage": end < len(everything), "endCursor": str(end - 1) if edges else None}
    return {"edges": edges, "totalCount": len(everything), "pageInfo": {"__typename": "PageInfo", **page}}


def _version(node: Tree) -> str | None:
    return f"v{node['versionIndex']}" if "versionIndex" in node else None


class Views:
    def __init__(self, state: State) -> None:
        self.state = state

    def roots(self) -> Tree:
        """Every query and mutation that the server knows."""
        return self._queries() | self._run_mutations() | self._sweep_mutations()

    def _queries(self) -> Tree:
        return {
            "serverInfo": {"cliVersionInfo": {"max_cli_version": "9.9.9"}, "features": []},
            "viewer": USER_VIEW,
            "entity": lambda name=None, **_: self.entity(name or USER),
            "project": lambda name=None, entityName=None, **_: self.project(entityName, name),
            "model": lambda name=None, entityName=None, **_: self.project(entityName, name),
            "artifact": lambda id, **_: self.artifact(self.state.artifacts.get(id)),
            "view": lambda id=None, **_: self.workspace(self.state.workspaces.get(id)),
        }

    def _run_mutations(self) -> Tree:
        state = self.state

        def upsert_run(input: Tree) -> Tree:
            run, fresh = state.upsert_run(input)
            return {"bucket": self.run(run), "inserted": fresh}

        def announce_files(input: Tree) -> Tree:
            run, files = state.announce_files(input)
            return {"runID": self.run_id(run), "uploadHeaders": [], "files": files}

        return {
            "upsertBucket": upsert_run,
            "createRunFiles": announce_files,
            "upsertModel": lambda input: {"model": self.project(input.get("entityName"), input["name"])},
            "createArtifact": lambda input: {"artifact": self.artifact(state.create_artifact(input))},
            "createArtifactManifest": lambda input: self._manifest(state.artifacts[input["artifactID"]]),
            "createArtifactFiles": lambda input: {"files": connection(map(self._upload, input["artifactFiles"]))},
            "commitArtifact": lambda input: {
                "artifact": self.artifact(state.commit(state.artifacts[input["artifactID"]]))
            },
            "useArtifact": lambda input: {"artifact": self.artifact(state.use_artifact(input))},
        }

    def _sweep_mutations(self) -> Tree:
        state = self.state

        def heartbeat(input: Tree) -> Tree:
            return {"agent": {"id": input["id"]}, "commands": json.dumps(state.heartbeat(input))}

        def upsert_workspace(input: Tree) -> Tree:
            workspace, fresh = state.upsert_workspace(input)
            return {"view": self.workspace(workspace), "inserted": fresh}

        return {
            "upsertSweep": lambda input: {
                "sweep": self.sweep(state.upsert_sweep(input)),
                "configValidationWarnings": [],
            },
            "createAgent": lambda input: {"agent": {"id": state.create_agent(input)}},
            "agentHeartbeat": heartbeat,
            "upsertView": upsert_workspace,
        }

    def entity(self, entity: str) -> Tree:
        def project(name: str, **_: Any) -> Tree:
            return self.project(entity, name)

        return {"__typename": "Entity", "id": global_id("Entity", entity), "name": entity, "project": project}

    def project(self, entity: str | None, project: str) -> Tree:
        state, place = self.state, (entity or USER, project)
        runs = [run for run in state.runs.values() if (run.entity, run.project) == place]
        saved = [one for one in state.workspaces.values() if one.get("projectName") == project]

        def run(name: str, **_: Any) -> Tree | None:
            return self.run(state.maybe_run(*place, name))

        def workspaces(viewName: str | None = None, **_: Any) -> Tree:
            return connection(self.workspace(one) for one in saved if viewName in (None, one.get("name")))

        return {
            **self._project_named(*place),
            "readOnly": False,
            "user": USER_VIEW,
            "run": run,
            "bucket": run,
            "runs": lambda first=None, after=None, **_: connection(map(self.run, runs), first, after),
            "runCount": len(runs),
            "sweep": lambda sweepName, **_: self.sweep(state.sweeps.get(sweepName)),
            "artifact": lambda name, **_: self.artifact(state.committed(*place, name)),
            "artifactCollectionMembership": lambda name, **_: self.membership(state.committed(*place, name)),
            "allViews": workspaces,
        }

    def _project_named(self, entity: str, name: str) -> Tree:
        return {
            "__typename": "Project",
            "id": global_id("Project", entity, name),
            "internalId": global_id("ProjectInternalId", "1"),
            "name": name,
            "entityName": entity,
            "entity": {"__typename": "Entity", "id": global_id("Entity", entity), "name": entity},
        }

    def run_id(self, run: Run) -> str:
        return global_id("Run", run.name, run.project, run.entity)

    def run(self, run: Run | None) -> Tree | None:
        if run is None:
            return None
        last = run.history[-1]["_step"] if run.lines else -1

        def history(minStep: int = 0, maxStep: int | None = None, **_: Any) -> list[str]:
            end = last + 1 if maxStep is None else maxStep
            return [line for line, row in zip(run.lines, run.history, strict=True) if minStep <= row["_step"] < end]

        return {
            "__typename": "Run",
            "id": self.run_id(run),
            "name": run.name,
            "displayName": run.display_name,
            "projectId": "1",
            "project": self._project_named(run.entity, run.project),
            "user": USER_VIEW,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "tags": run.tags,
            "group": run.group,
            "jobType": run.job_type,
            "state": run.state,
            "createdAt": run.created,
            "heartbeatAt": now(),
            "sweepName": run.sweep,
            "readOnly": False,
            "historyKeys": {"lastStep": last, "keys": {}, "sets": []},
            "systemMetrics": "{}",
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps(run.lines[-1:]),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
            "history": history,
            "parquetHistory": {"parquetUrls": []},
            "sampledHistory": lambda **_: [run.history],
            "files": lambda **page: connection(self._files(run), page.get("first"), page.get("after")),
            "outputArtifacts": lambda **page: connection(
                [self.artifact(one) for one in run.logged if one.state == "COMMITTED"], page.get("first")
            ),
            "inputArtifacts": lambda **page: connection(map(self.artifact, run.used), page.get("first")),
        }

    def _files(self, run: Run) -> list[Tree]:
        found = []
        for name, path in run.files.items():
            if path is not None:
                data = path.read_bytes()
                url = self.state.upload_url("runs", run.entity, run.project, run.name, name)
                about = {"id": global_id("File", name), "name": name, "url": url, "directUrl": url, "state": "UPLOADED"}
                digest = base64.b64encode(hashlib.md5(data).digest()).decode()
                found.append(about | {"sizeBytes": str(len(data)), "md5": digest, "updatedAt": now()})
        return found

    def _manifest(self, artifact: Artifact) -> Tree:
        place = f"{self.state.artifact_place(artifact)}/wandb_manifest.json"
        artifact.manifest = self.state.folder / place
        url = self.state.upload_url(place)
        file = {"id": global_id("File", place), "uploadUrl": url, "directUrl": url, "uploadHeaders": []}
        return {"artifactManifest": {"id": global_id("Manifest", artifact.id), "file": file}}

    def _upload(self, given: Tree) -> Tree:
        artifact = self.state.artifacts[given["artifactID"]]
        place = f"{self.state.artifact_place(artifact)}/files/{given['name']}"
        artifact.files[given["name"]] = self.state.folder / place
        url = self.state.upload_url(place)
        return {"name": given["name"], "storagePath": place, "uploadUrl": url, "uploadHeaders": []} | {
            "uploadMultipartUrls": None,
            "artifact": {"id": artifact.id},
        }

    def artifact(self, artifact: Artifact | None) -> Tree | None:
        if artifact is None:
            return None
        manifest = self.state.upload_url(f"{self.state.artifact_place(artifact)}/wandb_manifest.json")
        return {
            "__typename": "Artifact",
            "id": artifact.id,
            "state": artifact.state,
            "digest": artifact.digest,
            "metadata": artifact.metadata,
            "size": sum(path.stat().st_size for path in artifact.files.values() if path.exists()),
            "fileCount": len(artifact.files),
            "storageBytes": 0,
            "createdAt": artifact.created,
            "updatedAt": artifact.created,
            "commitHash": hashlib.md5(artifact.id.encode()).hexdigest(),
            "versionIndex": artifact.version,
            "artifactType": {"id": global_id("ArtifactType", artifact.type), "name": artifact.type},
            "artifactSequence": self._collection(artifact),
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "isLinkArtifact": False,
            "tags": [],
            "aliases": self._aliases(artifact),
            "artifactMemberships": lambda **_: connection([self.membership(artifact)]),
            "currentManifest": {"id": global_id("Manifest", artifact.id), "file": {"directUrl": manifest, "size": 0}},
        }

    def _collection(self, artifact: Artifact) -> Tree:
        return {
            "__typename": "ArtifactSequence",
            "__implements": ("ArtifactCollection", "ArtifactCollectionInterface"),
            "id": global_id("Sequence", artifact.collection),
            "name": artifact.collection,
            "state": "READY",
            "project": self._project_named(artifact.entity, artifact.project),
            "latestArtifact": None,
        }

    def _aliases(self, artifact: Artifact) -> list[Tree]:
        return [
            {"__typename": "ArtifactAlias", "id": global_id("Alias", alias), "alias": alias}
            | {"artifactCollectionName": artifact.collection, "artifactCollection": self._collection(artifact)}
            for alias in (*artifact.aliases, f"v{artifact.version}")
        ]

    def membership(self, artifact: Artifact | None) -> Tree | None:
        if artifact is None:
            return None
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": global_id("Membership", artifact.id),
            "versionIndex": artifact.version,
            "createdAt": artifact.created,
            "artifactCollection": self._collection(artifact),
            "aliases": self._aliases(artifact),
            "artifact": self.artifact(artifact),
        }

    def sweep(self, sweep: Sweep | None) -> Tree | None:
        if sweep is None:
            return None
        runs = [run for run in self.state.runs.values() if run.sweep == sweep.name]
        return {
            "__typename": "Sweep",
            "id": sweep.id,
            "name": sweep.name,
            "displayName": sweep.name,
            "state": sweep.state,
            "config": sweep.config,
            "createdAt": now(),
            "project": self._project_named(sweep.entity, sweep.project),
            "user": USER_VIEW,
            "runs": lambda **page: connection(map(self.run, runs), page.get("first"), page.get("after")),
        }

    def workspace(self, workspace: Tree | None) -> Tree | None:
        if workspace is None:
            return None
        project = self._project_named(workspace.get("entityName", USER), workspace["projectName"])
        return {**workspace, "__typename": "View", "project": project, "user": USER_VIEW, "locked": False}
