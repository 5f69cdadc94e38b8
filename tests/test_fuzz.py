"""Whatever people keep in their files: it runs, or it is refused in one sentence. No traceback, and no hanging.

A hundred generated inputs of each kind here, the same every time; `--hypothesis-profile=thousand` draws a thousand.
"""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from omegaconf import OmegaConf
from peft import LoraConfig, get_peft_model

from rcm import launch
from rcm.errors import InputError
from rcm.models.adapter import check_adapter, merged
from rcm.models.hub import Folder
from rcm.packaged import CONF
from rcm.prompts import Benchmark, Split
from rcm.prompts.file import File
from rcm.prompts.pairs import OWN, Pairs
from rcm.report import write as report
from rcm.running.chosen import chosen_settings
from rcm.running.overrides import sentence
from tests.conftest import UNSET, save, tiny_model
from tests.report.samples import a_run, store
from tests.stubs import one_of_each

SENTENCE = re.compile(r"\A[^\n]{10,3000}\Z")
LINES = re.compile(r"\A[^\n]{10,3000}(\n  [^\n]+)*\Z")  # of several settings that cannot work, one line each
ODD = (
    "",
    " ",
    "\n",
    "\r\n",
    '"',
    "'",
    ",",
    ";",
    "\t",
    "\ufeff",
    "\x00",
    "\ud800",
    "é",
    "мир",
    "あ",
    "null",
    "NaN",
    "1e999",
    "{",
    "]",
)
texts = st.one_of(st.text(max_size=20), st.sampled_from(ODD), st.text(alphabet='abc ,;"\n\t', max_size=30))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**12), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def told(action: Callable[[], object], pattern: re.Pattern[str] = SENTENCE) -> str | None:
    """The sentence in which it is refused; None where it is taken. Anything else that is raised passes through."""
    refused = None
    try:
        action()
    except InputError as error:
        refused = str(error)
    assert refused is None or pattern.match(refused), refused
    return refused


def mangled(data: DataObject, content: bytes) -> bytes:
    """A file with a few pieces cut out, doubled, or put in."""
    for _ in range(data.draw(st.integers(1, 3))):
        a, b = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        put = data.draw(st.sampled_from(["", "copy", "piece"]))
        piece = content[a:b] if put == "copy" else data.draw(texts).encode("utf-8", "surrogatepass") if put else b""
        content = content[:a] + piece + content[b if put != "copy" else a :]
    return content


def with_other_fields(data: DataObject, fields: dict[str, Any]) -> dict[str, Any]:
    """Some fields left away, some with another value, some new."""
    changed = deepcopy(fields)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.one_of(st.sampled_from(sorted(fields)), texts))
        if data.draw(st.booleans()):
            changed[key] = data.draw(values)
        else:
            changed.pop(key, None)
    return changed


def a_split(size: int = 3) -> dict[str, Any]:
    part = {
        "harmful": [f"How is harm {i} done?" for i in range(size)],
        "harmless": [f"How is {i} done?" for i in range(size)],
    }
    return {"train": part, "validation": part, "test": part}


@fuzzed
@given(data=st.data())
def test_files_of_prompts(data: DataObject, tmp_path: Path) -> None:
    path, content = tmp_path / "prompts.json", a_split()
    shape = data.draw(st.sampled_from(["fields", "part", "bytes", "anything"]))
    if shape == "part":
        content["train"] = with_other_fields(data, content["train"])
    if shape == "fields":
        content = with_other_fields(data, content)
    written = json.dumps(data.draw(values) if shape == "anything" else content).encode()
    path.write_bytes(mangled(data, written) if shape == "bytes" else written)
    taken = File(template="chat", path=str(path))
    if told(taken.load) is None:
        loaded = taken.load()
        for part in (loaded.train, loaded.validation, loaded.test):
            assert all(prompt.text.strip() for side in part for prompt in side)


@pytest.fixture(scope="module")
def pairs() -> Split:
    """The packaged pairs, which each table is put beside."""
    return Pairs(template="chat", seed=0, **OWN, train=None, validation=None, test=None).load()


@fuzzed
@given(data=st.data())
def test_tables_of_prompts(data: DataObject, tmp_path: Path, pairs: Split) -> None:
    """What is taken is what a careful reader finds in the file: no prompt is half of one."""
    prompts = data.draw(
        st.lists(st.text(alphabet='abc ,;"\né', min_size=1, max_size=20).map(str.strip), min_size=8, max_size=12)
    )
    kind = data.draw(st.sampled_from(["csv", "jsonl", "json", "txt"]))
    path = tmp_path / f"prompts.{kind}"
    if kind == "csv":
        buffer = io.StringIO()
        delimiter = data.draw(st.sampled_from(",;\t"))
        writer = csv.writer(
            buffer, delimiter=delimiter, quoting=data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        )
        writer.writerows([["prompt", "category"], *([prompt, "any"] for prompt in prompts)])
        written = (data.draw(st.sampled_from(["", "\ufeff"])) + buffer.getvalue()).encode()
    elif kind == "jsonl":
        written = "\n".join(
            json.dumps({"prompt": prompt}, ensure_ascii=data.draw(st.booleans())) for prompt in prompts
        ).encode()
    elif kind == "json":
        written = json.dumps([{"prompt": prompt} for prompt in prompts]).encode()
    else:
        written = "\n".join(prompts).encode()
    whole = data.draw(st.booleans())
    path.write_bytes(written if whole else mangled(data, written))
    taken = Benchmark(
        template="chat",
        path=str(path),
        prompt="prompt",
        category=None,
        where={},
        harmless="pairs",
        train_from="self",
        train=None,
        validation=None,
        test=None,
        seed=0,
    )
    loaded = None

    def load() -> None:
        nonlocal loaded
        with mock.patch.object(Benchmark, "_own_pairs", return_value=pairs):
            loaded = taken.load()

    if told(load) is None and whole and kind != "txt":
        found = {prompt.text for part in (loaded.train, loaded.validation, loaded.test) for prompt in part.harmful}
        assert found <= set(prompts)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    made = get_peft_model(tiny_model().hf, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"))
    made.save_pretrained(folder)
    return folder


@fuzzed
@given(data=st.data())
def test_adapters(data: DataObject, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "adapter_config.json"
    fields = json.loads((adapter / file.name).read_text(encoding="utf-8"))
    if data.draw(st.booleans()):
        file.write_text(json.dumps(with_other_fields(data, fields)), encoding="utf-8")
    else:
        name = data.draw(st.sampled_from([file.name, "adapter_model.safetensors"]))
        (tmp_path / name).write_bytes(mangled(data, (adapter / name).read_bytes()))
    base = tiny_model().hf
    if told(lambda: check_adapter(tmp_path, base.config, "the base")) is None:
        told(lambda: merged(base, tmp_path))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model(), tmp_path_factory.mktemp("checkpoint"))


def a_folder(path: Path) -> Folder:
    return Folder(path=str(path), dtype="float32", **UNSET)


@fuzzed
@given(data=st.data())
def test_checkpoints(data: DataObject, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["config.json", "config.json", "tokenizer_config.json", "tokenizer.json"]))
    content = (checkpoint / name).read_bytes()
    if name != "tokenizer.json" and data.draw(st.booleans()):
        (tmp_path / name).write_text(json.dumps(with_other_fields(data, json.loads(content))), encoding="utf-8")
    else:
        (tmp_path / name).write_bytes(mangled(data, content))
    model = a_folder(tmp_path)
    if told(lambda: model.check(["How do I bake bread?"], "chat")) is None:
        told(model.weights)


def _settings(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {path: node}
    return {
        key: value for name, part in node.items() for key, value in _settings(part, f"{path}.{name}".strip(".")).items()
    }


@pytest.fixture(scope="module")
def known() -> list[str]:
    """Every setting of the main job."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["method=map", "model=random"])
    return sorted(
        {*_settings(OmegaConf.to_container(cfg, resolve=False)), "model", "dataset", "method", "judge", "device"}
    )


@fuzzed
@given(data=st.data())
def test_overrides(data: DataObject, known: list[str]) -> None:
    """As `launch.py` takes them: composed by Hydra, whose refusals become sentences, then checked by us."""
    odd_keys = st.one_of(texts, st.sampled_from(known).map(lambda key: key[:-1]))
    keys = st.one_of(st.sampled_from(known), st.sampled_from(known), odd_keys)
    signs = st.sampled_from(["", "", "", "+", "++", "~"])
    told_values = st.one_of(
        values.map(lambda value: json.dumps(value)), texts, st.sampled_from(["null", "[a,b]", "1,2", "${x}"])
    )
    written = st.tuples(signs, keys, st.sampled_from(["=", "=", "=", ""]), told_values).map("".join)
    given_overrides = ["model=random", "method=map", *data.draw(st.lists(written, min_size=1, max_size=2))]

    def taken() -> None:
        if unnamed := launch.nameless(given_overrides):
            raise InputError(unnamed)
        try:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose("config", overrides=given_overrides)
        except (CompactHydraException, ValueError) as error:
            if not isinstance(error, CompactHydraException) and not str(error).startswith(launch.HYDRAS):
                raise InputError(launch.uncomposed(error)) from error
            raise InputError(sentence(error)) from error
        except Exception as error:
            raise InputError(launch.uncomposed(error)) from error
        chosen_settings(cfg)

    told(taken, LINES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs of everything that a method can yield."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("base", "safety"):
        store(a_run(folder, f"model-{stage}", stage), one_of_each())
    return folder


@fuzzed
@given(data=st.data())
def test_run_folders(data: DataObject, runs: Path, tmp_path: Path) -> None:
    """A run that cannot be read is told; the page is made of the rest."""
    shutil.copytree(runs, tmp_path / "runs", dirs_exist_ok=True)
    files = sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    whole = file.read_bytes()
    if file.suffix == ".json" and data.draw(st.booleans()):
        file.write_text(json.dumps(with_other_fields(data, json.loads(whole))), encoding="utf-8")
    elif data.draw(st.booleans()):
        file.unlink()
    else:
        file.write_bytes(mangled(data, whole))
    told(lambda: report(tmp_path / "runs", tmp_path / "page"))
