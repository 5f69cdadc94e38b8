"""The saved W&B workspace "base vs tuned": python -m rcm.tracking.workspace --entity E --project P [--print]

Sections follow the main job: what a good analysis shows, then direction, patching and steering, each with its curves,
maps and figures; then transcripts, and what the settings of runs differ in. Runs are grouped by comparison and by
stage, so that base and tuned stand side by side. Needs `pip install 'rcm[dashboard]'`.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rcm.errors import InputError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

log = logging.getLogger("rcm.tracking.workspace")

NAME = "base vs tuned"
HEADLINES = (
    "behaviour/refusal_rate_harmful",
    "behaviour/refusal_rate_harmless",
    "direction/separation",
    "direction/probe_accuracy",
    "steering/force_rate",
    "steering/suppress_rate",
)
FIGURES = {
    "direction": ("direction/layer", "direction/position", "direction/auroc", "direction/kl"),
    "patching": ("patching/gap", "patching/critical_heads", "patching/critical_heads_necessity"),
    "steering": ("steering/strength", "steering/budget_strength_force_add", "steering/suppress_rate_add"),
}
# Lines over a common axis, as `rcm.tracking.views` logs them.
CURVES = {
    "direction": ("layer", ("direction/by_layer/probe_accuracy", "direction/by_layer/AUROC")),
    "patching": ("layer", ("patching/residual/necessity", "patching/residual/sufficiency")),
    "steering": ("strength", ("steering/dose_response/refusal_direction",)),
}
MAPS = {
    "direction": ("direction/map_bypass", "direction/map_induce", "direction/map_kl", "direction/map_separation"),
    "patching": (
        "patching/heads_necessity",
        "patching/heads_sufficiency",
        "patching/layers_necessity",
        "patching/layers_sufficiency",
        "patching/knock_out",
    ),
}
TABLES = ("behaviour_transcripts", "steering_transcripts", "patching_heads", "map_summary")


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace, or print it; give the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        made = workspace(given.entity, given.project)
        log.info("%s", json.dumps(spec(made), indent=1) if given.print else saved(made))
    except InputError as error:
        log.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m rcm.tracking.workspace", description="Make the W&B workspace 'base vs tuned'."
    )
    parser.add_argument("--entity", required=True, help="the team or user whose project it is")
    parser.add_argument("--project", required=True, help="the project that the runs are in, such as rcm")
    parser.add_argument("--print", action="store_true", help="show what would be saved; asks no server")
    return parser


def workspace(entity: str, project: str) -> "Workspace":
    """The workspace; nothing is asked of a server."""
    try:
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
    except ImportError as error:
        raise InputError("wandb-workspaces is not installed; pip install 'rcm[dashboard]' installs it.") from error
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        auto_generate_panels=False,
        sections=[_headlines(), *map(_step, CURVES), _transcripts(), _differences()],
        settings=ws.WorkspaceSettings(x_axis="layer", smoothing_type="none"),
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric("Group"), expr.Metric("JobType")]),
    )


def spec(made: "Workspace") -> dict[str, Any]:
    """The workspace as W&B keeps it."""
    return made._to_model().model_dump(mode="json", by_alias=True)  # the package has no public way to see it


def saved(made: "Workspace") -> str:
    """Save it; give its address."""
    from rcm.tracking.arrival import connection
    from rcm.tracking.client import without_reports

    without_reports()
    connection()  # else a missing key or server is asked for, or waited for
    return made.save().url


def _headlines() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    bars = [wr.BarPlot(title=name, metrics=[name], groupby="job_type", orientation="v") for name in HEADLINES]
    return ws.Section(name="What a good analysis shows", is_open=True, panels=bars)


def _step(step: str) -> "Section":
    """Curves, maps side by side, and figures, of one step of the main job."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    axis, lines = CURVES[step]
    curves = [wr.LinePlot(title=name, x=axis, y=[name], groupby="job_type") for name in lines]
    maps = [wr.MediaBrowser(title=name, media_keys=[name], num_columns=2) for name in MAPS.get(step, ())]
    bars = [wr.BarPlot(title=name, metrics=[name], groupby="job_type", orientation="v") for name in FIGURES[step]]
    return ws.Section(name=step.capitalize(), is_open=True, panels=[*curves, *maps, *bars])


def _transcripts() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES]
    return ws.Section(name="Transcripts and tables", is_open=True, panels=tables)


def _differences() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    return ws.Section(name="What the runs differ in", is_open=True, panels=[wr.RunComparer(diff_only="split")])


if __name__ == "__main__":
    sys.exit(main())
