"""Which settings make another run, and which do not."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from rcm.record.digests import content_digest, file_digest
from rcm.record.identity import other_run, run_id
from rcm.record.provenance import provenance
from rcm.running.identity import id_of

SETTINGS: dict[str, Any] = {
    "model": {"_target_": "rcm.models.hub.Hub", "name": "gpt2", "adapter": None},
    "dataset": {"_target_": "rcm.prompts.Pairs", "path": None, "sizes": [216, 72, 72]},
    "method": {"_target_": "rcm.methods.map.Map", "top_k": 3, "strengths": [0.5, 1.0]},
    "judge": {"_target_": "rcm.judges.Prefix", "prefixes": ["sorry"]},
    "device": {"kind": "cpu", "batch_size": 32},
    "tracker": {"mode": "offline"},
    "seed": 0,
    "rerun": False,
}


def settings(**changes: Any) -> DictConfig:
    cfg = OmegaConf.create(SETTINGS)
    for place, value in changes.items():
        OmegaConf.update(cfg, place.replace("__", "."), value)
    return cfg


def test_the_id_is_pinned() -> None:
    """Another id for equal settings makes all earlier runs unfindable: that is to be decided, not to happen."""
    assert id_of(settings()) == "5cffc624"


@pytest.mark.parametrize("place", ["device__kind", "device__batch_size", "tracker__mode", "rerun"])
def test_where_and_watched_by_whom_does_not_matter(place: str) -> None:
    assert id_of(settings(**{place: "other"})) == id_of(settings())


@pytest.mark.parametrize("change", [{"seed": 1}, {"model__name": "gpt2-medium"}, {"method__strengths": [0.5, 2.0]}])
def test_what_changes_the_numbers_changes_the_id(change: dict[str, Any]) -> None:
    assert id_of(settings(**change)) != id_of(settings())


@pytest.mark.parametrize("place", ["dataset__path", "model__adapter", "method__directions_path", "dataset__harmful"])
def test_a_file_counts_by_its_content_and_not_by_its_place(tmp_path: Path, place: str) -> None:
    (tmp_path / "a").mkdir()
    here, there = tmp_path / "a" / "prompts.jsonl", tmp_path / "moved.jsonl"
    here.write_text("one\n")
    shutil.copy(here, there)
    first = id_of(settings(**{place: str(here)}))
    assert id_of(settings(**{place: str(there)})) == first
    there.write_text("two\n")
    assert id_of(settings(**{place: str(there)})) != first


def test_earlier_runs_count_if_they_have_a_direction(tmp_path: Path) -> None:
    """One more run to take from makes another run; one that has nothing to give, or is unfinished, does not."""

    def ended(name: str, metrics: str) -> str:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.json").write_text(metrics)
        return id_of(settings(method__source=str(tmp_path / "runs")))

    first = ended("0a1b2c3d", '{"direction/layer": 3}')
    assert ended("9f8e7d6c", '{"behaviour/outcome": "refusal"}') == first
    (tmp_path / "runs" / "unfinished").mkdir()
    assert id_of(settings(method__source=str(tmp_path / "runs"))) == first
    assert ended("5a5a5a5a", '{"direction/layer": 9}') != first
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "5a5a5a5a")
    assert id_of(settings(method__source=str(tmp_path / "moved"))) == first
    assert id_of(settings(method__source=str(tmp_path / "moved" / "0a1b2c3d"))) == first  # that one is all there is


def test_other_words_are_not_taken_for_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = id_of(settings())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").write_text("a file that happens to be called like the model")
    assert id_of(settings()) == before


def test_a_folder_is_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    weights = folder / "deep" / "weights"
    weights.write_bytes(bytes(3 * 2**20))
    digests = [content_digest(folder)]
    (folder / ".cache").write_text("hidden files do not count")
    assert content_digest(folder) == digests[0]
    weights.write_bytes(bytes(2**20) + b"x" + bytes(2**21 - 1))  # as long, and another in the middle
    digests.append(content_digest(folder))
    weights.rename(folder / "weights")
    digests.append(content_digest(folder))
    assert len(set(digests)) == 3


def test_a_large_file_is_read_once_for_each_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights"
    file.write_bytes(bytes(2**21))
    first = file_digest(file)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
        assert file_digest(file) == first
    times = file.stat()
    file.write_bytes(bytes(2**21 - 1) + b"x")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # an edit that hides its time
    assert file_digest(file) == hashlib.sha256(bytes(2**21 - 1) + b"x").hexdigest() != first


def test_a_cache_that_cannot_be_written_or_read_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(2**21))
    wanted = hashlib.sha256(bytes(2**21)).hexdigest()
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "no folder"))
    assert file_digest(file) == wanted
    monkeypatch.setenv("RCM_CACHE", str(tmp_path))
    for content in ("{", "[]", json.dumps({"other": 3})):
        (tmp_path / "digests.json").write_text(content)
        assert file_digest(file) == wanted


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.json").write_text("one")
    ids = [run_id({"dataset": {"path": path}}) for path in ("~/p.json", str(tmp_path / "p.json"))]
    assert ids[0] == ids[1]
    (tmp_path / "p.json").write_text("two")
    assert run_id({"dataset": {"path": "~/p.json"}}) != ids[0]


def test_a_word_that_a_paths_key_takes_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"dataset": {"harmless": "pairs", "template": "chat"}}
    before = run_id(settings)
    (tmp_path / "pairs").mkdir()
    (tmp_path / "chat").mkdir()
    assert run_id(settings) == before


def test_a_directory_says_whose_run_it_holds(tmp_path: Path) -> None:
    ours = "0a1b2c3d" + "0" * 56
    assert other_run(tmp_path, ours) is None
    same, other = {"id": "0a1b2c3d"}, {"id": "9f8e7d6c"}
    for record, found in (
        (other, "9f8e7d6c"),
        (same, None),  # as runs of before say it
        (same | {"digest": ""}, None),
        (same | {"digest": ours}, None),
        (same | {"digest": "0a1b2c3d" + "1" * 56}, "0a1b2c3d"),  # two settings whose ids happen to be one
        ([], None),
        ({"x": 1}, None),
    ):
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert other_run(tmp_path, ours) == found
    (tmp_path / "run.json").write_text("")
    assert other_run(tmp_path, ours) is None


def test_the_circumstances_are_told() -> None:
    told = provenance()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told["started"])
    assert told["packages"]["hydra-core"].startswith("1.3")
    assert told["git"] is None or re.fullmatch("[0-9a-f]{40}", told["git"]["commit"])
