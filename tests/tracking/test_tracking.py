"""W&B, offline: every kind of result has a view, what was logged is in the run's record, and no server is asked."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import matplotlib.pyplot as plt
import numpy as np
import pytest
from pydantic import ValidationError

from rcm.errors import InputError
from rcm.record.identity import finished
from rcm.record.results import (
    Adapter,
    Curve,
    Diagram,
    Edge,
    Heatmap,
    Line,
    Node,
    Null,
    Outcome,
    Result,
    Scalar,
    Scatter,
    Table,
    Tensors,
    colour_limits,
)
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.tracking import client, keys, views, wandb_file
from rcm.tracking import figures as plots
from rcm.tracking.tracker import Disk, Wandb
from rcm.tracking.views import show
from rcm.tracking.wandb_file import OfflineRun, messages, offline_files, rewritten
from tests import stubs
from tests.conftest import ROOT
from tests.wandb_server import WandbServer

OFFLINE = Wandb(project="rcm", entity=None, mode="offline", wait=5)


@pytest.fixture
def run(tmp_path: Path, wandb_home: Path) -> Run:
    return a_run(tmp_path / "runs" / "0a1b2c3d")


def a_run(directory: Path, **settings: Any) -> Run:
    methods = {"behaviour": {"floor": 0.3}, "direction": {"max_kl": 0.1}}
    choices = {"model": "tiny-chat", "dataset": "pairs", "method": ",".join(methods), "judge": "prefix"}
    config = {"model": {"family": "tiny", "stage": "chat", "layers": 7, **settings}, "method": methods, "seed": 0}
    directory.mkdir(parents=True, exist_ok=True)
    provenance = {"git": None, "started": "2026-01-01T00:00:00+00:00"}
    return Run(directory.name, directory, choices | {"experiment": "demo"}, config, provenance, "aaaa0000", "bbbb0000")


def track(tracker: Wandb | Disk, run: Run, results: Sequence[Result]) -> None:
    with Store(run) as store, tracker.open(run) as track:
        for result in results:
            store.save(result)
            track(result)


def recorded(run: Run) -> OfflineRun:
    """The only `.wandb` file of the run, once it is whole."""
    (path,) = offline_files(run.directory)
    end = time.monotonic() + 5
    while (found := OfflineRun.of(path)).exit_code is None:  # finish() may return before it is written
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def history(found: OfflineRun) -> dict[str, Any]:
    return {key: value for row in found.rows for key, value in row.items()}


def test_every_kind_of_result_has_a_view(run: Run) -> None:
    assert set(get_args(Result)) <= set(show.registry)
    with pytest.raises(TypeError, match="register one"):
        show("no result", object(), run)  # type: ignore[arg-type]


def test_an_offline_run_holds_all_that_was_reported(run: Run) -> None:
    track(OFFLINE, run, stubs.one_of_each())
    found = recorded(run)
    assert (found.id, found.exit_code) == (run.id, 0)
    (about,) = messages_of(found, "run")
    name = "tiny-chat/pairs/behaviour,direction"
    assert (about.display_name, about.run_group, about.job_type) == (name, "tiny/demo", "chat")
    assert set(about.tags) == {"behaviour", "direction", "pairs", "prefix"}
    assert (found.config["model"], found.config["method"]) == ("tiny-chat", "behaviour,direction")
    assert (found.config["weights"], found.config["data"]) == ("aaaa0000", "bbbb0000")
    assert found.config["method.direction.max_kl"] == 0.1
    assert {"stub/verdict": "circuit_found", "stub/nothing_n": 0}.items() <= found.summary.items()
    logged = history(found)
    assert {"stub/map", "stub/curve", "stub_candidates"} <= logged.keys()
    assert file(found, logged["stub_map_values"])["data"][:2] == [["0", "a", 1.0, False], ["0", "b", None, False]]
    assert file(found, logged["stub_transcripts"])["data"] == [["Say “hi”", "hi\nthere", 1.5]]
    assert "adapter_config.json" in contents(found)["stub_adapter-0a1b2c3d"]
    assert contents(found)["stub_directions-0a1b2c3d"] == {
        "stub_directions.safetensors": str(run.directory / "stub_directions.safetensors")
    }


def test_every_setting_is_one_that_panels_and_sweeps_can_filter_by(run: Run) -> None:
    """No dicts, which they do not look into, no lists, nothing that has no value, and no names of classes."""
    method = {"probe": {"_target_": "rcm.methods.Probe", "depth": {"max": 0.5}, "positions": [-1, -2], "strict": False}}
    probe = replace(run, config={**run.config, "method": method, "judge": {"second": None}})
    track(OFFLINE, probe, [])
    found = recorded(run).config
    assert {key: value for key, value in found.items() if key.partition(".")[0] in (*run.config, "judge")} == {
        "model": "tiny-chat",
        "model.name": "tiny-chat",
        "model.family": "tiny",
        "model.stage": "chat",
        "model.layers": 7,
        "method": "behaviour,direction",
        "method.probe.depth.max": 0.5,
        "method.probe.positions": "[-1, -2]",
        "method.probe.strict": False,
        "judge": "prefix",
        "seed": 0,
    }
    assert found["provenance.started"] == "2026-01-01T00:00:00+00:00"
    assert {key for key, value in found.items() if isinstance(value, dict | list)} == {"_wandb", "inputs"}


def test_what_was_met_of_the_targets_is_in_the_summary(run: Run) -> None:
    track(OFFLINE, run, [FOUND, replace(FOUND, name="probe/missed", value=0.7), UNKNOWN, BARE])
    summary = recorded(run).summary
    met = {key: value for key, value in summary.items() if key.endswith("_met")}
    assert met == {
        "probe/accuracy_met": True,
        "probe/missed_met": False,
        "probe/strength_met": False,
        "summary/targets_met": 1,
    }
    assert summary["summary/targets_set"] == 3


def test_the_picture_of_a_finished_run_comes_first(run: Run) -> None:
    seen = []

    def picture(directory: Path) -> Path:
        seen.append(finished(directory))
        plt.imsave(directory / "picture.png", np.zeros((2, 3, 3)))
        return directory / "picture.png"

    with OFFLINE.open(run, picture) as track_one, Store(run) as store:
        for result in stubs.one_of_each():
            store.save(result)
            track_one(result)
    found = recorded(run)
    logged = history(found)[keys.PICTURE]
    assert seen == [True]
    assert (logged["_type"], logged["width"], logged["height"], logged["caption"]) == ("image-file", 3, 2, "tiny-chat")
    assert (found.path.parent / "files" / logged["path"]).read_bytes() == (run.directory / "picture.png").read_bytes()
    methods = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))
    assert all(f"{method}/" > keys.PICTURE for method in methods)


@pytest.mark.parametrize("fails", [True, False])
def test_without_a_picture_there_is_none(run: Run, fails: bool) -> None:
    """Of a run that fails none is asked for."""

    def picture(directory: Path) -> None:
        assert not fails

    with suppress(RuntimeError), OFFLINE.open(run, picture):
        if fails:
            raise RuntimeError("out of memory")
    assert recorded(run).exit_code == int(fails)
    assert not recorded(run).rows


def test_of_a_large_table_the_first_rows_are_shown_and_all_are_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(number, "x" * 20) for number in range(100)]
    monkeypatch.setattr(views, "LARGE", 1000)
    with caplog.at_level("INFO"):
        track(
            OFFLINE,
            run,
            [Table("probe/long", ("number", "text"), rows), Table("probe/short", ("number", "text"), rows[:1])],
        )
    found = recorded(run)
    shown_rows = file(found, history(found)["probe_long"])["data"]
    assert shown_rows == [list(row) for row in rows[: len(shown_rows)]]
    assert sum(len(json.dumps(row)) for row in shown_rows) <= 1000 < sum(len(json.dumps(row)) for row in rows)
    assert f"the first {len(shown_rows)} of 100 rows of probe_long; probe_long_rows-{run.id} has all" in caplog.text
    (path,) = contents(found)[f"probe_long_rows-{run.id}"].values()
    kept = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert kept == [{"number": number, "text": text} for number, text in rows]
    assert not any("short_rows" in name for name in found.artifacts)


def file(found: OfflineRun, logged: dict[str, Any]) -> Any:
    return json.loads((found.path.parent / "files" / logged["path"]).read_text())


def contents(found: OfflineRun) -> dict[str, dict[str, str]]:
    """The local file of each file of each artifact."""
    artifacts = messages_of(found, "artifact")
    return {one.name: {part.path: part.local_path for part in one.manifest.contents} for one in artifacts}


def messages_of(found: OfflineRun, kind: str) -> list[Any]:
    return [getattr(one, kind) for one in messages(found.path) if one.WhichOneof("record_type") == kind]


FOUND = Scalar(
    "probe/accuracy",
    0.9,
    (0.8, 0.95),
    20,
    Null(0.6, "shuffled labels", 100, p=0.01),
    target=0.8,
    label="accuracy of the probe",
    unit="share",
    hint="of replies that it had not seen",
    good="high",
    counts="replies",
    caveat="by guess",
)
UNKNOWN = Scalar("probe/strength", float("nan"), target=1.0, label="add", unit="nats", row="needed strength")
BARE = Scalar("probe/layer", 3)
LOCALISED = Outcome("probe/outcome", "localised", "One layer is enough.", hint="or: spread", caveat="by guess")


def test_what_figures_mean_arrives_with_them(run: Run) -> None:
    track(OFFLINE, run, [FOUND, UNKNOWN, LOCALISED, BARE])
    logged = history(recorded(run))
    figures = file(recorded(run), logged["figures"])
    found, unknown, bare = (dict(zip(figures["columns"], row, strict=True)) for row in figures["data"])
    assert found == {
        "figure": "probe/accuracy",
        "label": "accuracy of the probe",
        "value": 0.9,
        "unit": "share",
        "low": 0.8,
        "high": 0.95,
        "n": 20,
        "counts": "replies",
        "null": 0.6,
        "null_of": "shuffled labels",
        "null_draws": 100,
        "p": 0.01,
        "target": 0.8,
        "met": True,
        "good": "high",
        "hint": "of replies that it had not seen",
        "caveat": "by guess",
    }
    assert (unknown["label"], unknown["unit"], unknown["value"]) == ("needed strength: add", "nats", None)
    assert (unknown["target"], unknown["met"], unknown["null"]) == (1.0, False, None)
    assert {key for key, value in bare.items() if value not in (None, "")} == {"figure", "label", "value"}
    assert bare["label"] == "probe/layer"  # there is no other name for it
    conclusions = file(recorded(run), logged["conclusions"])
    (concluded,) = (dict(zip(conclusions["columns"], row, strict=True)) for row in conclusions["data"])
    assert concluded == {
        "conclusion": "probe/outcome",
        "label": "outcome",
        "value": "localised",
        "because": "One layer is enough.",
        "complete": True,
        "hint": "or: spread",
        "caveat": "by guess",
    }


def test_what_came_before_a_failure_is_told_too(run: Run) -> None:
    def breaks() -> None:
        with OFFLINE.open(run) as track:
            track(FOUND)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        breaks()
    found = recorded(run)
    assert found.exit_code == 1
    assert [row[0] for row in file(found, history(found)["figures"])["data"]] == ["probe/accuracy"]
    assert len(found.rows) == 1


def test_tables_of_figures_say_no_number_that_is_none(run: Run) -> None:
    """Infinity and NaN are not JSON."""
    track(OFFLINE, run, [Scalar("probe/ratio", float("inf")), UNKNOWN])
    found = recorded(run)
    assert [row[2] for row in file(found, history(found)["figures"])["data"]] == [None, None]


def test_figures_have_their_labels_for_titles() -> None:
    lines = (Line("a", (1.0,)),)
    titled = Curve("probe/curve", (0.0,), lines, "x", "y", label="what it shows")
    plain = Curve("probe/curve", (0.0,), lines, "x", "y")
    assert plots.figure(titled).layout.title.text == "what it shows"
    assert plots.figure(plain).layout.title.text == "probe/curve"
    grid = Heatmap("probe/map", np.zeros((1, 1)), ["0"], ["0"], "layer", "head", label="which heads")
    assert plots.figure(grid).layout.title.text == "which heads"


def test_a_cloud_of_points_is_a_figure_and_a_table(run: Run) -> None:
    nan = float("nan")
    cloud = Scatter("probe/cloud", (0.01, nan), (1.0, 2.0), (nan, 3.0), ("a", "b"), "KL", "bypass", "induce", (1,), 0.1)
    track(OFFLINE, run, [cloud])
    found = recorded(run)
    table = file(found, history(found)["probe_cloud_values"])
    assert table["columns"] == ["point", "KL", "bypass", "induce", "marked"]
    assert table["data"] == [["a", 0.01, 1.0, None, False], ["b", None, 2.0, 3.0, True]]
    figure = plots.figure(cloud)
    assert list(figure.data[0].x) == [0.01]
    assert list(figure.data[0].text) == ["a"]
    assert figure.data[0].marker.color == plots.UNKNOWN
    assert figure.layout.shapes[0].x0 == 0.1


def test_a_circuit_is_a_figure_and_tables_of_nodes_and_edges(run: Run) -> None:
    nan = float("nan")
    nodes = [
        Node("words", "source", -1, np.float32(nan)),  # as a method has it out of an array
        Node("MLP 1", "mlp", 1, -2.0),
        Node("1.0", "head", 1, 1.0),
        Node("6.3", "head", 6, 0.5),
        Node("refusal", "output", 7, nan),
    ]
    edges = [Edge("words", "1.0", 0.5), Edge("1.0", "MLP 1", -2.0), Edge("words", "refusal", 1.0)]
    circuit = Diagram("probe/circuit", nodes, edges, 7, "effect", "weight", label="its circuit")
    track(OFFLINE, run, [circuit])
    found = recorded(run)
    logged = history(found)
    assert "probe/circuit" in logged
    table = file(found, logged["probe_circuit_nodes"])
    assert table["columns"] == ["node", "kind", "layer", "effect"]
    assert table["data"][:2] == [["words", "source", -1, None], ["MLP 1", "mlp", 1, -2.0]]
    table = file(found, logged["probe_circuit_edges"])
    assert (table["columns"], table["data"]) == (["from", "to", "weight"], [list(edge) for edge in edges])
    figure = plots.figure(circuit)
    assert list(figure.layout.yaxis.ticktext) == ["source", "1", "6", "output"]
    weakest, middle, strongest, known, unknown = figure.data
    assert [one.text for one in (weakest, strongest)] == ["words → 1.0: weight 0.5", "1.0 → MLP 1: weight -2"]
    assert weakest.line.width < middle.line.width < strongest.line.width
    assert (weakest.line.color, strongest.line.color) == (plots.PLUS, plots.MINUS)
    at = {name: (x, y) for one in (known, unknown) for name, x, y in zip(one.text, one.x, one.y, strict=True)}
    assert at == {"1.0": (-0.5, 1), "MLP 1": (0.5, 1), "6.3": (0, 2), "words": (0, 0), "refusal": (0, 3)}
    assert (weakest.x[0], weakest.y[0], weakest.x[-1], weakest.y[-1]) == (*at["words"], *at["1.0"])
    assert unknown.marker.color == plots.UNKNOWN
    many = [Node(f"s{i}", "source", -1, nan) for i in range(130)]
    crowd = replace(circuit, nodes=[*nodes, *many], edges=[Edge(one.name, "1.0", 1.0) for one in many])
    assert plots.figure(crowd).layout.title.text == "its circuit (the strongest 120 of 130 edges)"


def test_a_curve_is_rows_against_its_axis(run: Run) -> None:
    line = Line("AUROC of it", (0.5, float("nan"), 0.75), (0.25, 0.25, 0.5))
    track(OFFLINE, run, [Curve("stub/by_layer", (0.0, 1.0, 2.0), (line, Line("kl", (1.0, 2.0, 4.0))), "layer", "y")])
    rows = [
        {key: value for key, value in row.items() if not key.startswith("_")}
        for row in recorded(run).rows
        if "layer" in row
    ]
    by_layer = "stub/by_layer"
    assert rows == [
        {"layer": 0, f"{by_layer}/AUROC_of_it": 0.5, f"{by_layer}/AUROC_of_it_low": 0.25, f"{by_layer}/kl": 1},
        {"layer": 1, f"{by_layer}/AUROC_of_it_low": 0.25, f"{by_layer}/kl": 2},
        {"layer": 2, f"{by_layer}/AUROC_of_it": 0.75, f"{by_layer}/AUROC_of_it_low": 0.5, f"{by_layer}/kl": 4},
    ]
    axes = [(axis.glob_name, axis.step_metric) for axis in messages_of(recorded(run), "metric")]
    assert (f"{by_layer}/*", "layer") in axes


def test_an_exception_ends_the_run_as_failed(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), OFFLINE.open(run):
        raise RuntimeError("out of memory")
    assert recorded(run).exit_code == 1
    assert capfd.readouterr() == ("", "")  # launch.py tells of the failure, once


def test_a_second_attempt_takes_the_place_of_the_first(run: Run) -> None:
    for result in stubs.one_of_each()[:2]:
        track(OFFLINE, run, [result])
    assert "stub/verdict" in recorded(run).summary  # which finds exactly one record


def test_runs_of_one_process_do_not_mix(run: Run) -> None:
    other = a_run(run.directory.with_name("11112222"))
    with OFFLINE.open(run) as track, OFFLINE.open(other) as track_other:
        track(stubs.one_of_each()[1])
        track_other(stubs.one_of_each()[0])
    assert "stub/verdict" in recorded(run).summary
    assert "stub/verdict" not in recorded(other).summary
    assert "stub/nothing_n" in recorded(other).summary


def test_a_sweep_keeps_its_id_and_does_not_lose_the_config(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = run.directory / "config-sweep.yaml"
    parameters.write_text(
        "wandb_version: 1\nmodel:\n  value: tiny-chat\nseed:\n  value: 3\nmethod.depth.max:\n  value: [1, 2]\n"
    )
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "chosenbyagent")
    monkeypatch.setenv("WANDB_PROJECT", "ofthesweep")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    track(OFFLINE, run, [])
    found = recorded(run)
    assert (found.id, found.project) == ("chosenbyagent", "ofthesweep")
    assert found.config["method.direction.max_kl"] == 0.1
    assert (found.config["seed"], found.config["method.depth.max"]) == (3, [1, 2])  # where W&B's search looks
    assert found.config["model"] == run.choices["model"]


def test_what_was_read_of_an_earlier_run_is_recorded(run: Run) -> None:
    made = [result for result in stubs.one_of_each() if isinstance(result, Tensors | Adapter)]
    track(OFFLINE, run, made)
    reader = a_run(run.directory.with_name("11112222"), adapter=str(run.directory / "adapter"), path="not/there")
    track(OFFLINE, reader, made)
    name = f"stub_adapter-{run.id}"
    (read,) = recorded(reader).config["inputs"]
    assert read == {"name": name, "digest": recorded(run).artifacts[name], "run": run.id}
    own = messages_of(recorded(reader), "artifact")
    assert all(json.loads(artifact.metadata)["inputs"] == [read] for artifact in own)
    assert recorded(run).config["inputs"] == []


def test_offline_nothing_is_asked_of_a_server(wandb_server: WandbServer, run: Run) -> None:
    track(OFFLINE, run, stubs.one_of_each())
    assert recorded(run).exit_code == 0
    assert wandb_server.requests == 0


def test_online_without_a_key_is_refused_with_the_cure(run: Run) -> None:
    online = Wandb(project="rcm", entity=None, mode="online", wait=5)
    with pytest.raises(InputError, match=r"tracker\.mode=offline"), online.open(run):
        pass


def test_the_disk_tracker_adds_nothing(run: Run) -> None:
    track(Disk(), run, stubs.one_of_each())
    assert not (run.directory / "wandb").exists()


@pytest.mark.parametrize("length", [1, 32768 - 7 - 7, 32768 - 7 - 3, 100_000])
def test_a_file_written_anew_says_what_was_written(run: Run, length: int) -> None:
    """Lengths around the ends of blocks."""
    track(OFFLINE, run, stubs.one_of_each())
    path, again = recorded(run).path, run.directory / "again.wandb"
    assert list(messages(rewritten(path, again, lambda message: True))) == list(messages(path))

    def with_notes(message: Any) -> bool:
        message.run.notes = "x" * length
        return True

    written = [len(message.run.notes) for message in messages(rewritten(path, again, with_notes))]
    assert written == [length] * len(list(messages(path)))
    again.write_bytes(again.read_bytes()[:-1])  # as a kill leaves it
    assert len(list(messages(again))) == len(written) - 1


def test_files_of_a_later_client_are_read_with_one_warning(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    track(OFFLINE, run, stubs.one_of_each())
    wandb_file._tell_untested.cache_clear()
    for installed, warnings in (("0.31.9", 0), ("0.32.0rc1", 1), ("0.32.0rc1", 1), ("1.0.0", 2)):
        monkeypatch.setattr(wandb_file, "version", lambda name, installed=installed: installed)
        assert recorded(run).exit_code == 0
        assert caplog.text.count("the last whose files rcm was tested with") == warnings


def test_a_file_of_another_format_is_refused(run: Run, sentence: Callable[[Callable[[], object]], str]) -> None:
    track(OFFLINE, run, [])
    file = run.directory / "copy.wandb"  # the client may still write to its own
    file.write_bytes(b":W&B\xe1\xbe\x01" + recorded(run).path.read_bytes()[7:])
    assert f"`wandb sync {file.parent}`" in sentence(lambda: OfflineRun.of(file))
    file.write_bytes(b":W&")  # just begun
    assert OfflineRun.of(file).id == ""


def test_a_private_setting_that_the_client_lacks_is_left_away_and_told_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "PRIVATE", {**client.PRIVATE, "x_of_yesterday": True})
    for _ in range(2):
        track(OFFLINE, run, stubs.one_of_each()[:2])
    assert "stub/verdict" in recorded(run).summary
    assert caplog.text.count("This version of wandb has no setting x_of_yesterday") == 1


@pytest.mark.parametrize(("center", "ends"), [(0.0, (-4.0, 4.0)), (1.0, (-2.0, 4.0)), (None, (-2.0, 4.0))])
def test_the_colour_scale_is_even_around_its_center(center: float | None, ends: tuple[float, float]) -> None:
    assert colour_limits(np.array([[4.0, -2.0], [np.nan, 0.0]]), center) == ends


def test_figures_are_drawn_whatever_is_missing() -> None:
    empty = Heatmap("none", np.full((40, 3), np.nan), ["a"] * 40, ["a long name"] * 3, "layer", "head", center=None)
    for result in (empty, Curve("no lines", (), (), "x", "y"), Curve("nan", (1.0,), (Line("a", (np.nan,)),), "x", "y")):
        assert "NaN" not in json.dumps(plots.figure(result).to_plotly_json())


def test_a_cell_that_was_not_computed_is_missing_and_a_marked_one_outlined() -> None:
    heatmap = next(result for result in stubs.one_of_each() if isinstance(result, Heatmap))
    drawn = plots.figure(heatmap).to_plotly_json()
    assert drawn["data"][0]["z"] == [[1.0, None, -2.0], [0.5, 0.0, 1.5]]
    assert (drawn["data"][0]["zmin"], drawn["data"][0]["zmax"]) == (-2.0, 2.0)
    assert drawn["layout"]["xaxis"]["title"]["text"] == "head"
    assert drawn["layout"]["yaxis"]["ticktext"] == ["0", "1"]
    assert [(shape["x0"], shape["y0"]) for shape in drawn["layout"]["shapes"]] == [(1.5, 0.5)]


def test_a_band_lies_between_its_ends() -> None:
    curve = Curve("c", (0.0, 1.0), (Line("a", (1.0, 2.0), (0.0, 1.0), (3.0, 4.0)), Line("b", (5.0, 6.0))), "x", "y")
    drawn = plots.figure(curve).to_plotly_json()["data"]
    assert [list(trace["y"]) for trace in drawn] == [[0.0, 1.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0]]
    assert [trace.get("name") for trace in drawn] == [None, None, "a", "b"]
    assert drawn[1]["fill"] == "tonexty"


# W&B's own words


@pytest.mark.parametrize("project", ["team/refusal", "a#b", "what?", ""])
def test_a_project_that_wandb_does_not_take_is_told(project: str) -> None:
    with pytest.raises(ValidationError, match="W&B takes no name of a project"):
        Wandb(project=project, entity=None, mode="offline", wait=5)


def test_a_long_option_is_a_tag_cut_short(run: Run) -> None:
    long = replace(run, choices={**run.choices, "dataset": "d" * 70})
    track(OFFLINE, long, [])
    assert "d" * 64 in messages_of(recorded(long), "run")[0].tags
