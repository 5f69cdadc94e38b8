"""The workspace shows what finished runs reported, of whatever method, and W&B gives it back as it was saved."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rcm.record.results import Curve, Diagram, Heatmap, Line, Outcome, Result, Scalar, Table, Transcripts
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.tracking import keys
from rcm.tracking import workspace as dashboard
from rcm.tracking.workspace import finished_runs, workspace
from tests import stubs
from tests.planted import planted_map
from tests.tracking.test_publishing import ONLINE, has_everything
from tests.tracking.test_tracking import OFFLINE, a_run, recorded, track
from tests.wandb_server import WandbServer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"
)

# Of what the main job reports of a model that refuses, what somebody who looks at the workspace asks for first.
WITH_TARGET = ("direction/separation", "direction/probe_accuracy", "steering/force_rate", "steering/suppress_rate")
HEADLINES = (*WITH_TARGET, "behaviour/refusal_rate_harmful", "behaviour/refusal_rate_harmless")
FIGURES = (
    *("direction/layer", "direction/position", "direction/auroc", "direction/kl"),
    *("patching/gap", "patching/critical_heads", "patching/critical_heads_necessity"),
    *("steering/strength", "steering/budget_strength_force_add", "steering/suppress_rate_add"),
)
LINES = {
    "direction/by_layer/probe_accuracy": "layer",
    "direction/by_layer/AUROC": "layer",
    "patching/residual/necessity": "layer",
    "patching/residual/sufficiency": "layer",
    "steering/dose_response/refusal_direction": "strength",
}
MAPS = (
    *("direction/map_bypass", "direction/map_induce", "direction/map_kl", "direction/map_separation"),
    *("patching/heads_necessity", "patching/heads_sufficiency"),
    *("patching/layers_necessity", "patching/layers_sufficiency", "patching/knock_out"),
)
TABLES = (
    "conclusions",
    "figures",
    "behaviour_transcripts",
    "steering_transcripts",
    "patching_heads",
    "summary_targets",
)


def panels(given: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = given["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def kept(directory: Path, results: Sequence[Result]) -> Run:
    """A finished run on disk."""
    run = a_run(directory)
    with Store(run) as store:
        for result in results:
            store.save(result)
    return run


def shown(folder: Path, *kinds: str) -> list[Any]:
    """Every panel of these kinds, in order."""
    made = workspace(finished_runs(folder), "E", "P")
    return [panel for section in made.sections for panel in section.panels if type(panel).__name__ in kinds]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one finished run of the stub method."""
    kept(tmp_path / "runs" / "0a1b2c3d", stubs.one_of_each())
    return tmp_path / "runs"


@pytest.mark.slow
def test_a_whole_map_run_arrives_and_every_panel_shows_some_of_it(wandb_server: WandbServer, tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "0a1b2c3d")
    track(ONLINE, run, planted_map())
    arrived = wandb_server.run("rcm", run.id)
    assert has_everything(arrived, recorded(run))
    assert {one.type for one in arrived.logged} == {"run_table", "tensors"}

    folder = run.directory.parent
    (headlines, *_) = workspace(finished_runs(folder), "E", "P").sections
    bars = [metric for panel in shown(folder, "BarPlot") for metric in panel.metrics]
    assert {*HEADLINES} <= {metric for panel in headlines.panels for metric in panel.metrics}
    assert [metric for panel in headlines.panels[: len(WITH_TARGET)] for metric in panel.metrics] == [*WITH_TARGET]
    assert {*FIGURES} <= {*bars}
    assert len(bars) == len({*bars})
    axes = {line: panel.x for panel in shown(folder, "LinePlot") for line in panel.y}
    assert LINES.items() <= axes.items()
    maps = [key for panel in shown(folder, "MediaBrowser") for key in panel.media_keys]
    assert {*MAPS} <= {*maps}
    tables = [panel.table_name for panel in shown(folder, "WeavePanelSummaryTable")]
    assert {*TABLES} <= {*tables}

    kinds = {
        key: value["_type"] for key, value in arrived.summary.items() if isinstance(value, dict) and "_type" in value
    }
    figures = {key for key, value in arrived.summary.items() if isinstance(value, int | float)}
    assert {*bars} <= figures
    assert {kinds.get(name) for name in maps} == {"plotly-file"}
    assert {kinds.get(name) for name in tables} == {"table-file"}
    for name, axis in axes.items():
        assert len([row for row in arrived.history if {axis, name} <= row.keys()]) >= 1, name


def test_what_any_method_reports_has_its_panels(tmp_path: Path) -> None:
    """Nothing is known of the method `probe`: titles and hints are its own."""
    lines = (Line("in the model", (0.5, 1.0)), Line("not measured", (float("nan"),) * 2))
    first: list[Result] = [
        Scalar("probe/layer", 3),
        Scalar("probe/accuracy", 0.9, label="accuracy", hint="on replies", target=0.8),
        Scalar("probe/refused", 0.5, label="replies refused", unscored=1),
        Scalar("probe/unknown", float("nan"), label="never measured"),
        Scalar("probe/at_end", 1.0, label="at the end", row="strength"),
        Scalar("probe/at_start", 2.0, label="at the start", row="strength"),
        Curve(
            "probe/by_layer", (0.0, 1.0), lines, "layer, from 0", "accuracy", "accuracy by layer", "higher is *read*"
        ),
        Heatmap("probe/grid", np.zeros((1, 1)), ["0"], ["0"], "layer", "head", label="which heads"),
        Diagram("probe/circuit", (), (), 1, "effect", "weight", label="its circuit"),
        Outcome("probe/outcome", "found", "It is there."),
        Table("probe/rows", ("a",), ((1,),)),
        Transcripts("probe/replies", ({"prompt": "a", "completion": "b"},), hint="Of the model as it is."),
    ]
    later = Curve(
        "probe/by_layer", (0.0,), (Line("shuffled", (0.5,)),), "layer", "accuracy", "accuracy, layer by layer"
    )
    kept(tmp_path / "0a1b2c3d", first)
    kept(tmp_path / "11112222", [later, Scalar("other/only", 1.0)])
    made = workspace(finished_runs(tmp_path), "E", "P")
    assert [section.name for section in made.sections] == [
        "What a good analysis shows",
        "Probe",
        "Other",
        "Transcripts and tables",
        "What the runs differ in",
    ]
    bars = [(panel.title, list(panel.metrics)) for panel in shown(tmp_path, "BarPlot")]
    assert bars == [
        ("accuracy", ["probe/accuracy"]),
        ("replies refused", ["probe/refused"]),
        ("probe/layer", ["probe/layer"]),
        ("strength", ["probe/at_end", "probe/at_start"]),
        ("other/only", ["other/only"]),
    ]
    (curve,) = shown(tmp_path, "LinePlot")
    assert (curve.title, curve.x, curve.title_x, curve.title_y) == (later.label, "layer", "layer", "accuracy")
    assert list(curve.y) == ["probe/by_layer/in_the_model", "probe/by_layer/shuffled"]
    grids = [(panel.title, list(panel.media_keys)) for panel in shown(tmp_path, "MediaBrowser")]
    assert grids == [("which heads", ["probe/grid"]), ("its circuit", ["probe/circuit"])]
    tables = [panel.table_name for panel in shown(tmp_path, "WeavePanelSummaryTable")]
    assert tables == ["conclusions", "figures", "probe_replies", "probe_rows"]
    assert [panel.markdown for panel in shown(tmp_path, "MarkdownPanel")] == [
        "- **accuracy** (`probe/accuracy`): on replies",
        "- **probe/replies** (`probe/replies`): Of the model as it is.",
    ]
    assert {panel.groupby for panel in shown(tmp_path, "BarPlot", "LinePlot")} == {"job_type"}


def test_pictures_come_first_where_there_are_some(tmp_path: Path, wandb_home: Path) -> None:
    def picture(directory: Path) -> Path:
        plt.imsave(directory / "picture.png", np.zeros((2, 3, 3)))
        return directory / "picture.png"

    kept(tmp_path / "runs" / "11112222", stubs.one_of_each())
    assert "At a glance" not in [one.name for one in workspace(finished_runs(tmp_path / "runs"), "E", "P").sections]
    run = a_run(tmp_path / "runs" / "0a1b2c3d")
    with OFFLINE.open(run, picture), Store(run):
        pass
    recorded(run)
    first, *_ = workspace(finished_runs(tmp_path / "runs"), "E", "P").sections
    (panel,) = first.panels
    assert (first.name, list(panel.media_keys)) == ("At a glance", [keys.PICTURE])


def test_without_a_finished_run_it_says_so(tmp_path: Path, sentence: Callable[[Callable[[], object]], str]) -> None:
    with pytest.raises(RuntimeError), Store(a_run(tmp_path / "0a1b2c3d")):
        raise RuntimeError("out of memory")
    assert "no finished run in" in sentence(lambda: finished_runs(tmp_path))
    assert "There is no folder" in sentence(lambda: finished_runs(tmp_path / "elsewhere"))


def test_what_is_wrong_is_told_in_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert dashboard.main([str(tmp_path), "--entity", "E", "--project", "P"]) == 1
    assert "no finished run in" in caplog.text


def test_the_workspace_is_saved_and_read_back(
    wandb_server: WandbServer, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb_workspaces.workspaces as ws

    with caplog.at_level("INFO"):
        assert dashboard.main([str(runs), "--entity", "tester", "--project", "rcm"]) == 0
    (saved,) = wandb_server.workspaces.values()
    assert saved["displayName"] == "base vs tuned"
    sections = panels({"spec": json.loads(saved["spec"])})
    made = workspace(finished_runs(runs), "tester", "rcm")
    assert list(sections) == [section.name for section in made.sections]
    assert list(sections)[-3:] == ["Stub", "Transcripts and tables", "What the runs differ in"]
    (url,) = [word for word in caplog.text.split() if word.startswith(wandb_server.url)]
    again = ws.Workspace.from_url(url)
    assert [section.name for section in again.sections] == list(sections)
    assert [len(section.panels) for section in again.sections] == [len(some) for some in sections.values()]


def test_the_workspace_is_printed_without_a_server(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"stub/{name}" for name in ("first", "second")]
    kept(tmp_path / "runs" / "0a1b2c3d", [Scalar(name, 1.0, target=0.5) for name in names])
    with caplog.at_level("INFO"):
        assert dashboard.main([str(tmp_path / "runs"), "--entity", "E", "--project", "P", "--print"]) == 0
    (printed,) = [record.message for record in caplog.records if record.name == "rcm.tracking.workspace"]
    bars = panels(json.loads(printed))["What a good analysis shows"]
    assert [panel["config"]["metrics"] for panel in bars] == [[name] for name in names]
    assert wandb_server.requests == 0
