"""The workspace shows what the main job reports, and W&B gives it back as it was saved."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rcm.tracking import workspace as dashboard
from tests.planted import planted_map
from tests.tracking.test_publishing import ONLINE, has_everything
from tests.tracking.test_tracking import a_run, recorded, track
from tests.wandb_server import WandbServer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"
)


def panels(given: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = given["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


@pytest.mark.slow
def test_a_whole_map_run_arrives_and_every_panel_shows_some_of_it(wandb_server: WandbServer, tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "0a1b2c3d")
    track(ONLINE, run, planted_map())
    arrived = wandb_server.run("rcm", run.id)
    assert has_everything(arrived, recorded(run))

    kinds = {
        key: value["_type"] for key, value in arrived.summary.items() if isinstance(value, dict) and "_type" in value
    }
    figures = {key for key, value in arrived.summary.items() if isinstance(value, int | float)}
    assert {*dashboard.HEADLINES, *(name for some in dashboard.FIGURES.values() for name in some)} <= figures
    assert {kinds.get(name) for some in dashboard.MAPS.values() for name in some} == {"plotly-file"}
    assert {kinds.get(name) for name in dashboard.TABLES} == {"table-file"}
    for axis, names in dashboard.CURVES.values():
        for name in names:
            assert len([row for row in arrived.history if {axis, name} <= row.keys()]) >= 1, name
    assert {one.type for one in arrived.logged} == {"run_table", "tensors"}


def test_the_workspace_is_saved_and_read_back(wandb_server: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    import wandb_workspaces.workspaces as ws

    with caplog.at_level("INFO"):
        assert dashboard.main(["--entity", "tester", "--project", "rcm"]) == 0
    (saved,) = wandb_server.workspaces.values()
    assert saved["displayName"] == "base vs tuned"
    sections = panels({"spec": json.loads(saved["spec"])})
    assert list(sections) == [
        "What a good analysis shows",
        "Direction",
        "Patching",
        "Steering",
        "Transcripts and tables",
        "What the runs differ in",
    ]
    (url,) = [word for word in caplog.text.split() if word.startswith(wandb_server.url)]
    again = ws.Workspace.from_url(url)
    assert [section.name for section in again.sections] == list(sections)
    assert [len(section.panels) for section in again.sections] == [len(some) for some in sections.values()]


def test_the_workspace_is_printed_without_a_server(wandb_server: WandbServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert dashboard.main(["--entity", "E", "--project", "P", "--print"]) == 0
    (printed,) = [record.message for record in caplog.records if record.name == "rcm.tracking.workspace"]
    bars = panels(json.loads(printed))["What a good analysis shows"]
    assert [panel["config"]["metrics"] for panel in bars] == [[name] for name in dashboard.HEADLINES]
    assert wandb_server.requests == 0
