"""What methods say that they will ask of a model, beside what goes through it."""

from typing import Any

import pytest

from benchmarks.counting import Counted, counted
from rcm.execution.self_checks import self_checks
from rcm.execution.work import COUNTS, Row, Scope, Work, decoded, looked_at, together
from rcm.methods import Study, run_method
from rcm.models import LoadedModel
from rcm.prompts import Split
from tests.conftest import tiny_model
from tests.planted import composed, planted_judge, planted_model, planted_prompts
from tests.stubs import Inner, Method

CLOSE = 0.15
A_FEW = 4  # passes, of dozens: which rows share one depends on what is chosen
REPLY = 6
QUICK: dict[str, Any] = {"kl_prompts": 2, "compared_prompts": 4, "plain_texts": 1, "candidates": 30, "random": 10}
SMALL: dict[str, Any] = {**QUICK, "max_new_tokens": 4, "control_tokens": 2, "pairs": 8, "strengths": (1.0,)}
LARGE: dict[str, Any] = {**SMALL, "max_new_tokens": REPLY, "pairs": 12, "curve_controls": 1, "strengths": (0.5, 1.0)}
# Settings, the sizes of the parts, and of batches: the second asks for more of everything, in smaller batches.
SIZES = {"small": (SMALL, (24, 12, 12), 16), "large": (LARGE, (32, 16, 14), 8)}
METHODS = ("behaviour", "direction", "patching", "circuit", "steering", "positions", "neurons")


def scope_of(model: LoadedModel, prompts: Split, **known: Any) -> Scope:
    return Scope.of(model.hf, prompts, model.template, batch_size=model.batch_size, on_cpu=True, **known)


@pytest.mark.parametrize("size", SIZES)
def test_each_method_asks_for_what_it_says(size: str) -> None:
    """Between the least and the most, within 15 %: tokens, logits, gradients and passes."""
    settings, parts, batch_size = SIZES[size]
    methods = composed(*METHODS, **settings)
    model, prompts = planted_model(batch_size=batch_size), planted_prompts(sizes=parts)
    scope = scope_of(model, prompts, controls=3)
    study = Study(model, prompts, planted_judge(), 0)
    self_checks(model, [len(model.template.tokens(text)) + REPLY for text in prompts.everything])
    for name, method in methods.items():
        said = method.work(scope)
        assert said is not None
        with counted(model) as found:
            results, finding = taken(run_method(name, method, study))
        assert outside(said, found) == {}, name
        assert len(results) > 3
        if method.gives is not None:
            study = study.given({**study.findings, method.gives: finding})


def taken(step: Any) -> tuple[list[Any], Any]:
    results = []
    while True:
        try:
            results.append(next(step))
        except StopIteration as end:
            return results, end.value


def outside(said: list[Work], found: Counted) -> dict[str, tuple[float, float, float]]:
    """What was not asked for as said: the least, what it was, the most."""
    wrong = {}
    for name in ("passes", "tokens", "generated", "logits", "gradients"):
        least, most = (
            sum(share * getattr(one, name) for one in said for share in [one.least if low else 1])
            for low in (True, False)
        )
        value = getattr(found, name)
        slack = A_FEW if name == "passes" else 0
        if not (1 - CLOSE) * least - slack <= value <= (1 + CLOSE) * most + slack:
            wrong[name] = (least, value, most)
    return wrong


def test_what_is_counted_wrongly_is_seen() -> None:
    model, prompts = tiny_model(), planted_prompts()
    said = looked_at(scope_of(model, prompts), "", [40, 50, 60])
    right = Counted(passes=said.passes, tokens=said.tokens, logits=said.logits)
    assert outside([said], right) == {}
    assert set(outside([said.times(2)], right)) == {"tokens", "logits"}
    assert set(outside([said.times(9)], right)) == {"passes", "tokens", "logits"}
    assert set(outside([said], Counted(said.passes, said.tokens, 9, said.logits))) == {"generated"}


def test_a_method_of_others_says_nothing() -> None:
    stub = Method(top_k=1, granularity="head", fails_at=None, places=None, inner=Inner(rate=0.5))
    assert stub.work(scope_of(tiny_model(), planted_prompts())) is None


def test_parts_add_up_and_of_bytes_the_most_counts() -> None:
    one = Work("a", 1, 2, 3.0, 4, 5, 6, 7.0, 8, held=9)
    both = together("both", [one, one.times(2)], held=1)
    assert {name: getattr(both, name) for name in COUNTS} == {name: 3 * getattr(one, name) for name in COUNTS}
    assert both.held == 9
    assert together("none", []).tokens == 0


def test_longer_replies_look_back_further() -> None:
    scope = scope_of(tiny_model(), planted_prompts())
    rows = [Row(30, 0, 0), Row(40, 1, 0)]
    short, long = (decoded(scope, "", rows, tokens) for tokens in (4, 8))
    assert (short.generated, long.generated) == (6, 14)
    assert short.context == 2 * (40 * 3 + 6)
    assert long.held > short.held
