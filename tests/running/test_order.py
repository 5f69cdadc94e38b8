"""Methods are composed by what they need and give, in whatever order they are named."""

from collections.abc import Generator
from typing import Any, ClassVar

import pytest
import torch

from rcm.errors import InputError
from rcm.methods import Method, Study, run_in_turn
from rcm.record.results import Result, Scalar
from rcm.running.order import in_order
from tests.planted import composed, planted_judge, planted_model, planted_prompts


class Lead:
    """A finding."""


class Gold:
    """Another."""


class Alchemy(Method):
    needs: ClassVar = (Lead,)
    gives: ClassVar = Gold

    def run(self, study: Study) -> Generator[Result, None, Gold]:
        assert isinstance(study[Lead], Lead)
        yield Scalar("alchemy/weight", 1.0)
        return Gold()


class Mine(Method):
    uses: ClassVar = (Gold,)
    gives: ClassVar = Lead

    def run(self, study: Study) -> Generator[Result, None, Lead]:
        yield Scalar("mine/has_gold", int(study.get(Gold) is not None))
        return Lead()


class Market(Method):
    uses: ClassVar = (Gold,)

    def run(self, study: Study) -> Generator[Result, None, None]:
        yield Scalar("market/has_gold", int(study.get(Gold) is not None))


def study() -> Study:
    return Study(planted_model(), planted_prompts(), planted_judge(), seed=0)


class Digging(Mine):
    uses: ClassVar = ()


def test_findings_go_from_those_who_give_to_those_who_take() -> None:
    methods = in_order({"market": Market(), "alchemy": Alchemy(), "mine": Digging()})
    assert list(methods) == ["mine", "alchemy", "market"]
    results = {result.name: result.value for result in run_in_turn(methods, study())}
    assert results == {"mine/has_gold": 0, "alchemy/weight": 1.0, "market/has_gold": 1}


def test_what_is_merely_used_may_be_absent() -> None:
    assert list(in_order({"market": Market()})) == ["market"]
    assert [result.value for result in run_in_turn({"market": Market()}, study())] == [0]


def test_those_who_wait_for_each_other_are_told() -> None:
    with pytest.raises(InputError, match=r"method=\[mine,alchemy\] wait for each other's findings"):
        in_order({"mine": Mine(), "alchemy": Alchemy()})


def test_our_methods_go_in_their_order() -> None:
    assert list(in_order(composed("steering", "patching", "direction", "behaviour"))) == [
        "behaviour",
        "direction",
        "steering",
        "patching",
    ]


def test_a_need_that_is_missing_names_who_gives_it() -> None:
    told = "method=steering needs a RefusalDirection, which direction gives; run method=[direction,steering]."
    with pytest.raises(InputError) as error:
        in_order(composed("steering"))
    assert str(error.value) == told


def test_a_need_that_nobody_gives_is_told() -> None:
    class Hope(Method):
        needs: ClassVar = (int,)

        def run(self, study: Study) -> Generator[Result, None, None]:
            yield from ()

    with pytest.raises(InputError, match=r"^method=hope needs a int, which no method gives.$"):
        in_order({"hope": Hope()})


@pytest.mark.parametrize("result", [1.0, "found", None])
def test_what_is_no_result_is_told(result: Any) -> None:
    class Wrong(Method):
        def run(self, study: Study) -> Generator[Any, None, None]:
            yield result

    with pytest.raises(InputError, match=f"^The method wrong yields a {type(result).__name__}; a method yields"):
        list(run_in_turn({"wrong": Wrong()}, study()))


def test_a_method_does_not_give_itself_what_it_needs() -> None:
    class Refinery(Method):
        needs: ClassVar = (Gold,)
        gives: ClassVar = Gold

        def run(self, study: Study) -> Generator[Result, None, Gold]:
            yield from ()
            return study[Gold]

    with pytest.raises(InputError, match=r"^method=refinery needs a Gold, which .*Alchemy or .*gives; run"):
        in_order({"refinery": Refinery()})


def test_a_promised_finding_that_is_not_returned_is_told() -> None:
    class Promise(Method):
        gives: ClassVar = Gold

        def run(self, study: Study) -> Generator[Result, None, None]:
            yield Scalar("promise/kept", 0.0)

    with pytest.raises(InputError, match=r"^The method promise says that it gives a Gold, and returns a NoneType; "):
        list(run_in_turn({"promise": Promise()}, study()))


def test_the_names_of_the_run_are_its_own() -> None:
    class Vain(Method):
        def run(self, study: Study) -> Generator[Result, None, None]:
            yield Scalar("summary/best", 1.0)

    with pytest.raises(InputError, match=r"^The method vain yields summary/best, a name of the run's own"):
        list(run_in_turn({"vain": Vain()}, study()))


def test_no_method_draws_from_where_another_stopped() -> None:
    class Dice(Method):
        def run(self, study: Study) -> Generator[Result, None, None]:
            yield Scalar(f"dice/{id(self)}", torch.rand(()).item())

    first, second = run_in_turn({"one": Dice(), "two": Dice()}, study())
    assert first.value == second.value
