"""Which code counts: ours that measures, and others' that the settings name with all that it takes from its own."""

import sys
from pathlib import Path

import pytest

from rcm.record import sources
from rcm.record.sources import sources_digest


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would find it."""
    monkeypatch.setattr(sources, "_own", sources._own.__wrapped__)
    monkeypatch.setattr(sources, "_of_target", sources._of_target.__wrapped__)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A house of ours with a file in each room."""
    for room in ("stats", "methods", "report", "tracking", "comparison", "running", "assets"):
        (tmp_path / "rcm" / room).mkdir(parents=True)
        (tmp_path / "rcm" / room / "file.py").write_text("1\n")
    (tmp_path / "rcm" / "errors.py").touch()
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "rcm")
    monkeypatch.setattr(sources, "ASSETS", tmp_path / "rcm" / "assets")
    return tmp_path / "rcm"


@pytest.mark.parametrize("file", ["stats/file.py", "methods/file.py", "assets/file.py", "errors.py", "methods/new.py"])
def test_what_measures_counts(house: Path, file: str) -> None:
    before = sources_digest({})
    (house / file).write_text("2\n")
    assert sources_digest({}) != before


@pytest.mark.parametrize("room", ["report", "tracking", "comparison", "running"])
def test_what_shows_does_not(house: Path, room: str) -> None:
    before = sources_digest({})
    (house / room / "file.py").write_text("2\n")
    assert sources_digest({}) == before


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A method that lies elsewhere, and what it imports."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "my_method.py": "import json\nimport numpy as np\nfrom my_lab import weights\n\nclass Mine: ...\n",
        "my_lab/__init__.py": "",
        "my_lab/weights.py": "def f():\n    from . import deeper\n    from .inner.most import x\n",
        "my_lab/deeper.py": "import rcm.methods\n",
        "my_lab/inner/__init__.py": "from ..deeper import *\n",
        "my_lab/inner/most.py": "x = 1\n",
        "my_lab/unrelated.py": "",
        "broken.py": "def (",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


MINE = {"method": {"mine": {"_target_": "my_method.Mine"}}}


def test_a_target_of_others_counts_with_what_it_imports(outside: Path) -> None:
    names = {path.relative_to(outside).as_posix() for path in sources._files("my_method.Mine")}
    assert names == {
        *("my_method.py", "my_lab/__init__.py", "my_lab/weights.py", "my_lab/deeper.py"),
        *("my_lab/inner/__init__.py", "my_lab/inner/most.py"),
    }
    assert "my_lab" not in sys.modules  # found without importing any of it


@pytest.mark.parametrize("file", ["my_method.py", "my_lab/inner/most.py", "my_lab/__init__.py"])
def test_an_edit_there_is_other_code(outside: Path, file: str) -> None:
    before = sources_digest(MINE)
    with (outside / file).open("a") as stream:
        stream.write("# other\n")
    assert sources_digest(MINE) != before


def test_an_edit_elsewhere_is_not(outside: Path) -> None:
    before = sources_digest(MINE)
    (outside / "my_lab" / "unrelated.py").write_text("x = 1\n")
    assert sources_digest(MINE) == before
    assert sources_digest({}) != before


@pytest.mark.parametrize("target", ["nowhere.Such", "", "broken.X", "json.JSONEncoder", "numpy.linalg.norm"])
def test_what_cannot_be_found_or_read_is_left_to_who_loads_it(outside: Path, target: str) -> None:
    assert len(sources_digest({"_target_": target})) == 16


def test_of_an_installed_package_its_own_files_count() -> None:
    found = list(sources._files("hydra.utils.instantiate"))
    assert found
    assert all("hydra" in path.parts for path in found)


def test_a_target_in_folders_without_init_counts_before_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "outer_of_mine" / "inner" / "mine.py"
    file.parent.mkdir(parents=True)
    found = []
    for text in ("class Method: size = 1\n", "class Method: size = 2\n"):
        file.write_text(text)
        found.append(sources_digest({"_target_": "outer_of_mine.inner.mine.Method"}, now=True))
    assert found[0] != found[1]
