"""The README's Python, executed as it stands, block by block in one process."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_three_examples_of_the_readme_run_as_they_stand() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    said = []
    for block in blocks:
        assert len(block.strip().splitlines()) <= 6  # five, and an empty one after the import
        with redirect_stdout(StringIO()) as out:
            exec(block, names)  # the file is ours
        said.append(out.getvalue())
    extracted, found, steered = said
    assert re.match(r"separation: [\d.]+ σ \(95 %: .* · null .* · n = 16 prompts\)", extracted.replace("\u00a0", " "))
    assert "Layer(layer=" in found
    assert "Head(layer=" in found
    assert "force, strength 2: 1 of 1 prompts" in steered
    assert "suppress: 1 of 1 prompts" in steered
    assert "[redacted]" in steered
