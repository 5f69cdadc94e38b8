"""The notebook runs as it stands, on the model that it names, and shows what was seen when it was run.

`python -m tests.test_tour` runs it and writes its outputs.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


def executed() -> Any:
    """The notebook with the outputs of now."""
    os.environ.update(ENVIRONMENT)
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # when each was run
        if cell.cell_type == "code":  # without the log, which tells how long it took here
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def shown(notebook: Any) -> str:
    """All that its cells put out, as text."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    data = [one.get("data", {}) for one in outputs]
    return "\n".join([*(one.get("text", "") for one in outputs), *("\n".join(map(str, one.values())) for one in data)])


def test_it_is_committed_with_its_pictures_and_without_anybodys_paths() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = shown(notebook)
    assert text.count("<svg") >= 3
    assert text.count("svg.rcm text {") == text.count('class="rcm"') >= 3  # each with its colours
    assert "Traceback" not in text
    assert re.findall(r"/(?:home|root|tmp|work|Users)/\S*", text) == []


@pytest.mark.slow
def test_it_finds_extracts_and_steers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    text = shown(executed())
    assert text.count("<svg") >= 3
    assert re.search(r"separation: [\d.]+", text)
    assert "Layer(layer=" in text
    assert "Head(layer=" in text
    assert "1 of 1 prompts that were answered are refused" in text
    assert "1 of 1 prompts that were refused are answered" in text
    assert "[redacted]" in text
    assert "did you mean" in text
    assert "max_kl" in text


if __name__ == "__main__":
    nbformat.write(executed(), TOUR)
    sys.exit(0)
