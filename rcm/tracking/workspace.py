"""The saved W&B workspace "base vs tuned": python -m rcm.tracking.workspace runs --entity E --project P [--print]

It is made from what the finished runs in a folder reported, so that any method's results have their panels. First the
pictures of the runs, where they have some; then the headlines: figures with a target, then rates of verdicts. Then a
section for each method: how to read it, its curves, its maps, its other figures. Then transcripts and tables, and what
the settings of runs differ in. Runs are grouped by family and by stage, so that base and tuned stand side by side.
Needs `pip install 'rcm[dashboard]'`.
"""

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcm.errors import InputError
from rcm.record.results import Curve, Diagram, Heatmap, Outcome, Result, Scalar, Scatter, Table, Transcripts
from rcm.record.stored import StoredRun, stored_runs
from rcm.tracking import keys

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

log = logging.getLogger("rcm.tracking.workspace")

NAME = "base vs tuned"
STAGE = "job_type"  # which the tracker gives W&B for a run's stage
Reported = Mapping[str, Sequence[Result]]  # by name, what every run reported under it; the latest run's last


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the workspace, or print it; give the exit code."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        made = workspace(finished_runs(given.runs), given.entity, given.project)
        log.info("%s", json.dumps(spec(made), indent=1) if given.print else saved(made))
    except InputError as error:
        log.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m rcm.tracking.workspace", description="Make the W&B workspace 'base vs tuned' from finished runs."
    )
    parser.add_argument("runs", type=Path, help="the folder that holds the runs, such as runs/")
    parser.add_argument("--entity", required=True, help="the team or user whose project it is")
    parser.add_argument("--project", required=True, help="the project that the runs are in, such as rcm")
    parser.add_argument("--print", action="store_true", help="show what would be saved; asks no server")
    return parser


def finished_runs(folder: Path) -> list[StoredRun]:
    """Oldest first; raises InputError where there is none."""
    runs = [run for run in stored_runs(folder) if run.status == "finished"]
    if not runs:
        raise InputError(f"There is no finished run in {folder}; give the folder that holds the runs, such as runs/.")
    return runs


def workspace(runs: Sequence[StoredRun], entity: str, project: str) -> "Workspace":
    """A panel for all that the runs reported; nothing is asked of a server."""
    try:
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
    except ImportError as error:
        raise InputError("wandb-workspaces is not installed; pip install 'rcm[dashboard]' installs it.") from error
    everything = _reported(runs)
    headlines = _headlines(everything)
    sections = [
        _section("At a glance", _pictures(runs)),
        _section("What a good analysis shows", [_bars(keys.title(one), [one]) for one in headlines]),
        *(_of_method(name, part, headlines) for name, part in _by_method(runs, everything).items()),
        _tables(everything),
        _differences(),
    ]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        auto_generate_panels=False,
        sections=[section for section in sections if section.panels],
        settings=ws.WorkspaceSettings(smoothing_type="none"),
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


def _reported(runs: Iterable[StoredRun]) -> Reported:
    """Of results whose kind has changed, those of the latest kind."""
    found: dict[str, list[Result]] = {}
    for run in runs:
        for result in run.results():
            found.setdefault(result.name, []).append(result)
    return {name: [one for one in some if type(one) is type(some[-1])] for name, some in found.items()}


def _by_method(runs: Sequence[StoredRun], everything: Reported) -> dict[str, dict[str, Sequence[Result]]]:
    """What each method reported; methods in the order of the run that has the most of them."""
    found: dict[str, dict[str, Sequence[Result]]] = {name: {} for name in max((run.methods for run in runs), key=len)}
    for name, results in everything.items():
        found.setdefault(name.partition("/")[0], {})[name] = results
    return found


def _pictures(runs: Sequence[StoredRun]) -> list[Any]:
    """One panel with that of every run; none where W&B recorded none."""
    import wandb_workspaces.reports.v2 as wr

    recorded = (run.directory.glob(f"wandb/*/files/media/images/{keys.PICTURE}_*.png") for run in runs)
    if not any(True for found in recorded for _ in found):
        return []
    return [wr.MediaBrowser(title="Base beside tuned", media_keys=[keys.PICTURE], num_columns=2)]


def _headlines(everything: Reported) -> list[Scalar]:
    """Figures with a target, then rates of verdicts, which alone say how many replies were left unscored."""
    scalars = _measured(everything)
    with_target = [one for one in scalars if one.target is not None]
    return with_target + [one for one in scalars if one.target is None and one.unscored is not None]


def _measured(results: Reported) -> list[Scalar]:
    """The scalars that have a value in some run: W&B has no other."""
    return [
        latest
        for *_, latest in results.values()
        if isinstance(latest, Scalar)
        and any(isinstance(one, Scalar) and math.isfinite(one.value) for one in results[latest.name])
    ]


def _of_method(name: str, results: Reported, headlines: Sequence[Scalar]) -> "Section":
    """How to read it, curves, maps side by side, and the figures that are no headlines; those of one row together."""
    import wandb_workspaces.reports.v2 as wr

    latest = [some[-1] for some in results.values()]
    curves = [panel for some in results.values() for panel in _lines(some)]
    maps = [
        wr.MediaBrowser(title=keys.title(one), media_keys=[one.name], num_columns=2)
        for one in latest
        if isinstance(one, Heatmap | Scatter | Diagram)
    ]
    rows: dict[str, list[Scalar]] = {}
    for scalar in _measured(results):
        if scalar.name not in {one.name for one in headlines}:
            rows.setdefault(scalar.row or keys.title(scalar), []).append(scalar)
    bars = [_bars(title, scalars) for title, scalars in rows.items()]
    hints = _hints(one for one in latest if not isinstance(one, Table | Transcripts | Outcome))
    title = name.replace("_", " ").capitalize()
    return _section(title, [*(hints if curves or maps or bars else ()), *curves, *maps, *bars])


def _tables(everything: Reported) -> "Section":
    """What figures and conclusions mean, what models replied, and all that was laid out in rows."""
    import wandb_workspaces.reports.v2 as wr

    latest = [some[-1] for some in everything.values()]
    replies = [one for one in latest if isinstance(one, Transcripts)]
    tables = [one for one in latest if isinstance(one, Table)]
    meanings = {keys.CONCLUSIONS: Outcome, keys.FIGURES: Scalar}
    shown = [key for key, kind in meanings.items() if any(isinstance(one, kind) for one in latest)]
    shown += [*map(keys.table, replies), *map(keys.table, tables)]
    panels = [wr.WeavePanelSummaryTable(table_name=key) for key in shown]
    return _section("Transcripts and tables", [*_hints([*replies, *tables]), *panels])


def _differences() -> "Section":
    import wandb_workspaces.reports.v2 as wr

    return _section("What the runs differ in", [wr.RunComparer(diff_only="split")])


def _section(name: str, panels: Sequence[Any]) -> "Section":
    import wandb_workspaces.workspaces as ws

    return ws.Section(name=name, is_open=True, panels=list(panels))


def _bars(title: str, scalars: Sequence[Scalar]) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(title=title, metrics=[one.name for one in scalars], groupby=STAGE, orientation="v")


def _lines(results: Sequence[Result]) -> list[Any]:
    """One panel with every line that some run's curve has; none where they are no curves, or empty ones."""
    import wandb_workspaces.reports.v2 as wr

    curves = [one for one in results if isinstance(one, Curve)]
    lines = {
        name: line for curve in curves for name, line in keys.lines(curve).items() if any(map(math.isfinite, line.y))
    }
    if not lines:
        return []
    latest, labels = curves[-1], {"title_x": curves[-1].x_label, "title_y": curves[-1].y_label}
    return [wr.LinePlot(title=keys.title(latest), x=keys.axis(latest), y=list(lines), groupby=STAGE, **labels)]


def _hints(results: Iterable[Result]) -> list[Any]:
    """One panel that says how to read them; none where nothing is said."""
    import wandb_workspaces.reports.v2 as wr

    with_hint = ((one, getattr(one, "hint", "")) for one in results)  # tensors and adapters have none
    lines = [f"- **{keys.title(one)}** (`{one.name}`): {hint}" for one, hint in with_hint if hint]
    return [wr.MarkdownPanel(markdown="\n".join(lines))] if lines else []


if __name__ == "__main__":
    sys.exit(main())
