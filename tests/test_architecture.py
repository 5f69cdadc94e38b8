"""The layering of the house holds: lower rooms never import higher ones, and each knows only what it may."""

import re
import sys
import tomllib

from tests.architecture import FLOORS, ROOT, between_files, between_rooms, circle, foreign, upward


def test_every_room_has_a_floor() -> None:
    assert sorted(between_rooms()) == sorted(room for rooms in FLOORS for room in rooms)


def test_no_arrow_runs_up_and_nothing_goes_in_circles() -> None:
    assert upward(between_rooms()) == []
    assert circle(between_rooms()) == []
    assert circle(between_files()) == []


def test_what_a_room_may_not_know() -> None:
    """Methods know neither Hydra nor W&B; only tracking knows W&B; only running and launch know Hydra."""
    for room in (room for rooms in FLOORS for room in rooms):
        assert room == "tracking" or "wandb" not in foreign(room), room
        assert room in ("running", "launch") or not foreign(room) & {"hydra", "omegaconf"}, room
    assert not foreign("report") & {"scipy", "sklearn", "torch"}  # nor does the report compute


def test_every_package_that_is_imported_is_declared() -> None:
    """What another package happens to bring along may be gone with its next version."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    needed = [*declared["dependencies"], *extras["dashboard"], *extras["inspect"]]
    names = {re.split(r"[<>=]", one)[0].replace("-", "_").lower() for one in needed}
    homes = {"sklearn": "scikit_learn", "yaml": "pyyaml", "hydra": "hydra_core"}
    imported = {package for rooms in FLOORS for room in rooms for package in foreign(room)}
    own = imported - set(sys.stdlib_module_names)
    assert "torch" in own  # or else nothing is looked at
    assert {homes.get(package, package) for package in own} - names == set()


def test_an_arrow_that_runs_up_is_found() -> None:
    graph = between_rooms()
    assert upward({**graph, "record": {"methods"}}) == [("record", "methods")]
    assert upward({**graph, "patching": {"directions"}}) == [("patching", "directions")]  # on one floor
    assert upward({**graph, "attic": {"errors"}}) == [("attic", "errors")]
    assert set(circle({"a": {"b"}, "b": {"a"}})) == {"a", "b"}
