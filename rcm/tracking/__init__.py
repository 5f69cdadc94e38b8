"""Who watches a run besides its directory: nobody, or Weights & Biases.

    tracker      opens a run and takes its results; W&B's client only ever records offline, into the run directory
    views        W&B's view of each kind of result, and the tables of what the figures mean
    keys         the names under which views log
    figures      heatmaps, curves, clouds of points and circuits, in plotly
    lineage      artifacts, and those of earlier runs that a run reads
    environment  W&B's own variables: which of them hold, and which give way
    client       the client's settings and the commands that publish
    wandb_file   what was recorded, read back from the client's own file
    arrival      what of it the server has: asked from the server, never from an exit code
    publish      sends what it has not: beside a run, at its end, and by `python -m rcm.tracking sync runs`
    workspace    a saved workspace with a panel for all that finished runs reported

So a server that is away, silent, full or dying costs a run nothing: what it did not take lies on disk, and is sent
later. The client's own online mode waits for such a server, and loses the tables and artifacts that it does not take.
Import the modules; this one imports nothing, because the process that publishes has no need of PyTorch.
"""
