"""Files that were cut, changed, emptied or replaced: told in one sentence, or made again; never taken for whole."""

import pickle
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rcm.models.adapter import check_adapter, merged, trained_on
from rcm.models.gguf import Gguf
from rcm.prompts.file import File
from rcm.record.findings import FINDING, FOLDER, Place
from rcm.record.identity import content_digest
from rcm.record.results import Tensors
from rcm.record.stored import readable_runs, stored_run
from rcm.report import write as report
from tests.conftest import UNSET, tiny_model
from tests.faults.homes import a_home, check_whole, noting, what_runs_say
from tests.faults.methods import Found, calls
from tests.faults.processes import ended, launch
from tests.models.test_models import write_gguf
from tests.report.samples import a_run, store
from tests.stubs import one_of_each
from tests.test_fuzz import adapter, told  # noqa: F401 (a fixture)

Damage = Callable[[Path], object]


def flipped(file: Path, place: float = 0.5) -> None:
    """One bit of it."""
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    file.write_bytes(content)


def in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Damage] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "gone": lambda file: file.unlink(),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "pickle": lambda file: file.write_bytes(pickle.dumps({"finding": [1.0]})),
    "text": lambda file: file.write_text("no JSON"),
    "folder": in_its_place,
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finding that is kept whole."""
    folder = tmp_path_factory.mktemp("kept")
    tensors = Tensors("find/vector", {"vector": torch.arange(6.0)}, {"of": "it"})
    run = store(a_run(folder, "one", "base"), [tensors])
    place = Place(folder, "0123456789abcdef")
    with place.writing() as writer:
        writer.add(tensors, run.directory)
        writer.finish(Found(torch.ones(3), 0.25, ("a", "b")), Found, {"it": 1}, "one", 1.0)
    assert place.read(Found) is not None
    return place


def copy_of(place: Place, folder: Path) -> Place:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.folder, folder / FOLDER / place.key)
    return Place(folder, place.key)


def test_no_file_of_a_kept_finding_may_be_another(
    kept: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(path.name for path in kept.folder.iterdir())
    assert names == ["find_vector.safetensors", FINDING, "finding.safetensors", "results.jsonl"]
    for name in names:
        for damage in DAMAGES.values():
            place = copy_of(kept, tmp_path / "copy")
            damage(place.folder / name)
            caplog.clear()
            assert place.read(Found) is None
            assert f"What is kept in {place.folder} counts for nothing" in caplog.text


def test_no_bit_of_a_kept_finding_may_be_another(kept: Place, tmp_path: Path) -> None:
    """Not even where the file is still one: a figure of finding.json, or a number among the tensors."""
    draw = random.Random(5)
    place = copy_of(kept, tmp_path / "copy")
    for name in sorted(path.name for path in kept.folder.iterdir()):
        whole = (kept.folder / name).read_bytes()
        for _ in range(60):
            flipped(place.folder / name, draw.random())
            assert place.read(Found) is None, name
            (place.folder / name).write_bytes(whole)
    assert place.read(Found) is not None


def test_a_run_makes_damaged_findings_again_and_says_so(tmp_path: Path) -> None:
    home = a_home(tmp_path)
    assert ended(home, launch("seed=0"), environment=noting(home)).code == 0
    before = what_runs_say(home)
    folders = [path.parent for path in (home / "runs" / FOLDER).glob("*/finding.json")]
    assert len(folders) == 4  # of the checks of the model, and of three methods
    for folder, damage in zip(folders, ("cut", "zeros", "pickle", "gone"), strict=True):
        DAMAGES[damage](folder / FINDING)
    done = ended(home, launch("seed=0", "rerun=true"), environment=noting(home))
    assert (done.code, done.said.count("counts for nothing")) == (0, 4)
    assert calls(tmp_path / "calls") == ["find 0", "show 0", "use 0"] * 2
    assert what_runs_say(home) == before
    check_whole(home)


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "results.jsonl", "show_streams.safetensors"])
def test_a_damaged_run_is_run_anew_or_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    home = a_home(tmp_path)
    assert ended(home, launch("seed=0"), environment=noting(home)).code == 0
    before = what_runs_say(home)
    (run,) = check_whole(home)
    for damage in ("empty", "folder"):
        DAMAGES[damage](run.directory / name)
        done = ended(home, launch("seed=0", "rerun=true"), environment=noting(home))
        if done.code == 1:
            assert str(run.directory / name) in done.sentence
            shutil.rmtree(run.directory / name)
            done = ended(home, launch("seed=0", "rerun=true"), environment=noting(home))
        assert done.code == 0, done.said
        assert what_runs_say(home) == before


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of everything that a method can yield."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("base", "safety"):
        store(a_run(folder, f"model-{stage}", stage), one_of_each())
    return folder


def read_whole(directory: Path) -> None:
    """Everything that a run reported, as a later one would read it."""
    run = stored_run(directory)
    run.results()
    for name, (kind, _) in run.files().items():
        run.tensors(name) if kind == "tensors" else run.adapter(name)


def test_two_hundred_damages_of_a_run_are_one_sentence_each_or_none(runs: Path, tmp_path: Path) -> None:
    """The run beside it is read in any case. None: a bit of a figure or a tensor, which only a digest would tell."""
    draw, refused = random.Random(200), 0
    shutil.copytree(runs, tmp_path / "runs")
    good, bad = sorted((tmp_path / "runs").iterdir())
    files = sorted(path for path in bad.rglob("*") if path.is_file())
    for _ in range(200):
        file = draw.choice(files)
        whole = file.read_bytes()
        if draw.random() < 0.5:
            flipped(file, draw.random())
        else:
            file.write_bytes(whole[: int(draw.random() * len(whole))])
        refused += told(lambda: read_whole(bad)) is not None
        readable, unreadable = readable_runs(tmp_path / "runs")
        assert good in {run.directory for run in readable}
        assert len(readable) + len(unreadable) == 2
        read_whole(good)
        file.write_bytes(whole)
    assert 40 < refused < 200
    read_whole(bad)


def test_the_report_shows_the_others_and_names_each_that_is_damaged(runs: Path, tmp_path: Path) -> None:
    good, bad = sorted(runs.iterdir())
    shutil.copytree(good, tmp_path / "runs" / good.name)
    for name in ("run.json", "metrics.json", "results.jsonl"):
        for kind, damage in DAMAGES.items():
            copy = tmp_path / "runs" / f"{name.split('.')[0]}-{kind}"
            shutil.copytree(bad, copy)
            damage(copy / name)
    page, twin = report(tmp_path / "runs", tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    assert twin.stat().st_size > 3000
    for folder in (tmp_path / "runs").iterdir():
        no_run = folder.name in ("run-gone", "run-folder")  # it is no run's folder any more
        unfinished = folder.name == "metrics-gone"
        if not no_run and not unfinished:
            refused = f"{folder}/results.jsonl cannot be read" in text or f"{folder} cannot be read" in text
            assert refused == (folder.name != good.name), folder.name
    assert page.stat().st_size > 10_000


Sentence = Callable[[Callable[[], object]], str]


def test_a_damaged_adapter(adapter: Path, tmp_path: Path, sentence: Sentence) -> None:  # noqa: F811
    """What can be told is told. Numbers that merely changed cannot be: peft's files have no digest; the run's id, which
    has the adapter's content in it, is another."""
    base = tiny_model().hf

    def damaged(damage: Damage, name: str = "adapter_model.safetensors") -> Path:
        shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
        shutil.copytree(adapter, tmp_path / "adapter")
        damage(tmp_path / "adapter" / name)
        return tmp_path / "adapter"

    for damage in ("cut", "empty", "zeros", "pickle", "text"):
        found = damaged(DAMAGES[damage])
        assert "is damaged" in sentence(partial(check_adapter, found, base.config, "the base"))

    def with_nan(file: Path) -> None:
        tensors = load_file(file)
        tensors[next(iter(tensors))][0, 0] = float("nan")
        save_file(tensors, file, {"format": "pt"})

    found = damaged(with_nan)
    check_adapter(found, base.config, "the base")
    assert "infinite or not a number" in sentence(lambda: merged(tiny_model().hf, found))

    def with_card(text: str) -> Callable[[Path], None]:
        return lambda file: (file.parent / "card.json").write_text(text) and None

    for text in ("{", "[]", '{"trained_on": 3}', ""):
        found = damaged(with_card(text))
        assert "card.json is damaged" in sentence(partial(check_adapter, found, base.config, "the base"))
    assert trained_on(damaged(with_card('{"trained_on": ["a"]}'))) == {"a"}

    found = damaged(lambda file: flipped(file, 0.9))
    check_adapter(found, base.config, "the base")
    assert content_digest(found) != content_digest(adapter)


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gguf:
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf")
    model = Gguf(path=str(tmp_path / "tiny.gguf"), dtype="float32", **UNSET)
    model.config()
    return model


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "sha256.json"])
def test_a_damaged_cache(converted: Gguf, name: str, sentence: Sentence) -> None:
    file = converted.checkpoint / name
    whole = file.read_bytes()
    for damage in ("cut", "empty", "pickle", "zeros", "flipped"):
        (DAMAGES.get(damage) or flipped)(file)
        told_so = sentence(converted.config)
        assert f"into {converted.checkpoint} is damaged" in told_so, damage
        assert told_so.endswith("delete that folder, and it is read anew.")
        file.write_bytes(whole)
    shutil.rmtree(converted.checkpoint)
    assert converted.config().vocab_size


def test_a_config_of_another_checkpoint_in_the_cache(converted: Gguf, sentence: Sentence) -> None:
    file = converted.checkpoint / "config.json"
    file.write_text(file.read_text().replace('"hidden_size"', '"hidden_size_of_old"'))
    assert "(config.json)" in sentence(converted.config)


def test_what_an_earlier_rcm_converted_is_still_taken(converted: Gguf) -> None:
    (converted.checkpoint / "sha256.json").unlink()
    assert converted.config().vocab_size


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": {}}', b"\x80\x04]", bytes(100)])
def test_a_damaged_list_of_digests_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("RCM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "large").write_bytes(bytes(2**20))
    whole = content_digest(tmp_path / "large")
    (tmp_path / "cache" / "digests.json").write_bytes(content)
    assert content_digest(tmp_path / "large") == whole


@pytest.mark.parametrize(
    ("text", "encoding", "why"),
    [
        ("How do I bake?\\u0000", "utf-8", "has a NUL at train.harmless[0]"),
        ("How do I bake?", "utf-16", "is not UTF-8 at byte 0"),
        ("Wie bäckt man?", "latin-1", "is not UTF-8 at byte"),
    ],
)
def test_damaged_prompts(tmp_path: Path, text: str, encoding: str, why: str, sentence: Sentence) -> None:
    part = '{"harmful": ["How is harm done?"], "harmless": ["' + text + '"]}'
    file = tmp_path / "prompts.json"
    file.write_text(f'{{"train": {part}, "validation": {part}, "test": {part}}}', encoding=encoding)
    assert why in sentence(File(template="chat", path=str(file)).load)
