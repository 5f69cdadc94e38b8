"""What is found once is taken from there, by whom it is the same for, and by nobody else."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from rcm.errors import InputError
from rcm.methods import Method, Study
from rcm.prompts import Part, Prompt, Split
from rcm.record.findings import FOLDER, Place, Writer, key_of
from rcm.record.results import Result, Scalar, Tensors
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.running.chosen import Chosen
from rcm.running.reuse import Circumstances, Step, results, steps_of
from rcm.running.run import _commits
from tests.conftest import tiny_model
from tests.planted import opening_judge

ASKED = Part((Prompt("Pick the lock?", "theft"),), (Prompt("Pick a colour?", ""),))
PROMPTS = Split(ASKED, ASKED, ASKED, "chat", False)
JUDGE = opening_judge("sorry")
CONFIG: Mapping[str, Any] = {
    "model": {"_target_": "rcm.models.random.Random", "seed": 0, "family": "f", "stage": "base"},
    "judge": {"_target_": "rcm.judges.Strings"},
    "method": {"find": {"size": 3}, "use": {"by": 2}},
}
NOW = Circumstances(CONFIG, PROMPTS, "chat", JUDGE, 0, torch.device("cpu"), 8)


@dataclass(frozen=True)
class Found:
    vector: torch.Tensor
    words: tuple[str, ...]


class Find(Method):
    gives: ClassVar = Found
    judged: ClassVar = False
    size: int

    def run(self, study: Study) -> Generator[Result, None, Found]:
        CALLS.append("find")
        vector = torch.rand(self.size)
        yield Scalar("find/sum", float(vector.sum()))
        yield Tensors("find/vector", {"vector": vector}, {"of": "chance"})
        return Found(vector, ("one", "two"))


class Use(Method):
    needs: ClassVar = (Found,)
    by: int

    def run(self, study: Study) -> Generator[Result, None, None]:
        CALLS.append("use")
        found = study[Found]
        yield Scalar("use/scaled", float(found.vector.sum()) * self.by + torch.rand(()).item())
        yield Scalar("use/words", len(found.words))


CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _none_called() -> None:
    CALLS.clear()


def methods(size: int = 3, by: int = 2) -> dict[str, Method]:
    return {"find": Find(size=size), "use": Use(by=by)}


def with_settings(now: Circumstances, **changed: Mapping[str, Any]) -> Circumstances:
    return replace(now, config={**now.config, **changed})


def ran(
    folder: Path, id: str, steps: list[Step], *, reuse: bool = True, again: Callable[[], list[Step]] | None = None
) -> tuple[list[Result], list[str]]:
    """Results of a run, and what it took from others; its files saved as they come."""
    run = Run(id, folder / id, {}, {}, {"started": id}, findings={step.name: step.key for step in steps})
    model = tiny_model()
    taken: list[str] = []
    reported = []
    with Store(run) as store:
        study = lambda: Study(model, PROMPTS, JUDGE, 0)  # noqa: E731
        for result in results(steps, study, run, reuse, lambda name, by: taken.append(f"{name} {by}"), again):
            store.save(result)
            reported.append(result)
    return reported, taken


def figures(reported: list[Result]) -> dict[str, Any]:
    return {result.name: result.value for result in reported if isinstance(result, Scalar)}


def test_a_second_run_takes_all_from_the_first_and_reports_the_same(tmp_path: Path) -> None:
    first, none = ran(tmp_path, "one", steps_of(methods(), NOW))
    again, taken = ran(tmp_path, "two", steps_of(methods(), NOW))
    assert CALLS == ["find", "use"]
    assert (none, taken) == ([], ["self_checks one", "find one", "use one"])
    assert [result.name for result in first] == [result.name for result in again]
    for name in ("results.jsonl", "metrics.json", "find_vector.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    inodes = {path.stat().st_ino for path in tmp_path.rglob("find_vector.safetensors")}
    assert len(inodes) == 1  # in both runs and in what is kept, once on the disk


def test_a_run_shares_the_beginning_of_another(tmp_path: Path) -> None:
    alone, _ = ran(tmp_path / "other", "one", steps_of(methods(by=5), NOW), reuse=False)
    ran(tmp_path, "one", steps_of(methods(by=2), NOW))
    CALLS.clear()
    five = with_settings(NOW, method={**CONFIG["method"], "use": {"by": 5}})
    shared, taken = ran(tmp_path, "two", steps_of(methods(by=5), five))
    assert CALLS == ["use"]
    assert taken == ["self_checks one", "find one"]
    assert figures(shared) == figures(alone)  # neither the finding nor the dice differ by having been kept


def test_without_reuse_nothing_is_kept_nor_taken(tmp_path: Path) -> None:
    ran(tmp_path, "one", steps_of(methods(), NOW), reuse=False)
    assert not (tmp_path / FOLDER).exists()
    ran(tmp_path, "two", steps_of(methods(), NOW))
    CALLS.clear()
    ran(tmp_path, "three", steps_of(methods(), NOW), reuse=False)
    assert CALLS == ["find", "use"]


def keys(now: Circumstances = NOW, **settings: int) -> dict[str, str]:
    return {step.name: step.key for step in steps_of(methods(**settings), now)}


def test_what_changes_a_figure_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")
    here = with_settings(NOW, model={**CONFIG["model"], "path": str(weights)})
    before = keys(here)
    weights.write_bytes(b"two")
    other_weights = keys(here)
    other_prompts = replace(NOW, prompts=replace(PROMPTS, test=ASKED.first(0)))
    changed: dict[str, dict[str, str]] = {
        "seed": keys(replace(NOW, seed=1)),
        "device": keys(replace(NOW, device=torch.device("cuda"))),
        "prompts": keys(other_prompts),
        "template": keys(replace(NOW, template="plain")),
        "settings": keys(with_settings(NOW, method={"find": {"size": 4}, "use": {"by": 2}})),
    }
    monkeypatch.setattr("rcm.running.reuse.versions", lambda: {"torch": "9"})
    changed["packages"] = keys()
    monkeypatch.undo()
    monkeypatch.setattr("rcm.running.reuse.sources_digest", lambda settings, now: "other")
    changed["sources"] = keys()
    monkeypatch.undo()
    for why, other in changed.items():
        assert not set(other.values()) & {keys()["find"], keys()["use"]}, why
    assert other_weights["find"] != before["find"]


def test_what_changes_no_figure_does_not() -> None:
    renamed = with_settings(NOW, model={**CONFIG["model"], "family": "g", "stage": "safety"})
    assert keys(renamed) == keys()
    later = with_settings(NOW, method={**CONFIG["method"], "use": {"by": 9}})
    assert keys(later)["find"] == keys()["find"]
    assert keys(later)["use"] != keys()["use"]


def test_only_who_asks_the_judge_depends_on_it() -> None:
    other = keys(with_settings(NOW, judge={"_target_": "rcm.judges.Strings", "words": ["no"]}))
    assert other["find"] == keys()["find"]
    assert other["use"] != keys()["use"]
    second = keys(replace(NOW, judge=JUDGE.model_copy(update={"second": JUDGE})))
    assert second["use"] != keys()["use"]
    commits = keys(replace(NOW, commits=("", "abc")))
    assert commits["find"] == keys()["find"]
    assert commits["use"] != keys()["use"]
    assert keys(replace(NOW, commits=("abc", "")))["find"] != keys()["find"]


def test_what_a_predecessor_was_of_counts() -> None:
    """Only where its finding is taken, and by what it was of rather than by what came out."""
    other = keys(with_settings(NOW, method={**CONFIG["method"], "find": {"size": 4}}))
    assert other["find"] != keys()["find"]
    assert other["use"] != keys()["use"]
    assert other["self_checks"] == keys()["self_checks"]


def test_earlier_runs_count_by_what_they_found(tmp_path: Path) -> None:
    """A run that transplants from others is another once one of them has other figures, or is of another model."""
    run = tmp_path / "runs" / "abc"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {"seed": 0}, "choices": {}, "provenance": {"started": "1"}}))
    (run / "results.jsonl").write_text("1\n")
    (run / "metrics.json").write_text('{"direction/layer": 3}')
    from_runs = with_settings(NOW, method={"find": {"source": str(run.parent)}, "use": {"by": 2}})
    before = keys(from_runs)
    (run / "run.json").write_text(json.dumps({"config": {"seed": 0}, "choices": {}, "provenance": {"started": "2"}}))
    assert keys(from_runs) == before
    (run / "results.jsonl").write_text("2\n")
    assert keys(from_runs)["find"] != before["find"]


def test_which_of_earlier_runs_came_last_counts(tmp_path: Path) -> None:
    """Of each model the latest is taken."""
    runs = tmp_path / "runs"
    for id in ("one", "two"):
        (runs / id).mkdir(parents=True)
        (runs / id / "metrics.json").write_text('{"direction/layer": 3}')
    from_runs = with_settings(NOW, method={"find": {"source": str(runs)}, "use": {"by": 2}})
    found = []
    for times in (("1", "2"), ("3", "4"), ("6", "5")):
        for id, started in zip(("one", "two"), times, strict=True):
            record = {"config": {}, "choices": {}, "provenance": {"started": started}}
            (runs / id / "run.json").write_text(json.dumps(record))
        found.append(keys(from_runs)["find"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["words.txt", "checkpoint/config.json"])
def test_a_file_counts_under_whatever_key(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("one")
    given = str(file if file.suffix == ".txt" else file.parent)
    now = with_settings(NOW, method={"find": {"size": 3, "mine": given}, "use": {"by": 2}})
    before = keys(now)
    file.write_text("two")
    assert keys(now)["find"] != before["find"]


def test_what_cannot_be_read_whole_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()

    def forbidden(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(folder / "notes.txt"))

    monkeypatch.setattr("rcm.record.identity.content_digest", forbidden)
    now = with_settings(NOW, model={**CONFIG["model"], "path": str(folder)})
    with pytest.raises(InputError, match=r"path=.*model cannot be read whole .*reuse=false"):
        keys(now)
    assert figures(ran(tmp_path, "one", steps_of(methods(), now, reuse=False), reuse=False)[0])  # as it says


class OnAHub:
    second = None

    @property
    def commit(self) -> str:
        raise InputError("The hub is away.")


def test_a_judge_that_nobody_asks_is_not_fetched() -> None:
    chosen = Chosen(*(None,) * len(Chosen._fields))._replace(judge=OnAHub(), methods={"find": Find(size=3)})
    assert _commits(chosen) == ("", "")
    with pytest.raises(InputError, match="away"):
        _commits(chosen._replace(methods=methods()))


def test_a_copy_elsewhere_is_called_otherwise(tmp_path: Path) -> None:
    """What it is called stands beside its tensors, by which a transplant knows its own run."""
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
    found = [keys(with_settings(NOW, model={**CONFIG["model"], "path": str(tmp_path / n)})) for n in ("one", "two")]
    assert found[0]["find"] != found[1]["find"]


def test_what_changes_meanwhile_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = steps_of(methods(), NOW)
    by_now = [replace(steps[0]), replace(steps[1], of={**steps[1].of, "sources": "edited"}), steps[2]]
    reported, _ = ran(tmp_path, "one", steps, again=lambda: by_now)
    assert set(figures(reported)) == {"find/sum", "use/scaled", "use/words"}
    assert "What find found is not kept (the files that it is of, or the code, changed meanwhile)." in caplog.text
    assert {path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir()} == {steps[0].key, steps[2].key}


def test_what_can_no_longer_be_read_is_not_kept_and_ends_no_run(tmp_path: Path) -> None:
    def gone() -> list[Step]:
        raise InputError("path=... cannot be read whole")

    reported, _ = ran(tmp_path, "one", steps_of(methods(), NOW), again=gone)
    assert set(figures(reported)) == {"find/sum", "use/scaled", "use/words"}
    assert not [path for path in (tmp_path / FOLDER).iterdir() if path.is_dir()]


@pytest.mark.parametrize("where", ["alone", "add", "finish"])
def test_where_nothing_can_be_kept_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    wanted = figures(ran(tmp_path / "other", "one", steps_of(methods(), NOW))[0])
    if where == "alone":
        (tmp_path / FOLDER).touch()  # a file where the folder would be
    else:
        monkeypatch.setattr(Writer, where, full)
    reported, _ = ran(tmp_path, "one", steps_of(methods(), NOW))
    assert figures(reported) == wanted
    assert "kept" in caplog.text


def test_what_was_changed_since_counts_for_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = steps_of(methods(), NOW)
    ran(tmp_path, "one", steps)
    key = steps[1].key
    for path, content in (
        (tmp_path / FOLDER / key / "finding.json", b"{"),
        (tmp_path / FOLDER / key / "results.jsonl", b""),
        (tmp_path / FOLDER / key / "finding.safetensors", b"\0" * 64),
        (tmp_path / FOLDER / key / "finding.json", b'{"format": 99}'),
    ):
        path.write_bytes(content)
        CALLS.clear()
        _, taken = ran(tmp_path, "two", steps)
        assert CALLS == ["find"], path
        assert taken == ["self_checks one", "use one"]
        assert f"What is kept in {tmp_path / FOLDER / key} counts for nothing" in caplog.text
        caplog.clear()


@dataclass(frozen=True)
class Anything:
    value: Any


@pytest.mark.parametrize(
    "value",
    [
        np.arange(3.0)[::-1],
        np.arange(3, dtype=">f4"),
        torch.eye(2).to_sparse(),
        torch.ones(2).to(torch.float8_e4m3fn),
        {1, "a"},
        {"__tensor__": "x"},
        {1: 2},
        object(),
        torch.tensor([float("nan"), 1]),
        {"a": [1, (2, None)]},
    ],
    ids=["strides", "endian", "sparse", "float8", "mixed", "marker", "keys", "object", "nan", "nested"],
)
def test_findings_of_any_kind_are_kept_as_they_are_or_not_at_all(tmp_path: Path, value: Any) -> None:
    class Gives(Method):
        gives: ClassVar = Anything
        judged: ClassVar = False

        def run(self, study: Study) -> Generator[Result, None, Anything]:
            yield Scalar("gives/one", 1.0)
            return Anything(value)

    steps = steps_of({"gives": Gives()}, with_settings(NOW, method={"gives": {}}))
    for id in ("one", "two"):
        assert figures(ran(tmp_path, id, steps)[0]) == {"gives/one": 1.0}
    kept = Place(tmp_path, steps[1].key).read(Anything)
    if kept is not None and isinstance(value, torch.Tensor):
        assert torch.equal(kept.finding.value.nan_to_num(), value.nan_to_num())
    elif kept is not None:
        assert kept.finding.value == json.loads(json.dumps(value))


class Odd:
    """Neither plain nor a dataclass."""


class Strange(Method):
    gives: ClassVar = Odd

    def run(self, study: Study) -> Generator[Result, None, Odd]:
        CALLS.append("strange")
        yield Scalar("strange/one", 1.0)
        return Odd()


def test_what_cannot_be_written_down_is_found_anew_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    steps = steps_of({"strange": Strange()}, with_settings(NOW, method={"strange": {}}))
    for id in ("one", "two"):
        ran(tmp_path, id, steps)
    assert CALLS == ["strange", "strange"]
    assert "What strange found is not kept (a Odd has no place in JSON)." in caplog.text
    assert not list((tmp_path / FOLDER).glob("*.partial"))


class Asking(Method):
    judged: ClassVar = False

    def run(self, study: Study) -> Generator[Result, None, None]:
        study.judge.verdicts(["Why?"], ["Because it rains in the north."])
        yield Scalar("asking/one", 1.0)


class Peeking(Method):
    def run(self, study: Study) -> Generator[Result, None, None]:
        yield Scalar("peeking/found", float(study.get(Found) is not None))


def test_a_method_is_given_what_it_says_it_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="asking asks the judge, and says judged = False"):
        ran(tmp_path, "one", steps_of({"asking": Asking()}, with_settings(NOW, method={"asking": {}})))
    config = {"find": {"size": 3}, "peeking": {}}
    peeked, _ = ran(
        tmp_path, "two", steps_of({"find": Find(size=3), "peeking": Peeking()}, with_settings(NOW, method=config))
    )
    assert figures(peeked)["peeking/found"] == 0


class Slow(Method):
    log: str

    def run(self, study: Study) -> Generator[Result, None, None]:
        with Path(self.log).open("a") as stream:
            stream.write("called\n")
        time.sleep(1)
        yield Scalar("slow/one", 1.0)


def slow(folder: Path, id: str) -> None:
    settings = {"slow": {"log": "called"}}
    ran(folder, id, steps_of({"slow": Slow(log=str(folder / "called"))}, with_settings(NOW, method=settings)))


def test_two_that_need_one_finding_make_it_once(tmp_path: Path) -> None:
    at_once = multiprocessing.get_context("spawn")
    jobs = [at_once.Process(target=slow, args=(tmp_path, id)) for id in ("one", "two")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0]
    assert (tmp_path / "called").read_text() == "called\n"
    metrics = [json.loads((tmp_path / id / "metrics.json").read_text()) for id in ("one", "two")]
    assert metrics[0] == metrics[1] == {"slow/one": 1.0}


class Dying(Method):
    """Killed half-way, as long as the file is there."""

    needs: ClassVar = (Found,)
    while_there: str

    def run(self, study: Study) -> Generator[Result, None, None]:
        yield Scalar("dying/one", 1.0)
        if Path(self.while_there).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        yield Scalar("dying/sum", float(study[Found].vector.sum()))


def dying(folder: Path) -> tuple[list[Result], list[str]]:
    file = str(folder / "file")
    now = with_settings(NOW, method={"find": {"size": 3}, "dying": {"while_there": file}})
    return ran(folder, "one", steps_of({"find": Find(size=3), "dying": Dying(while_there=file)}, now))


def test_a_killed_run_goes_on_with_the_method_in_which_it_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = multiprocessing.get_context("spawn").Process(target=dying, args=(tmp_path,))
    job.start()
    job.join()
    assert job.exitcode == -signal.SIGKILL
    assert (tmp_path / "one" / "results.jsonl").read_text().count("\n") == 4
    (tmp_path / "file").unlink()
    reported, taken = dying(tmp_path)
    assert taken == ["self_checks one", "find one"]
    assert CALLS == []
    undisturbed, _ = dying(tmp_path / "other")
    assert figures(reported) == figures(undisturbed)


def test_what_fails_is_not_kept_and_what_went_before_is(tmp_path: Path) -> None:
    config = {"find": {"size": 3}, "asking": {}}
    steps = steps_of({"find": Find(size=3), "asking": Asking()}, with_settings(NOW, method=config))
    with pytest.raises(InputError, match="asks the judge"):
        ran(tmp_path, "one", steps)
    assert {path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir()} == {step.key for step in steps[:2]}


def prune(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rcm.record", "prune", str(folder)], capture_output=True, text=True, cwd=folder.parent
    )
    return done.stderr.strip()


def test_pruning_removes_what_no_run_names(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ran(runs, "one", steps_of(methods(), NOW))
    later = with_settings(NOW, method={**CONFIG["method"], "use": {"by": 5}})
    ran(runs, "two", steps_of(methods(by=5), later))
    (runs / FOLDER / "0123.partial").mkdir()
    assert "Removed 1 findings" in prune(runs)
    assert Place(runs, keys(later)["use"]).folder.exists()
    shutil.rmtree(runs / "two")
    with Place(runs, keys(later)["use"]).alone():  # a process is at it
        assert "Removed 0 findings" in prune(runs)
    assert "Removed 1 findings" in prune(runs)
    assert Place(runs, keys()["find"]).folder.exists()
    assert not Place(runs, keys(later)["use"]).folder.exists()
    (runs / "one" / "run.json").write_text("{")
    assert "cannot be read" in prune(runs)
    assert Place(runs, keys()["find"]).folder.exists()
    assert prune(tmp_path / "nowhere") == (
        f"There is no folder {tmp_path / 'nowhere'}; give the one that holds the runs, such as runs/."
    )


def test_a_key_is_of_everything_in_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
