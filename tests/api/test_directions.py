"""Forcing and suppressing from Python: what a planted direction does, where nothing is steered, and what is kept."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

import rcm
import rcm.steering.runner
from rcm.api.directions import LONGEST, Direction
from rcm.api.models import Model
from rcm.judges.redaction import OPENING_WORDS
from rcm.prompts import Prompt
from rcm.record.transcripts import CUT
from tests.planted import opening_judge, planted_judge, planted_model, planted_prompts

QUICK = {"null_draws": 20, "null_directions": 2}
SAID = "one two three four five six seven eight ninth tenth eleventh"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(planted_model(layer=3), "chat")


@pytest.fixture(scope="module")
def direction(model: Model) -> Direction:
    """Found after the test of behaviour in three letters: sixteen of one letter are no language to any judge."""
    behaviour = rcm.behaviour(model, dataset=planted_prompts(), judge=planted_judge(), max_new_tokens=3)
    return rcm.direction(model, behaviour=behaviour, **QUICK)


def test_adding_forces_and_a_random_direction_does_not(direction: Direction) -> None:
    replies = direction.force(["bcd efg", "bkl mno"], strength=2.0, max_new_tokens=3)
    assert [(one.unsteered.completion, one.steered.completion) for one in replies] == [("AAA", "RRR")] * 2
    assert [(one.flipped, one.random_flipped) for one in replies] == [(True, False)] * 2
    assert "2 of 2 prompts that were answered are refused; with a random direction 0" in repr(replies)


def test_ablating_suppresses_and_a_random_direction_does_not(direction: Direction) -> None:
    (reply,) = direction.suppress("b##c##d", max_new_tokens=3)
    assert (reply.unsteered.completion, reply.steered.completion, reply.random.completion) == ("RRR", "AAA", "RRR")
    assert (reply.flipped, reply.random_flipped) == (True, False)


def test_what_was_so_to_begin_with_is_not_counted(direction: Direction) -> None:
    replies = direction.force(["b##c##d", "bcd efg"], strength=2.0, max_new_tokens=3)
    assert [one.flipped for one in replies] == [None, True]
    assert "1 of 1 prompts that were answered" in replies.summary
    (answered,) = direction.suppress("bcd efg", max_new_tokens=3)
    assert answered.flipped is None


def test_the_model_is_as_it_was_afterwards(model: Model, direction: Direction) -> None:
    before = {name: tensor.clone() for name, tensor in model.loaded.hf.state_dict().items()}
    direction.force("bcd efg", strength=2.0, max_new_tokens=2)
    direction.suppress("b##c##d", max_new_tokens=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.loaded.hf.state_dict().items())
    assert not [hook for one in model.loaded.hf.modules() for hook in (*one._forward_hooks, *one._forward_pre_hooks)]


@pytest.mark.parametrize(("said", "outcome"), [("r", None), ("never said", "no_refusal_behaviour")])
def test_only_a_model_that_refuses_is_steered(model: Model, said: str, outcome: str | None) -> None:
    """By a judge that finds no refusal in what it says it has none."""
    behaviour = rcm.behaviour(model, dataset=planted_prompts(), judge=opening_judge(said), max_new_tokens=3)
    found = rcm.direction(model, behaviour=behaviour, **QUICK)
    assert found.outcome.value == (outcome or "selected")
    assert found._behaviour is behaviour.finding
    for replies in (found.force("bcd efg", max_new_tokens=3), found.suppress("b##c##d", max_new_tokens=3)):
        assert (replies.outcome and replies.outcome.value) == outcome
        assert len(replies) == (outcome is None)
        assert ("nothing is steered" in replies._repr_html_()) == (outcome is not None)


def test_without_a_test_of_behaviour_it_is_tested_as_steering_does(model: Model) -> None:
    found = rcm.direction(model, dataset=planted_prompts(), judge=opening_judge("never said"), **QUICK)
    assert found.outcome.value == "selected"
    replies = found.force("bcd efg")
    assert (replies.outcome.name, replies.outcome.value) == ("steering/outcome", "no_refusal_behaviour")
    assert replies.outcome.because.startswith("0 of 12 harmful prompts are refused")


def test_who_judges_is_whom_one_asks_to(model: Model) -> None:
    """The direction is the same whoever judges, and is not found again; what is said of replies is not."""
    one, other = (
        rcm.direction(model, dataset=planted_prompts(), judge=opening_judge(said), **QUICK) for said in ("r", "a")
    )
    assert one.finding is other.finding
    assert (one.study.judge, other.study.judge) == (opening_judge("r"), opening_judge("a"))


def everywhere(replies: Any) -> str:
    """All that can be read of replies."""
    return "\n".join([repr(replies), replies._repr_html_(), *(repr(one) for one in replies), repr(vars(replies))])


@pytest.fixture
def talkative(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A model that says eleven words to everything, behind an `R` where it is to refuse."""
    assert direction._behaviour.refuses  # asked once, of the planted model itself

    def opening(text: str) -> None:
        def decoded(model: Any, prompts: Sequence[str], *_: Any, **__: Any) -> list[str]:
            return [f"{text}{SAID}"] * len(prompts)

        monkeypatch.setattr(rcm.steering.runner, "decoded", decoded)

    return opening


def test_of_what_is_suppressed_only_opening_words_are_kept(
    direction: Direction, talkative: Callable[..., None]
) -> None:
    talkative("")
    replies = direction.suppress(["bcd efg", "b##c##d"])
    for reply in replies:
        for said in (reply.unsteered, reply.steered, reply.random):
            assert said.completion == f"{' '.join(SAID.split()[:OPENING_WORDS])} {CUT}"
    assert "ninth" not in everywhere(replies)


def test_of_harmless_prompts_whole_replies_are_kept(direction: Direction, talkative: Callable[..., None]) -> None:
    talkative("")
    (reply,) = direction.force("bcd efg")
    assert reply.steered.completion == SAID
    assert "ninth" in everywhere(direction.force("bcd efg"))


def test_forcing_is_no_way_round(direction: Direction, talkative: Callable[..., None]) -> None:
    """Neither with a harmful prompt of the data set, nor with one that the model refuses."""
    talkative("")
    assert "ninth" not in everywhere(direction.force(direction.study.prompts.test.harmful[0].text))
    talkative("r ")
    assert "ninth" not in everywhere(direction.force("bcd efg"))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (lambda d: d.force("bcd", strength=0), "give a number above 0"),
        (lambda d: d.force("bcd", strength=-2.0), "give a number above 0"),
        (lambda d: d.force("bcd", strength=float("nan")), "give a number above 0"),
        (lambda d: d.force([]), "is no prompt"),
        (lambda d: d.suppress(" "), "is no prompt"),
        (lambda d: d._asked(["bcd", 3], 24), "is no prompt"),
        (lambda d: d._asked([Prompt("bcd", "x")], 24), "is no prompt"),
        (lambda d: d._asked(None, 24), "is no prompt"),
        (lambda d: d.suppress("bcd", max_new_tokens=LONGEST + 1), f"give 1 to {LONGEST}"),
        (lambda d: d.force("bcd", max_new_tokens=0), f"give 1 to {LONGEST}"),
        (lambda d: d.force("b" * 400), "the model reads 256"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(direction: Direction, asked: Any, told: str, sentence: Any) -> None:
    assert told in sentence(lambda: asked(direction))
