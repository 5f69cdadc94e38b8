"""Some layers at a time: the same figures, and never more in memory than is set aside."""

from typing import Any

import numpy as np
import pytest

from rcm.directions import streams as streams_of
from rcm.directions.refusal_tokens import refusal_openings
from rcm.directions.streams import Streams
from rcm.execution.passes import Residuals, last_logits, mean_probabilities, read_residuals
from rcm.prompts import Part, Prompt, texts
from rcm.record.results import Scalar, Table, Tensors
from rcm.stats.metrics import refusal_log_odds
from tests.planted import method, planted_model, planted_prompts, reported

SIDE = tuple(Prompt(f"Count to {n}", "") for n in range(6))
PARTS = {"training": Part(SIDE, SIDE[:4]), "test": Part(SIDE[:2], SIDE[:2])}
A_LAYER = 10 * 2 * 32 * 4  # bytes: training prompts, positions, width of the planted model, float32


def streams(monkeypatch: pytest.MonkeyPatch, held: int) -> tuple[Streams, list[Residuals]]:
    monkeypatch.setattr(streams_of, "HELD", held)
    monkeypatch.setattr(streams_of, "WHOLE", held)
    made: list[Residuals] = []

    def noted(*given: Any) -> Residuals:
        made.append(read_residuals(*given))
        return made[-1]

    monkeypatch.setattr(streams_of, "read_residuals", noted)
    return Streams(planted_model(), PARTS, [-2, -1], "test"), made


def test_as_many_layers_as_fit_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    some, _ = streams(monkeypatch, 4 * A_LAYER)
    assert (some.shape, some.of_layer("training"), some.of_layer("test")) == ((2, 6, 32), A_LAYER, 4 * A_LAYER // 10)
    assert not some.whole
    assert list(some.layers()) == [range(4), range(4, 6)]
    assert list(streams(monkeypatch, 1)[0].layers()) == [range(layer, layer + 1) for layer in range(6)]
    assert list(streams(monkeypatch, 2**30)[0].layers()) == [range(6)]


def test_never_more_than_one_part_of_some_layers_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    some, made = streams(monkeypatch, 2 * A_LAYER)
    for layers in some.layers():
        for part in ("training", "training", "test"):
            some.read(part, layers)
            held = sum(side.residuals.nbytes for one in some._held.values() for side in one)
            assert held <= 2 * A_LAYER
            assert list(some._held) == [part]
    assert len(made) == 3 * 2 * 2  # three times two layers of two parts, both sides of each once
    assert max(one.residuals.shape[2] for one in made) == 2


def test_what_fits_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    some, made = streams(monkeypatch, 6 * A_LAYER * 14 // 10)
    assert some.whole
    for _ in range(3):
        for part in PARTS:
            some.at(part, 0, 3)
            some.read(part, range(2, 5))
    assert len(made) == 4


@pytest.mark.parametrize("logits", [0, 2**30], ids=["read once more", "kept"])
@pytest.mark.parametrize("held", [A_LAYER, 2**30], ids=["some layers at a time", "whole"])
@pytest.mark.parametrize("known", [[], [7, 5]], ids=["none known", "two known"])
def test_what_opens_replies_is_that_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, known: list[int], held: int, logits: int
) -> None:
    for name, most in {"HELD": held, "WHOLE": held, "LOGITS": logits}.items():
        monkeypatch.setattr(streams_of, name, most)
    model, prompts = planted_model(), planted_prompts()
    some = Streams(model, {"training": prompts.train, "test": prompts.test}, [-2, -1], "test", known)
    for layers in some.layers():
        for part in ("training", "test"):
            some.read(part, layers)
    harmful, harmless = some.first_tokens["training"]
    openings = refusal_openings(harmful.these.mean(0), harmless.these.mean(0), harmful.tokens)
    slowly = refusal_openings(*(mean_probabilities(model, texts(side), "test") for side in prompts.train))
    planted = model.template.tokenizer("R")["input_ids"]
    assert [one.token for one in openings] == [one.token for one in slowly] == planted
    assert np.allclose(openings, slowly, rtol=1e-5)
    tokens = known or [one.token for one in openings]
    for part, sides in {"training": prompts.train, "test": prompts.test}.items():
        for found, side in zip(some.first_tokens[part], sides, strict=True):
            wanted = refusal_log_odds(last_logits(model, texts(side)), tuple(tokens))
            assert np.allclose(found.log_odds(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_a_place_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = streams(monkeypatch, 2**30)
    wanted = [whole.at(part, row, layer) for part in PARTS for row in range(2) for layer in range(6)]
    few, _ = streams(monkeypatch, A_LAYER)
    got = [few.at(part, row, layer) for part in PARTS for row in range(2) for layer in range(6)]
    for one, other in zip(wanted, got, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def is_float(value: Any) -> bool:
    return isinstance(value, float)


@pytest.mark.parametrize("held", [1, 3 * 2**10])
def test_the_method_finds_the_same_a_layer_at_a_time(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    whole = reported(method("direction"), planted_model(), planted_prompts())
    monkeypatch.setattr(streams_of, "HELD", held)
    monkeypatch.setattr(streams_of, "WHOLE", held)
    streamed = reported(method("direction"), planted_model(), planted_prompts())
    assert list(streamed) == list(whole)
    for name, one in whole.items():
        other = streamed[name]
        match one:
            case Scalar():
                assert other.value == pytest.approx(one.value, rel=1e-6, nan_ok=True), name
                assert other.null == one.null or other.null.value == pytest.approx(one.null.value, rel=1e-6), name
            case Table():
                for row, same in zip(one.rows, other.rows, strict=True):
                    for value, cell in zip(row, same, strict=True):
                        assert cell == (pytest.approx(value, rel=1e-6, nan_ok=True) if is_float(value) else value), name
            case Tensors():
                assert all(
                    np.allclose(tensor, other.tensors[key], rtol=1e-6, atol=1e-6) for key, tensor in one.tensors.items()
                )
            case _:
                pass
