"""W&B's own variables: an override beats them, they beat the file, and the log says which of them held."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from rcm.errors import InputError
from rcm.packaged import CONF
from rcm.record.run import Run
from rcm.running.chosen import chosen_settings
from rcm.tracking import environment
from rcm.tracking.tracker import Wandb
from tests import stubs
from tests.tracking.test_tracking import a_run, messages_of, recorded, track


@pytest.fixture
def run(tmp_path: Path, wandb_home: Path) -> Run:
    return a_run(tmp_path / "runs" / "0a1b2c3d")


def tracker(*overrides: str) -> Wandb:
    """As `launch.py` would make it of the command line and the environment."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = chosen_settings(compose("config", overrides=["tracker=wandb", *overrides])).tracker
    assert isinstance(made, Wandb)
    return made


@pytest.mark.parametrize("wandb_mode", ["offline", "online", "disabled", "dryrun", "run"])
def test_overrides_beat_the_environment_which_beats_the_file(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, wandb_mode: str
) -> None:
    def chosen(*overrides: str) -> tuple[str | None, ...]:
        made = tracker(*overrides)
        return made.mode, made.project, made.entity

    assert chosen() == ("offline", "rcm", None)
    for name, value in {"MODE": wandb_mode, "PROJECT": "ours", "ENTITY": "team"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    mode = {"dryrun": "offline", "run": "online"}.get(wandb_mode, wandb_mode)
    assert chosen() == (mode, "ours", "team")
    overrides = ("tracker.mode=offline", "tracker.project=mine", "tracker.entity=null")
    assert chosen(*overrides) == ("offline", "mine", None)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WANDB_MODE", "shared", "tracker.mode=shared: choose offline, online or disabled, here or by WANDB_MODE"),
        ("WANDB_MODE", "", "tracker.mode=: choose offline, online or disabled"),
        ("WANDB_PROJECT", "team/refusal", "tracker.project=team/refusal: W&B takes no name of a project"),
    ],
)
def test_what_rcm_cannot_do_is_told(
    wandb_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name) as caught:
        tracker()
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SILENT", "maybe"), ("BASE_URL", "foo"), ("RESUME", "perhaps"), ("TAGS", "t" * 65), ("MODE", "sometimes")],
)
def test_what_wandb_does_not_take_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, sentence: Callable[[Callable[[], object]], str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"WANDB_{name}", value)
    told = sentence(lambda: track(Wandb(project="rcm", entity=None, mode="offline", wait=5), run, []))
    assert told.startswith(f"WANDB_{name}={value}: W&B does not take this (")


def test_disabled_records_nothing_and_says_by_whose_word(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with caplog.at_level("INFO"):
        track(tracker(), run, stubs.one_of_each())
    assert f"W&B is off (WANDB_MODE=disabled); all that the run finds is in {run.directory}" in caplog.text
    assert (run.directory / "metrics.json").exists()
    assert not (run.directory / "wandb").exists()


def test_what_is_followed_is_in_the_record(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"PROJECT": "ours", "ENTITY": "team", "NAME": "mine", "RUN_GROUP": "friday", "NOTES": "for the paper"}
    for name, value in (given | {"TAGS": "first, second"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    with caplog.at_level("INFO"):
        track(tracker(), run, [])
    (about,) = messages_of(recorded(run), "run")
    assert (about.project, about.entity, about.display_name) == ("ours", "team", "mine")
    assert (about.run_group, about.notes, about.job_type) == ("friday", "for the paper", "chat")
    assert {"first", "second", "behaviour", "pairs"} <= set(about.tags)
    held = "WANDB_PROJECT=ours; WANDB_ENTITY=team; WANDB_NAME=mine; WANDB_RUN_GROUP=friday; WANDB_TAGS=first, second"
    assert f"for project ours ({held}; WANDB_NOTES=for the paper): python -m rcm.tracking sync" in caplog.text
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


def test_what_gives_way_or_is_not_followed_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    given = {"MODE": "online", "PROJECT": "ours", "ENTITY": "team", "DIR": str(tmp_path / "elsewhere")}
    for name, value in (given | {"RUN_ID": "myown", "RESUME": "must", "JOB_TYPE": "tune"}).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    track(tracker("tracker.mode=offline", "tracker.project=mine", "tracker.entity=null"), run, [])
    found = recorded(run)
    assert (found.id, found.project, found.entity) == (run.id, "mine", "")
    assert messages_of(found, "run")[0].job_type == "chat"
    assert not (tmp_path / "elsewhere").exists()
    told = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert [one.partition(" ")[0].partition("=")[0] for one in told] == [
        *("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"),
        *environment.NOT_FOLLOWED,
    ]
    assert told[:3] == [
        "WANDB_MODE=online gives way to tracker.mode=offline",
        "WANDB_PROJECT=ours gives way to tracker.project=mine",
        "WANDB_ENTITY=team gives way to tracker.entity=null",
    ]


def test_of_what_a_sweep_agent_sets_nothing_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    given = {"SWEEP_ID": "sweep1", "RUN_ID": "chosenbyagent", "PROJECT": "ofthesweep", "DIR": str(tmp_path)}
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    track(tracker("tracker.project=mine"), run, [])
    assert (recorded(run).id, recorded(run).project) == ("chosenbyagent", "ofthesweep")
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


def test_how_to_look_without_an_account_is_said(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With paths as one would type them."""
    monkeypatch.chdir(run.directory.parents[1])
    with caplog.at_level("INFO"):
        track(tracker(), run, [])
    assert (
        f"W&B records offline, for project rcm: python -m rcm.tracking sync runs/{run.id} sends it; to look without an "
        f"account: python -m rcm.report runs, or wandb leet runs/{run.id}/wandb"
    ) in caplog.text
