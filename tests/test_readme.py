"""The README's Python is that of the notebook, which tests/test_tour.py executes."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def test_the_three_examples_are_lines_of_the_notebook_in_its_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    cells = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code").splitlines()
    told = [line for block in blocks for line in block.splitlines() if line]
    assert max(len([line for line in block.splitlines() if line]) for block in blocks) <= 5
    places = [cells.index(line) for line in told]
    assert places == sorted(places)
