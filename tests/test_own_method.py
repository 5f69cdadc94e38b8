"""The documents' example of a method, executed as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rcm.record.stored import stored_runs

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_method_of_the_documents_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8").partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "yaml", "bash"]
    for _, text in blocks[:2]:
        (place,) = re.findall(r"^# (my_\S+)$", text, flags=re.MULTILINE)
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    for part in ("launch.py", "conf", "rcm"):
        (tmp_path / part).symlink_to(ROOT / part)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", blocks[2][1]], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = stored_runs(tmp_path / "runs")
    assert run.methods == ("behaviour", "entropy")
    assert run.config["method"]["entropy"]["temperature"] == 0.7
    for kind in ("harmful", "harmless"):
        assert 0 < run.metrics[f"entropy/{kind}"] < 10
        shown = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
        assert f"entropy on {kind} prompts" in shown
