"""comparison.json says what the page says, in plain values."""

import json
import logging
import math
from pathlib import Path

import pytest

from rcm.comparison import compare
from rcm.comparison.__main__ import main
from rcm.comparison.comparison_json import as_json, as_text
from tests.comparison.made import a_run, matrix, measured, twins
from tests.comparison.test_emergence import checkpoint


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    base, tuned, others = twins(tmp_path, along=1.0)
    alone = a_run(tmp_path, "base", "base", measured(0.1), seed=1)
    series = [checkpoint(tmp_path, adapter, rate, 2, family="f") for adapter, rate in ((None, 0.1), ("a/step-4", 0.9))]
    found = compare(reading.run for reading in (base, tuned, *others, alone, *series))
    told = json.loads(as_text(found))
    assert told == as_json(found)
    assert list(told) == ["schema", "runs", "tunings", "transplants", "emergence", "left_out", "warnings"]
    assert told["schema"] == 1
    assert {run["id"] for run in told["runs"]} == {reading.run.id for reading in (base, tuned, *others, alone, *series)}
    first = next(run for run in told["runs"] if run["id"] == base.run.id)
    assert first == {
        "id": base.run.id,
        "label": "base",
        "family": "smol",
        "stage": "base",
        "weights": "",
        "data": "",
        "seed": 0,
        "methods": ["behaviour", "direction"],
        "status": "finished",
    }
    (tuning,) = told["tunings"]
    assert tuning["name"] == "base → tuned"
    assert tuning["verdict"]["value"] == "coupling"
    assert tuning["verdict"]["evidence"] == list(found.tunings[0].verdict.evidence)
    (pair,) = tuning["pairs"]
    assert (pair["before"], pair["after"], pair["seed"]) == (base.run.id, tuned.run.id, 0)
    change = next(one for one in pair["changes"] if one["label"] == "harmful prompts refused")
    assert list(change) == [
        *("label", "unit", "before", "after", "difference", "interval", "p", "significant", "d", "n")
    ]
    assert change["unit"] == "share"
    assert change["difference"] == change["after"] - change["before"]
    assert change["significant"] is True
    assert pair["cosines"]["layer"] == [0, 1, 2]
    assert pair["cosines"]["cosine"] == pytest.approx([1.0] * 3)
    (transplant,) = told["transplants"]
    assert (transplant["source"], transplant["source_run"]) == ("base", base.run.id)
    assert (transplant["target"], transplant["run"], transplant["outcome"]) == ("tuned", others[0].run.id, "steers")
    assert told["emergence"] == [
        {
            "name": "smol",
            "checkpoints": [{"step": 0, "run": series[0].run.id}, {"step": 4, "run": series[1].run.id}],
            "first": {"separates": 0, "causes": 4, "refuses": 4},
        }
    ]
    assert [one["run"] for one in told["left_out"]] == [alone.run.id]
    assert told["warnings"] == [one.sentence for one in found.warnings]


def test_what_has_no_value_is_null(tmp_path: Path) -> None:
    base, tuned, _ = twins(tmp_path)
    nothing = matrix(base, "nothing", suppress=math.nan, suppress_p=math.inf)
    into = a_run(tmp_path, "tuned", "safety", [nothing], methods={"transplant": {}})
    (told,) = json.loads(as_text(compare([base.run, tuned.run, into.run])))["transplants"]
    assert (told["suppress"], told["suppress_p"]) == (None, None)


def test_the_command_prints_or_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    twins(tmp_path / "runs")
    assert main([str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["tunings"]
    out = tmp_path / "new" / "comparison.json"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert out.read_text() == printed
    assert str(out) in caplog.text


def test_what_the_user_can_mend_is_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twins(tmp_path / "runs")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    given = (["empty"], ["nowhere"], ["runs", "--out", str(tmp_path / "file" / "x.json")])
    for folder, *rest in given:
        caplog.clear()
        assert main([str(tmp_path / folder), *rest]) == 1
        (record,) = caplog.records
        assert record.getMessage().endswith(".")
