"""The lazy search makes the choice of the exhaustive one, on figures known beforehand, and asks for few of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from rcm.directions.causal import Scorer, Search, beside_random
from rcm.directions.selection import Selection, select
from rcm.execution import progress
from rcm.models import LoadedModel
from tests.planted import planted_model

POSITIONS, LAYERS = 3, 10
NO_PROMPTS: list[str] = []


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return planted_model()


@dataclass(frozen=True)
class Known(Scorer):
    """Figures [bypass, induce, kl; position, layer] by vectors that hold their own position and layer."""

    figures: np.ndarray = field(default_factory=lambda: np.empty(0))
    asked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("bypass", "induce", "kl"), 0))

    def bypass(self, directions: Tensor) -> Iterator[Tensor]:
        return self._known("bypass", directions)

    def induce(self, vectors: Tensor, layers: Sequence[int]) -> Iterator[Tensor]:
        assert vectors[:, 1].tolist() == list(layers)
        return self._known("induce", vectors)

    def kl(self, directions: Tensor) -> Iterator[Tensor]:
        return self._known("kl", directions)

    def _known(self, name: str, vectors: Tensor) -> Iterator[Tensor]:
        for row, layer, _ in vectors.long().tolist():
            self.asked[name] += 1
            yield torch.tensor([self.figures[list(self.asked).index(name), row, layer]])


def searched(model: LoadedModel, figures: np.ndarray, exhaustive: bool) -> tuple[Selection, dict[str, int]]:
    vectors = torch.tensor([[[row, layer, 1.0] for layer in range(LAYERS)] for row in range(POSITIONS)])
    vectors[:, 0] = 0  # the template's own embeddings
    scorer = Known(model, NO_PROMPTS, NO_PROMPTS, (1,), figures)
    search = Search(scorer, vectors, max_kl=0.1, min_induce=0.0, max_depth=0.8)
    scores = search.all() if exhaustive else search.enough()
    return select(scores.bypass, scores.induce, scores.kl, max_depth=0.8), scorer.asked


def test_the_choice_is_that_of_all_figures(model: LoadedModel) -> None:
    draw, chosen = np.random.default_rng(0), []
    for _ in range(100):
        figures = draw.normal(size=(3, POSITIONS, LAYERS))
        figures[2] = np.abs(figures[2]) * draw.choice([0.1, 0.5, 5])
        (lazy, few), (whole, all_of_them) = (searched(model, figures, exhaustive) for exhaustive in (False, True))
        assert lazy.survivors > 0 or not whole.survivors
        assert lazy.best == whole.best, "the selected one, or the nearest miss"
        assert set(all_of_them.values()) == {POSITIONS * (LAYERS - 1)}
        assert few["induce"] == POSITIONS * 7, "without the first layer, and those from 0.8 of them on"
        assert few["kl"] <= few["bypass"] <= few["induce"]
        chosen.append(whole.survivors > 0)
    assert 20 < sum(chosen) < 100


def test_kl_stops_at_the_first_that_passes(model: LoadedModel) -> None:
    figures = np.zeros((3, POSITIONS, LAYERS))
    figures[0] = np.arange(POSITIONS * LAYERS).reshape(POSITIONS, LAYERS)
    figures[2, 0, :4] = 1.0
    lazy, asked = searched(model, figures, exhaustive=False)
    assert lazy.best is not None
    assert (lazy.best.position, lazy.best.layer) == (-POSITIONS, 4)
    assert asked == {"bypass": 21, "induce": 21, "kl": 4}


def test_where_nothing_induces_few_are_told_in_full(model: LoadedModel) -> None:
    """As many as may be nearer than the nearest so far."""
    figures = np.zeros((3, POSITIONS, LAYERS))
    figures[1] = -1 - np.arange(LAYERS)
    lazy, asked = searched(model, figures, exhaustive=False)
    assert lazy.survivors == 0
    assert lazy.best is not None
    assert (lazy.best.layer, lazy.best.excess) == (1, 2)
    assert len(lazy.ranked) == asked["bypass"] == asked["kl"] == 5


@dataclass(frozen=True)
class Noise(Scorer):
    """Figures that directions have nothing to do with."""

    draw: np.random.Generator = field(default_factory=np.random.default_rng)

    def bypass(self, directions: Tensor) -> Iterator[Tensor]:
        n = max(1, len(self.harmful))
        return iter(torch.from_numpy(self.draw.standard_normal((len(directions), n))))

    def induce(self, vectors: Tensor, layers: Sequence[int]) -> Iterator[Tensor]:
        return self.bypass(vectors)

    def kl(self, directions: Tensor) -> Iterator[Tensor]:
        return self.bypass(directions)


def test_a_chosen_direction_that_does_nothing_exceeds_its_null_once_in_twenty(model: LoadedModel) -> None:
    """Measured again, however many it was the best of; on the prompts that chose it, nearly always."""
    draws, candidates, vector = 400, 24, np.ones(8)
    again, selected = np.zeros((2, draws, 2), dtype=bool)
    for i in range(draws):
        scorer = Noise(model, NO_PROMPTS, NO_PROMPTS, (1,), np.random.default_rng(i))
        best = (
            min(map(float, scorer.bypass(torch.zeros(candidates, 8)))),
            max(map(float, scorer.induce(torch.zeros(candidates, 8), []))),
        )
        effects = beside_random(scorer, vector, 0, 19, i)
        bypass, induce = effects["bypass"], effects["induce"]
        assert bypass.null is not None
        assert induce.null is not None
        assert (bypass.null.draws, induce.null.level) == (19, 0.95)
        again[i] = bypass.value < bypass.null.value, induce.value > induce.null.value
        selected[i] = best[0] < bypass.null.value, best[1] > induce.null.value
    assert (again.mean(0) <= 0.08).all(), again.mean(0)
    assert (again.mean(0) >= 0.02).all(), "nor is it stricter than it says"
    assert (selected.mean(0) > 0.5).all()


def test_without_random_directions_there_is_no_null(model: LoadedModel) -> None:
    effects = beside_random(Noise(model, NO_PROMPTS, NO_PROMPTS, (1,)), np.ones(8), 0, 0, 0)
    assert [effect.null for effect in effects.values()] == [None, None, None]


def test_random_directions_are_no_silence(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They take longest of all, and a log must tell how far they are."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level("INFO")
    beside_random(Noise(model, NO_PROMPTS, NO_PROMPTS, (1,)), np.ones(8), 0, 5, 0)
    for figure in ("bypass", "induce", "kl"):
        assert f"direction: {figure}, beside random directions: 0 of 6" in caplog.text


def test_intervals_are_over_the_categories_of_the_prompts(model: LoadedModel) -> None:
    """Forty prompts in five categories that agree within are hardly more than five prompts."""
    prompts = [str(i) for i in range(40)]
    scorer = Alike(model, prompts, prompts, (1,))
    alone = beside_random(scorer, np.ones(8), 0, 2, 0)["bypass"]
    grouped = beside_random(scorer, np.ones(8), 0, 2, 0, {prompt: str(int(prompt) // 8) for prompt in prompts})[
        "bypass"
    ]
    assert alone.value == grouped.value == 2
    assert alone.interval == pytest.approx((2 - 0.458, 2 + 0.458), abs=0.01)
    assert grouped.interval == pytest.approx((2 - 1.963, 2 + 1.963), abs=0.01)  # t with 4 degrees, of 0 to 4


class Alike(Noise):
    def bypass(self, directions: Tensor) -> Iterator[Tensor]:
        return iter(torch.arange(5.0).repeat_interleave(8).expand(len(directions), 40))
