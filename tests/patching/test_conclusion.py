"""Each word where it is true, and not where it nearly is; near misses stand in the sentence and in the table."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from rcm.execution.components import COMPONENT_KINDS, Component, Shape
from rcm.patching import Effects, Interchange
from rcm.patching.conclusion import concluded
from rcm.patching.effects import estimate
from rcm.patching.tables import TOP, heads_table, layers_table
from rcm.record.results import Null, Scalar

SHAPE, PAIRS = Shape(6, 4), 16
COMPONENTS = SHAPE.components(COMPONENT_KINDS)
HEAD, OTHER, LAYER = Component("head", 3, 1), Component("head", 4, 2), Component("attention", 3)


def measured(shares: Mapping[Component, float], unsteady: Mapping[Component, float] | None = None) -> Effects:
    """Pairs with a gap of 1, in which these components have these shares, the others none; `unsteady` ones in two pairs
    alone."""
    share = np.random.default_rng(0).normal(0, 0.002, size=(PAIRS, len(COMPONENTS)))
    for component, mean in shares.items():
        share[:, COMPONENTS.index(component)] += mean
    for component, mean in (unsteady or {}).items():
        share[:2, COMPONENTS.index(component)] += mean * PAIRS / 2
    moved, gap = torch.from_numpy(share), torch.ones(PAIRS, dtype=torch.float64)
    study = Interchange(gap, torch.zeros_like(gap), gap[:, None] - moved, moved)
    return Effects.of(study, COMPONENTS, min_gap=0.5, seed=0)


def together(value: float, p: float | None, draws: int = 100) -> Scalar:
    null = Null(0.2, "random sets of heads of the same layers", draws, p=p)
    return Scalar("patching/critical_heads_share", value, n=12, null=null)


@pytest.mark.parametrize(
    ("shares", "judged", "word"),
    [
        ({}, None, "none"),
        ({HEAD: -0.4}, None, "none"),  # against refusing, and nothing for it
        ({LAYER: 0.4}, None, "layers"),
        ({LAYER: 0.4, OTHER: -0.3}, None, "layers"),
        ({HEAD: 0.4}, None, "open"),
        ({HEAD: 0.4}, together(0.4, 1 / 11, draws=10), "open"),
        ({HEAD: 0.4}, together(0.4, 0.01), "localised"),
        ({HEAD: 0.4, OTHER: -0.3, LAYER: 0.5}, together(0.4, 0.05), "localised"),
        ({HEAD: 0.4}, together(0.4, 0.06), "unspecific"),
        ({HEAD: 0.4}, together(-0.1, 0.01), "unspecific"),  # random sets do even less, and it does nothing
    ],
)
def test_the_word_is_what_was_shown(shares: dict[Component, float], judged: Scalar | None, word: str) -> None:
    outcome = concluded(measured(shares), 0.02, judged, paired=True)
    assert outcome.value == word
    assert outcome.means
    assert "twins" not in outcome.because
    assert "no twins" in concluded(measured(shares), 0.02, judged, paired=False).because
    if OTHER in shares:
        assert "1 of them against refusing" in outcome.because


def test_the_strongest_of_all_is_never_left_out_without_a_word() -> None:
    """A head with twice the share of the critical one, all from two pairs."""
    effects = measured({HEAD: 0.1}, unsteady={OTHER: 0.2})
    assert effects.components[effects.strongest_first(effects.of_kind("head"))[0]] == OTHER
    because = concluded(effects, 0.02, together(0.1, 0.01), paired=True).because
    p = effects.necessity.p[COMPONENTS.index(OTHER)]
    assert p > 0.05
    assert "1 critical components; the strongest: head 3.1 (+10%)." in because
    assert f"Not critical, though among the strongest: head 4.2 (+20%: p = {p:.2g} over all cells)." in because

    direct = estimate(np.zeros((PAIRS, 24)), np.full(24, np.nan))
    heads = heads_table(effects, direct, 0.02)
    rows = [dict(zip(heads.columns, row, strict=True)) for row in heads.rows]
    assert [(row["layer"], row["head"]) for row in rows[:2]] == [(4, 2), (3, 1)]
    assert [row["verdict"] for row in rows[:2]] == [f"p = {p:.2g} over all cells", "critical"]
    assert [row["listed"] for row in rows] == [True] * TOP + [False] * (24 - TOP)
    assert [row["critical"] for row in rows] == [False, True] + [False] * 22


def test_down_to_the_last_that_is_critical_all_are_listed() -> None:
    """Twelve steady heads, and above each an unsteady one."""
    heads = SHAPE.components(["head"])
    effects = measured(
        {head: 0.5 - i / 50 for i, head in enumerate(heads[:12])},
        {head: 0.51 - i / 50 for i, head in enumerate(heads[12:])},
    )
    table = heads_table(effects, estimate(np.zeros((PAIRS, 24)), np.full(24, np.nan)), 0.02)
    listed, critical = ([row[table.columns.index(name)] for row in table.rows] for name in ("listed", "critical"))
    assert listed == [True] * 24
    assert sum(critical) == 12
    layers = layers_table(effects, 0.02)
    kinds = [row[1] for row in layers.rows if row[layers.columns.index("listed")]]
    assert len(kinds) == TOP
    assert "residual" not in kinds
    assert [row[1] for row in layers.rows].count("residual") == SHAPE.layers
