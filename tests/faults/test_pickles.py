"""Nothing of others is unpickled, and no code of theirs is run: of rcm by its source, of a model by trial."""

import ast
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rcm.errors import InputError
from rcm.judges.models import Classifier
from rcm.models.hub import Folder
from rcm.packaged import PACKAGE
from tests.conftest import UNSET, save, tiny_model

UNPICKLERS = ("pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal")
Sentence = Callable[[Callable[[], object]], str]


def dangers(source: str) -> Iterator[str]:
    """What in this source could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in UNPICKLERS)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            yield from (one.name for one in node.names if not one.name.endswith("Error"))
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        if called in ("torch.load", "torch.jit.load") and given.get("weights_only") != "True":
            yield called
        if called.startswith(("torch.hub.", "yaml.load", "yaml.unsafe", "yaml.full")) or called in ("eval", "exec"):
            yield called
        if called.startswith("pd.read_pickle") or given.get("allow_pickle", "False") != "False":
            yield called
        if given.get("trust_remote_code", "False") != "False":
            yield f"{called} trusts"
        reads = called.startswith(("AutoConfig", "AutoModel", "AutoTokenizer")) and called.endswith(".from_pretrained")
        if reads and "gguf_file" not in given and "trust_remote_code" not in given:
            yield f"{called} does not say whether it trusts"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["load"]),
        ("from pickle import UnpicklingError", []),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("np.load(path, allow_pickle=True)", ["np.load"]),
        ("np.load(path)", []),
        ("yaml.load(text, yaml.Loader)", ["yaml.load"]),
        ("yaml.safe_load(text)", []),
        ("AutoModel.from_pretrained(x, trust_remote_code=trusted)", ["AutoModel.from_pretrained trusts"]),
        ("AutoModel.from_pretrained(x)", ["AutoModel.from_pretrained does not say whether it trusts"]),
        ("AutoModel.from_pretrained(x, trust_remote_code=False)", []),
    ],
)
def test_the_scan_finds_what_it_is_for(source: str, found: list[str]) -> None:
    assert list(dangers(source)) == found


def test_no_code_of_rcm_unpickles_or_trusts() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    found = {path.relative_to(PACKAGE).as_posix(): list(dangers(path.read_text(encoding="utf-8"))) for path in files}
    assert {name: what for name, what in found.items() if what} == {}


class Payload:
    """What creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_a_model_whose_weights_are_a_program_is_refused(tmp_path: Path, sentence: Sentence, kind: str) -> None:
    folder, mark = save(tiny_model(), tmp_path / "model"), tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    if kind == "torch":
        torch.save({"model.norm.weight": Payload(mark)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Payload(mark)))
    model = Folder(path=str(folder), dtype="float32", **UNSET)
    assert "Cannot read the model" in sentence(lambda: model.weights())
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # it would have


@pytest.fixture
def with_code(tmp_path: Path) -> Path:
    """A model that brings code, which writes a file when it is run."""
    folder = save(tiny_model(), tmp_path / "model")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    own["AutoModelForSequenceClassification"] = "own.Model"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}), encoding="utf-8")
    return folder


def test_a_model_that_brings_code_is_refused(with_code: Path, sentence: Sentence) -> None:
    model = Folder(path=str(with_code), dtype="float32", **UNSET)
    assert "Cannot read the model" in sentence(lambda: model.config())
    assert not (with_code.parent / "mark").exists()


def test_a_judge_that_brings_code_is_refused(with_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, where somebody sits at a terminal, too: there transformers would ask."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    judge = Classifier(
        kappa=None,
        second=None,
        name=str(with_code),
        revision=None,
        batch_size=1,
        text="{prompt} {completion}",
        labels={"LABEL_0": "refusal", "LABEL_1": "compliance"},
        max_tokens=8,
    )
    with pytest.raises(InputError, match=r"^judge\.name=.* cannot be loaded "):
        judge.judge(["Why?"], ["No."])
    assert not (with_code.parent / "mark").exists()
