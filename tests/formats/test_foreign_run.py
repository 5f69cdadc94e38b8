"""A run folder from another machine: what agrees with itself holds, and what was tampered with is found."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rcm.errors import InputError
from rcm.formats.__main__ import main
from rcm.formats.foreign_run import Check, verified
from rcm.record.identity import settings_digest
from tests.conftest import tiny_model
from tests.formats.runs import behaviour, direction_results, stored

ROWS = [*[("harmful", "No.", "refusal")] * 3, ("harmful", "Yes.", "compliance"), ("harmless", "Yes.", "compliance")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = stored(tmp_path / "run", [*behaviour(ROWS), *direction_results(tiny_model(), layer=1)])
    changed(folder / "run.json", lambda told: signed(told, {}))
    return folder


def signed(told: dict, config: dict) -> None:
    """With the digest that its settings have."""
    told["config"] |= config
    told["digest"] = settings_digest(told["config"])
    told["id"] = told["digest"][:8]


def changed(path: Path, change: Callable[[dict], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def line_changed(run: Path, name: str, change: Callable[[dict], object]) -> None:
    """A line of results.jsonl."""
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line in lines:
        if line["name"] == name:
            change(line)
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def standings(run: Path) -> dict[str, str]:
    return {check.what: check.standing for check in verified(run)[1]}


def failing(run: Path) -> list[Check]:
    return [check for check in verified(run)[1] if check.standing == "FAILS"]


def test_a_whole_run_holds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert standings(run) == {
        "digest of the settings": "holds",
        "files": "holds",
        "tensors direction/directions": "holds",
        "metrics": "holds",
        "rate of harmful prompts": "holds",
        "rate of harmless prompts": "holds",
    }
    assert main(["verify", str(run)]) == 0
    assert "None of 6 checks fails." in capsys.readouterr().out


def test_a_changed_rate_is_found_in_the_transcripts_and_in_the_metrics(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line_changed(run, "behaviour/refusal_rate_harmful", lambda line: line.update(value=1.0))
    assert [check.what for check in failing(run)] == ["metrics", "rate of harmful prompts"]
    changed(run / "metrics.json", lambda told: told.update({"behaviour/refusal_rate_harmful": 1.0}))
    (check,) = failing(run)
    assert check.because == "3 of 4 transcripts refuse; told is 1.0000 of 4"
    assert main(["verify", str(run)]) == 1
    assert "1 of 6 checks fail" in capsys.readouterr().out


def test_changed_settings_are_found(run: Path) -> None:
    changed(run / "run.json", lambda told: told["config"]["model"].update(name="another"))
    assert [check.what for check in failing(run)] == ["digest of the settings"]
    changed(run / "run.json", lambda told: told.update(id="00000000"))
    assert "is not the beginning of the digest" in failing(run)[0].because


@pytest.mark.parametrize("adapter", ["/etc/passwd", "packaged:../../../../etc/passwd", "runs/other"])
def test_no_path_in_the_settings_is_followed(adapter: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(run / "run.json", lambda told: told["config"]["model"].update(adapter=adapter))

    def opened(path: Path) -> str:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("rcm.record.identity.content_digest", opened)
    assert standings(run)["digest of the settings"] == "not checked"


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "gone.safetensors"])
def test_a_file_that_lies_elsewhere_or_nowhere_is_told_and_not_read(name: str, run: Path) -> None:
    (run.parent / "secret.safetensors").write_bytes(b"secret")
    line_changed(run, "direction/directions", lambda line: line.update(files=[name]))
    (check,) = failing(run)
    assert check.what == "files"
    assert name in check.because
    assert "tensors direction/directions" not in standings(run)


def test_a_link_is_not_followed(run: Path) -> None:
    file = run / "direction_directions.safetensors"
    file.rename(run.parent / "elsewhere.safetensors")
    file.symlink_to(run.parent / "elsewhere.safetensors")
    assert [check.what for check in failing(run)] == ["files"]
    (run / "results.jsonl").rename(run.parent / "results.jsonl")
    (run / "results.jsonl").symlink_to(run.parent / "results.jsonl")
    with pytest.raises(InputError, match="is a link or no plain file"):
        verified(run)


def test_other_tensors_than_told_are_found(run: Path) -> None:
    save_file({"mean_difference": torch.zeros(2, 2)}, run / "direction_directions.safetensors")
    assert [check.what for check in failing(run)] == ["tensors direction/directions"]
    (run / "direction_directions.safetensors").write_bytes(b"\x80\x04 a pickle")
    assert "is no safetensors file" in failing(run)[0].because


def test_a_file_too_large_to_read_is_not_read(run: Path) -> None:
    with (run / "metrics.json").open("r+b") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(InputError, match="more than any run writes"):
        verified(run)


@pytest.mark.parametrize("content", ["{}\n", "[1]\n", '{"kind": "scalar"}\n', "nonsense\n"])
def test_what_holds_no_results_is_told_in_one_sentence(content: str, run: Path, sentence: Callable[..., str]) -> None:
    (run / "results.jsonl").write_text(content)
    assert "holds no results of rcm" in sentence(lambda: verified(run))
