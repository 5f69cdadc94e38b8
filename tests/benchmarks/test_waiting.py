"""Each way to wait has a process of its own; they pass prompts in turn, alone and beside one that is busy."""

import re
import sys

import pytest

from benchmarks import waiting


@pytest.mark.slow
def test_each_way_is_timed_alone_and_beside_a_busy_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "WAYS", {"as they come": {}, "one thread": {"OMP_NUM_THREADS": "1"}})
    monkeypatch.setattr(waiting, "PATIENCE", 0)  # the test's machine need not be quiet
    monkeypatch.setattr(sys, "argv", ["waiting", "--model", "random", "--prompts", "2", "--rounds", "1"])
    waiting.main()
    first, *ways = capsys.readouterr().out.splitlines()
    assert re.match(r"random, 2 prompts, 2 threads on \d+ CPUs, of which \d+\.\d\d \(at most", first)
    assert [line.split(" alone ")[0].strip() for line in ways] == ["as they come", "one thread"]
    assert all(re.search(r" alone +\d+\.\d\d s .* beside 1 busy +\d+\.\d\d s ", line) for line in ways)
