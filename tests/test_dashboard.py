"""The workspace shows what the main job reports, and W&B gives it back as it was saved."""

import importlib.util
import json
from typing import Any

import pytest

from rcm import dashboard
from rcm.results import Curve, Heatmap, Table, Transcripts
from rcm.storage import flat
from rcm.tracking.views import word
from tests.planted import by_name, method, planted_judge, planted_model, planted_prompts
from tests.wandb_server import WandbServer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"
)


def panels(given: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = given["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_every_panel_shows_something_that_map_reports() -> None:
    settings = method("map", max_new_tokens=4, strengths=[1.0])
    found = by_name(settings.run(planted_model(), planted_prompts(), planted_judge(), seed=0)).values()
    figures = {key for result in found for key in flat(result)}
    maps = {result.name for result in found if isinstance(result, Heatmap)}
    tables = {result.name.replace("/", "_") for result in found if isinstance(result, Table | Transcripts)}
    lines = {
        (result.x_label.partition(",")[0], f"{result.name}/{word(line.label)}")
        for result in found
        if isinstance(result, Curve)
        for line in result.lines
    }
    assert {*dashboard.HEADLINES, *(name for some in dashboard.FIGURES.values() for name in some)} <= figures
    assert {name for some in dashboard.MAPS.values() for name in some} <= maps
    assert {(axis, name) for axis, some in dashboard.CURVES.values() for name in some} <= lines
    assert set(dashboard.TABLES) <= tables


def test_the_workspace_is_saved_and_read_back(
    wandb_server: WandbServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
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
    (printed,) = [record.message for record in caplog.records if record.name == "rcm.dashboard"]
    bars = panels(json.loads(printed))["What a good analysis shows"]
    assert [panel["config"]["metrics"] for panel in bars] == [[name] for name in dashboard.HEADLINES]
    assert wandb_server.requests == 0
