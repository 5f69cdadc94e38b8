"""What is written is read back, whatever the kind; what is half written is not taken for whole."""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rcm.errors import InputError
from rcm.record import storage
from rcm.record.encoding import flat
from rcm.record.results import SHUFFLED_LABELS, Adapter, Heatmap, Null, Result, Scalar, Table, Tensors, Transcripts
from rcm.record.run import Run
from rcm.record.storage import Store, clear
from rcm.record.stored import readable_runs, stored_run, stored_runs
from tests import stubs


def a_run(directory: Path, name: str = "0a1b2c3d", started: str = "2026-01-01T00:00:00+00:00") -> Run:
    directory.mkdir(parents=True, exist_ok=True)
    choices = {"model": "stub", "dataset": "stub", "method": "stub", "judge": "prefix"}
    return Run(name, directory, choices, {"model": {"family": "stub"}, "seed": 0}, {"started": started})


def stored(directory: Path, *results: Result) -> None:
    with Store(a_run(directory)) as store:
        for result in results:
            store.save(result)


def same(left: Any, right: Any) -> bool:
    """Equality in which NaN equals NaN, and arrays and tensors equal those of the same type and values."""
    match left:
        case np.ndarray():
            return np.array_equal(left, right, equal_nan=True)
        case torch.Tensor():
            return left.dtype == right.dtype and torch.equal(left, right)
        case dict():
            return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        case tuple():
            return len(left) == len(right) and all(map(same, left, right))
        case float() if left != left:
            return right != right
        case _:
            return bool(left == right)


def as_fields(result: Result) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in fields(result)}


def test_the_stub_reports_every_kind() -> None:
    assert {type(result) for result in stubs.one_of_each()} == set(get_args(Result))


@pytest.mark.parametrize("result", stubs.one_of_each(), ids=lambda result: type(result).__name__)
def test_every_kind_of_result_comes_back(tmp_path: Path, result: Result) -> None:
    stored(tmp_path, result)
    run = stored_run(tmp_path)
    match result:
        case Tensors(name=name):
            back = run.tensors(name)
        case Adapter(name=name):
            back = run.adapter(name)
        case _:
            (back,) = run.results()
    assert type(back) is type(result)
    if isinstance(back, Tensors | Adapter | Heatmap):
        assert same(as_fields(back), as_fields(result))
    else:
        assert same(asdict(back), asdict(result))


def test_a_heatmap_keeps_what_its_figures_are(tmp_path: Path) -> None:
    grid = Heatmap("m", np.eye(2), ("a", "b"), ("c", "d"), "row", "column", value_label="share of the gap")
    stored(tmp_path, grid)
    (back,) = stored_run(tmp_path).results()
    assert same(as_fields(back), as_fields(grid))
    # Runs from before the label are read as without one.
    record = json.loads((tmp_path / "results.jsonl").read_text())
    assert record.pop("value_label") == "share of the gap"
    (tmp_path / "results.jsonl").write_text(json.dumps(record) + "\n")
    (earlier,) = stored_run(tmp_path).results()
    assert same(as_fields(earlier), as_fields(grid) | {"value_label": ""})


def test_files_are_named_after_the_last_part(tmp_path: Path) -> None:
    stored(tmp_path, *stubs.one_of_each())
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    peft = {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/card.json"}
    exported = {"stub_candidates.csv", "stub_transcripts.jsonl", "stub_directions.safetensors"}
    assert written == {"run.json", "results.jsonl", "metrics.json"} | peft | exported
    assert load_file(tmp_path / "adapter/adapter_model.safetensors")["a.lora_A.weight"].dtype == torch.bfloat16
    with safe_open(tmp_path / "stub_directions.safetensors", "pt") as file:
        assert file.metadata() == {"layer": "5", "position": "-1"}
    assert json.loads((tmp_path / "stub_transcripts.jsonl").read_text())["completion"] == "hi\nthere"


def test_a_scalar_that_tells_n_always_has_its_four_companions() -> None:
    companions = {"x_low": None, "x_high": None, "x_n": 3, "x_null": None}
    assert flat(Scalar("x", float("nan"), n=3)) == {"x": None} | companions
    assert flat(Scalar("x", 1.0, null=Null(0.5, SHUFFLED_LABELS))) == {"x": 1.0, "x_null": 0.5}


def test_two_methods_in_one_run_may_both_have_transcripts(tmp_path: Path) -> None:
    rows = ({"prompt": "p", "completion": "c"},)
    both = [Transcripts("behaviour/transcripts", rows), Transcripts("steering/transcripts", rows)]
    stored(tmp_path, *both)
    assert stored_run(tmp_path).results() == both


@pytest.mark.parametrize("second", [Scalar("stub/candidates", 1.0), Table("stub_candidates", ("a",), ())])
def test_two_results_must_not_overwrite_each_other(tmp_path: Path, second: Result) -> None:
    with pytest.raises(ValueError, match="would overwrite"):
        stored(tmp_path, Table("stub/candidates", ("a",), ()), second)


def test_two_methods_in_one_run_may_both_have_a_table_of_one_name(tmp_path: Path) -> None:
    both = [Table("stub/candidates", ("a",), ((1,),)), Table("other/candidates", ("a",), ((2,),))]
    stored(tmp_path, *both)
    assert stored_run(tmp_path).results() == both
    assert {path.name for path in tmp_path.glob("*.csv")} == {"stub_candidates.csv", "other_candidates.csv"}


def test_a_failed_run_says_why_and_has_no_metrics(tmp_path: Path) -> None:
    store = Store(a_run(tmp_path))
    with contextlib.suppress(InputError), store:
        store.save(Scalar("x", 1.0))
        raise InputError("The file is missing.")
    run = stored_run(tmp_path)
    assert (run.status, run.error, run.metrics) == ("failed", "The file is missing.", {})
    assert run.results() == [Scalar("x", 1.0)]


def test_only_what_rcm_wrote_is_cleared(tmp_path: Path) -> None:
    stored(tmp_path, *stubs.one_of_each())
    mine = {"launch.log", "notes.csv", "adapter/notes.txt"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / "stub_directions.safetensors.partial").touch()
    clear(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == mine


def test_nothing_outside_of_the_run_is_cleared(tmp_path: Path) -> None:
    run, mine = tmp_path / "run", tmp_path / "mine.csv"
    stored(run, *stubs.one_of_each())
    mine.write_text("mine")
    (run / "link").symlink_to(tmp_path)
    with (run / "results.jsonl").open("a") as stream:
        for name in ("../mine.csv", str(mine), "link/mine.csv"):
            stream.write(json.dumps({"kind": "table", "name": "x", "files": [name]}) + "\n")
    clear(run)
    assert mine.read_text() == "mine"
    assert {path.name for path in run.iterdir()} == {"adapter", "link"}


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_job_that_goes_back_into_the_queue_is_no_failed_run(tmp_path: Path) -> None:
    """As submitit ends it, by SystemExit; a failure beside it is one."""
    with contextlib.suppress(SystemExit), Store(a_run(tmp_path / "queued")):
        raise SystemExit(-1)
    assert (stored_run(tmp_path / "queued").status, stored_run(tmp_path / "queued").error) == ("started", None)
    with contextlib.suppress(RuntimeError), Store(a_run(tmp_path / "failed")):
        raise RuntimeError("no")
    assert stored_run(tmp_path / "failed").status == "failed"


@pytest.mark.parametrize("links", [True, False])
def test_what_had_finished_is_back_when_its_successor_fails(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", raising(OSError("Operation not permitted")))
    stored(tmp_path, *stubs.one_of_each())
    before = contents(tmp_path)
    with contextlib.suppress(RuntimeError), Store(a_run(tmp_path)) as store:
        store.save(Scalar("x", 1.0))
        while_on = stored_run(tmp_path)
        assert (while_on.status, while_on.metrics) == ("finished", json.loads(before["metrics.json"]))
        raise RuntimeError("The disk is full.")
    assert contents(tmp_path) == before


def test_what_had_finished_is_gone_when_its_successor_has(tmp_path: Path) -> None:
    stored(tmp_path, *stubs.one_of_each())
    stored(tmp_path, Scalar("x", 1.0))
    assert stored_run(tmp_path).metrics == {"x": 1.0}
    assert set(contents(tmp_path)) == {"run.json", "results.jsonl", "metrics.json"}


def test_what_had_finished_outlives_a_kill_and_one_that_is_killed_again(tmp_path: Path) -> None:
    stored(tmp_path, *stubs.one_of_each())
    whole = stored_run(tmp_path).metrics
    for _ in range(2):
        killed = Store(a_run(tmp_path))
        killed.__enter__()
        killed.save(Scalar("x", 1.0))  # and here it is killed
        assert stored_run(tmp_path).metrics == whole
    stored(tmp_path, Scalar("x", 1.0))
    assert stored_run(tmp_path).metrics == {"x": 1.0}
    assert not (tmp_path / ".before").exists()


def test_what_had_finished_is_seen_while_its_successor_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "one", *stubs.one_of_each())
    before = contents(tmp_path / "one")
    monkeypatch.setattr(Store, "_record", raising(OSError("No space left on device")))
    with pytest.raises(InputError, match=r"cannot be written: .*No space"):
        Store(a_run(tmp_path / "one")).__enter__()
    assert contents(tmp_path / "one") == before
    storage.set_aside(tmp_path / "one")
    clear(tmp_path / "one")  # and here it is killed: there is no run.json
    (run,), unreadable = readable_runs(tmp_path)
    assert (run.status, unreadable) == ("finished", [])
    assert readable_runs(tmp_path / "one") == ([run], [])  # by its own folder, too, and once
    assert readable_runs(tmp_path, tmp_path / "one") == ([run], [])
    assert storage.put_back(tmp_path / "one")
    assert contents(tmp_path / "one") == before


def test_a_reader_sees_one_run_or_is_told(tmp_path: Path) -> None:
    stored(tmp_path, Scalar("x", 1.0))
    opened = stored_run(tmp_path)
    with Store(a_run(tmp_path, started="2027-01-01T00:00:00+00:00")) as store:
        store.save(Scalar("x", 2.0))
        aside = stored_run(tmp_path)
        assert aside.results() == [Scalar("x", 1.0)]
        with pytest.raises(InputError, match="was run anew while it was read; read it again"):
            opened.results()
    with pytest.raises(InputError, match="was run anew while it was read; read it again"):
        aside.results()


def test_a_group_may_read_what_the_umask_lets_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        stored(tmp_path / "run", *stubs.one_of_each())
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").rglob("*")}
    assert {mode for name, mode in modes.items() if "." in name} == {"0o640"}
    assert modes["adapter"] == "0o750"


def raising(error: Exception) -> Callable[..., None]:
    def instead(*_: Any) -> None:
        raise error

    return instead


def test_runs_are_found_in_the_order_of_their_start(tmp_path: Path) -> None:
    for name, started in (("aa", "2026-01-02T00:00:00+00:00"), ("bb", "2026-01-01T00:00:00+00:00")):
        with Store(a_run(tmp_path / name, name, started)):
            pass
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "multirun.yaml").touch()
    assert [run.id for run in stored_runs(tmp_path)] == ["bb", "aa"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("run.json", '{"id": 3}', "KeyError"),
        ("run.json", "[]", "TypeError"),
        ("run.json", "{", "JSONDecodeError"),
        ("metrics.json", "", "JSONDecodeError"),
        ("run.json", {"later": 1}, "later"),
        ("run.json", {"format": 9}, "its format is 9, and this rcm reads up to 2"),
        ("run.json", {"format": "?"}, "TypeError"),
    ],
)
def test_an_odd_run_is_told_beside_the_others(
    tmp_path: Path, name: str, content: str | dict[str, Any], what: str
) -> None:
    for id in ("good", "odd"):
        with Store(a_run(tmp_path / id, id, "2026-01-01T00:00:00+00:00")):
            pass
    if isinstance(content, dict):  # a field more, or another
        content = json.dumps(json.loads((tmp_path / "odd" / name).read_text()) | content)
    (tmp_path / "odd" / name).write_text(content)
    runs, (why,) = readable_runs(tmp_path)
    assert [run.id for run in runs] == ["good"]
    assert str(tmp_path / "odd") in why
    assert what in why
    assert "move it away, or run it again" in why
    assert stored_runs(tmp_path) == runs


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    stored(tmp_path / "run", *stubs.one_of_each())
    with pytest.raises(InputError, match="it has: stub/directions"):
        stored_run(tmp_path / "run").tensors("stub/direction")
    with pytest.raises(InputError, match="no folder"):
        stored_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run in"):
        stored_run(tmp_path)


def test_equal_tensors_are_equal_bytes(tmp_path: Path) -> None:
    """Else W&B would keep a new version of the directions each time that a run is made anew."""
    metadata = {name: f'{name} "é" \n' for name in "abcdefgh"}
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, dtype=torch.float16)}
    for i in range(10):
        stored(tmp_path / str(i), Tensors("stub/directions", tensors, metadata))
    assert len({(tmp_path / str(i) / "stub_directions.safetensors").read_bytes() for i in range(10)}) == 1
    read = stored_run(tmp_path / "0").tensors("stub/directions")
    assert read.metadata == metadata
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())
