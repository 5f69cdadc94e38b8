"""A W&B server for tests: enough of one for the real client to publish, be asked, sweep and keep workspaces.

    with WandbServer(folder) as server:  # on 127.0.0.1, in threads of this process
        ...                              # WANDB_BASE_URL=server.url WANDB_API_KEY=KEY
        server.run("rcm", "0a1b2c3d").history

    graphql    as much of the query language as the client speaks
    state      what the server has: runs, artifacts, sweeps, workspaces
    views      how the client sees them
    http       requests, uploads and faults

Tests assert on its state. It shows that our path and the client's work, not what W&B's own server takes or draws.
`unknown` counts what the client asked for that is not here.
"""

from tests.wandb_server.http import KEY, Fault, WandbServer

__all__ = ["KEY", "Fault", "WandbServer"]
