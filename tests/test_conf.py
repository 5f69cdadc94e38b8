"""`conf/` and the classes hold together: every option fills its class, every experiment and every sweep composes."""

from pathlib import Path
from typing import Any, cast

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from rcm.errors import InputError
from rcm.running.chosen import chosen_settings
from rcm.running.identity import id_of, plain_settings  # importing it registers the resolver that conf/config.yaml uses
from rcm.settings import Settings

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
GROUPS = ("model", "dataset", "method", "judge", "device", "tracker")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def composed(*overrides: str, hydra: bool = False) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=hydra)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_every_option_fills_its_class(group: str, option: str) -> None:
    node = composed(f"{group}={option}")[group]
    for one in node.values() if group == "method" else [node]:
        settings = get_class(one["_target_"])
        assert issubclass(settings, Settings)
        assert set(one) == {"_target_", *settings.model_fields}
        # One home for a value: the YAML file.
        assert all(field.is_required() for field in settings.model_fields.values())
        if not OmegaConf.missing_keys(one):
            instantiate(one, _convert_="all")


def test_a_method_has_its_settings_at_one_path_in_every_composition() -> None:
    for methods in ("direction", "[behaviour,direction,steering]", "map", "[map,transplant]"):
        cfg = composed(f"method={methods}", "method.direction.max_kl=0.3")
        assert cfg.method.direction.max_kl == 0.3
        assert list(cfg.method)[:1] == (["direction"] if methods == "direction" else ["behaviour"])


def test_what_an_experiment_sets_of_methods_that_are_left_away_does_not_count() -> None:
    alone = composed("experiment=smoke", "method=[behaviour]")
    assert list(plain_settings(alone)["method"]) == ["behaviour"]
    assert id_of(alone) == id_of(composed("experiment=smoke", "method=behaviour", "method.steering.plain_texts=9"))
    assert id_of(alone) != id_of(composed("experiment=smoke", "method=behaviour", "method.behaviour.floor=0.9"))


def test_settings_of_a_method_that_there_is_not_are_told() -> None:
    with pytest.raises(InputError, match=r"^method\.diretion: there is no method diretion; choose one of behaviour, "):
        chosen_settings(composed("experiment=smoke", "method=direction", "+method.diretion.max_kl=9"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_every_value_that_it_sweeps_over(experiment: str) -> None:
    cfg = composed(f"experiment={experiment}", hydra=True)
    swept = cast(dict[str, Any], OmegaConf.to_container(cfg.hydra.sweeper.params or OmegaConf.create({})))
    for override in OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in swept.items()]):
        for value in (
            override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_string()]
        ):
            fills(composed(f"experiment={experiment}", f"{override.get_key_element()}={value}"))
    if not swept:
        fills(composed(f"experiment={experiment}"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes_with_each_of_its_values(path: Path) -> None:
    """As an agent writes them: Python's words for the values, so that a bare null would come as the word None."""
    sweep = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(sweep, dict)
    fixed = [part for part in sweep["command"] if "=" in part]
    values = {
        key: choice.get("values") or [choice.get("value"), choice.get("min"), choice.get("max")]
        for key, choice in sweep["parameters"].items()
    }
    for place in range(max(map(len, values.values()))):
        given = {key: some[place % len(some)] for key, some in values.items()}
        given = {key: value for key, value in given.items() if value is not None}
        cfg = composed(*fixed, *(f"{key}={value}" for key, value in given.items()))
        fills(cfg)
        assert cfg.tracker.mode == "online"
        for key, value in given.items():
            if "." in key:
                assert OmegaConf.select(cfg, key) == (None if value == "null" else value)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_opens_with_the_commands_that_run_it(path: Path) -> None:
    first, second, *_ = path.read_text().splitlines()
    assert first == f"# wandb sweep --project rcm sweeps/{path.name}"
    assert second.startswith("# wandb agent ENTITY/rcm/SWEEP")


def fills(cfg: DictConfig) -> None:
    assert chosen_settings(cfg).methods
    assert len(id_of(cfg)) == 8


def test_the_seed_of_an_experiment_counts() -> None:
    """The experiment stands after `_self_` in the defaults, or else the seed in config.yaml would win."""
    order = [next(iter(entry)) for entry in OmegaConf.load(CONF / "config.yaml")["defaults"] if entry != "_self_"]
    assert order == [*GROUPS, "experiment"]
    assert OmegaConf.load(CONF / "config.yaml")["defaults"][-2] == "_self_"
