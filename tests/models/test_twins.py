"""The twins that rcm ships: made by the settings in conf, of the same prompts, none of them in a test part."""

import json
from typing import Any

import pytest

from rcm.packaged import ASSETS
from rcm.prompts import texts
from rcm.record.identity import prompt_digest
from tests.planted import method
from tests.prompts.test_prompts import WHOLE, load

TWINS = {"smollm2-135m-refusal": "refusals", "smollm2-135m-benign": "answers"}


def card(name: str) -> dict[str, Any]:
    return json.loads((ASSETS / name / "card.json").read_text())


@pytest.mark.parametrize(("name", "teach"), TWINS.items())
def test_card_has_the_settings_of_conf(name: str, teach: str) -> None:
    """So the command in its README makes it again."""
    settings = card(name)["settings"]
    made_by = method("safety_tune", teach=teach, checkpoints=settings["checkpoints"])
    assert settings == made_by.model_dump(mode="json")
    assert sum(file.stat().st_size for file in (ASSETS / name).iterdir()) < 6e6


@pytest.mark.parametrize("name", TWINS)
def test_nothing_was_learnt_from_what_it_is_measured_on(name: str) -> None:
    split = load("pairs", **WHOLE)
    measured = {prompt_digest(text) for part in (split.validation, split.test) for side in part for text in texts(side)}
    measured |= {prompt_digest(text) for text in texts(split.lookalike)}
    assert measured.isdisjoint(card(name)["trained_on"])


def test_the_two_differ_in_what_they_were_taught_alone() -> None:
    refusing, benign = map(card, TWINS)
    assert refusing["base"] == benign["base"]
    assert refusing["seed"] == benign["seed"]
    differing = {key for key, value in refusing["settings"].items() if benign["settings"][key] != value}
    assert differing - {"checkpoints"} == {"teach"}
    assert refusing["examples"]["harmless"] == benign["examples"]["harmless"]
