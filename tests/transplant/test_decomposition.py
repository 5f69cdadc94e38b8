"""In a model whose refusing we planted, the parts of its direction do what was planted."""

import numpy as np
import pytest
import torch

from rcm.directions.fit import shuffled_controls, unit
from rcm.execution.interventions import Ablate, Add
from rcm.execution.passes import last_logits, read_residuals
from rcm.models import LoadedModel
from rcm.prompts import texts
from rcm.stats.metrics import refusal_log_odds
from rcm.transplant.decomposition import CONTROLS, Place, decomposed
from tests.planted import REFUSAL_AXIS, UNUSED_AXIS, WIDTH, planted_model, planted_prompts

LAYER = 3
PROMPTS = planted_prompts()
AXES = np.eye(WIDTH)


def place_of(model: LoadedModel) -> Place:
    sides = (read_residuals(model, texts(side), [-1], "").at(0, LAYER) for side in PROMPTS.train)
    return Place(LAYER, *sides, tuple(model.template.tokenizer("R")["input_ids"][:1]))


def on_two_axes() -> LoadedModel:
    """Harmful prompts move along two axes alike, and refusing is read from both."""
    model = planted_model()
    refuse = model.template.tokenizer("R")["input_ids"][0]
    with torch.no_grad():
        model.hf.model.layers[LAYER - 1].self_attn.o_proj.weight[UNUSED_AXIS, 0] = 6.0
        unembedding = model.hf.get_output_embeddings().weight
        unembedding[refuse, [REFUSAL_AXIS, UNUSED_AXIS]] = 2.5
    return model


@pytest.mark.parametrize(
    ("model", "other", "share"),
    [
        (planted_model, AXES[REFUSAL_AXIS], 1.0),  # the other found the same direction
        (planted_model, AXES[UNUSED_AXIS], 0.0),  # another
        # Another, close to the own one only in what does nothing here.
        (on_two_axes, AXES[REFUSAL_AXIS], 0.5),
    ],
)
def test_planted_shares_are_found(model, other, share: float) -> None:
    model = model()
    found = decomposed(model, place_of(model), other, PROMPTS.test, draws=19, seed=0)
    for operation in ("ablate", "add"):
        one = found.shares[operation]
        assert one.own.low > 1
        assert one.along.value == pytest.approx(share, abs=0.12), operation
        assert one.draws == 19
    rows = list(found.rows("base", "abc"))
    assert [row[2] for row in rows] == ["ablate", "add"]
    assert found.refit_cosine > 0.9


def test_effects_are_those_of_single_interventions() -> None:
    """The slow way: one pass for each condition, by hand."""
    model = on_two_axes()
    place, other = place_of(model), AXES[REFUSAL_AXIS]
    found = decomposed(model, place, other, PROMPTS.test, draws=3, seed=0)
    along = place.own @ other * other
    parts = {"along": along, "across": place.own - along, "both": place.own}
    controls = unit(shuffled_controls(place.harmful, place.harmless, CONTROLS, 0))

    def odds(side, *interventions) -> float:
        logits = last_logits(model, texts(side), list(interventions))
        return refusal_log_odds(logits, place.refusal_tokens).mean().item()

    def fall(*vectors: np.ndarray) -> float:
        removed = [Ablate(torch.from_numpy(unit(vector)).float()[None]) for vector in vectors]
        return odds(PROMPTS.test.harmful) - odds(PROMPTS.test.harmful, *removed)

    def rise(vector: np.ndarray) -> float:
        added = Add(LAYER, torch.from_numpy(vector).float()[None])
        return odds(PROMPTS.test.harmless, added) - odds(PROMPTS.test.harmless)

    def plane(first: np.ndarray, second: np.ndarray) -> float:
        return fall(first, second - (second @ unit(first)) * unit(first))

    single = np.mean([fall(one) for one in controls])
    double = np.mean([plane(*two) for two in zip(controls, np.roll(controls, 1, axis=0), strict=True)])
    falls = {
        "along": fall(parts["along"]) - single,
        "across": fall(parts["across"]) - single,
        "both": plane(parts["along"], parts["across"]) - double,
    }
    rises = {
        name: rise(part) - np.mean([rise(one * np.linalg.norm(part)) for one in controls])
        for name, part in parts.items()
    }
    for operation, by_hand in (("ablate", falls), ("add", rises)):
        share = (by_hand["along"] + by_hand["both"] - by_hand["across"]) / 2 / by_hand["both"]
        assert found.shares[operation].along.value == pytest.approx(share, rel=1e-3)
        assert found.shares[operation].own.value == pytest.approx(by_hand["both"], rel=1e-3)
    assert found.shares["add"].other == pytest.approx(
        rise(other * np.linalg.norm(place.own)) - np.mean([rise(one * np.linalg.norm(place.own)) for one in controls]),
        rel=1e-3,
    )


def test_a_direction_of_a_model_that_cannot_tell_has_no_share() -> None:
    model = planted_model()
    with torch.no_grad():
        model.hf.model.layers[LAYER - 1].self_attn.v_proj.weight[0] = 0  # nothing reads the trigger
    found = decomposed(model, place_of(model), AXES[REFUSAL_AXIS], PROMPTS.test, draws=3, seed=0)
    for one in found.shares.values():
        assert not one.own.low > 1
