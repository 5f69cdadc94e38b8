"""What this model's own direction does in it, split along another model's (`rcm.transplant.shares`).

At the place that this model's own run selected, on all test prompts of a class. Both directions are mean differences of
the same training prompts, of all of them, in either model: like with like.

    ablate   harmful prompts, the direction (or both parts, as a plane) removed everywhere: how far the log-odds of
             refusing fall
    add      harmless prompts, the parts added at their own length, whole directions at the own one's: how far they rise

Controls are mean differences of shuffled labels, less what they share with the true one: as long, and as many at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rcm.directions.fit import Activations, Vector, mean_difference, shuffled_controls, unit
from rcm.execution.first_token import ablated, added
from rcm.execution.passes import Figure
from rcm.execution.progress import track
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, texts
from rcm.stats.metrics import refusal_log_odds
from rcm.transplant.shares import PartEffects, Shares, alike, parted, shares

CONTROLS = 6  # of shuffled labels: their mean is taken off, so what matters is its error
COLUMNS = (
    *("source", "run", "operation", "n", "draws"),
    *(f"{name}{end}" for name in ("own", "along", "across") for end in ("", "_low", "_high")),
    *("other", "refits_least", "refits_most", "alike_least", "alike_most", "cosine", "refit_cosine"),
)


@dataclass(frozen=True)
class Place:
    """Where this model decides: its own mean difference there, and the training prompts that it is of."""

    layer: int
    harmful: Activations
    harmless: Activations
    refusal_tokens: tuple[int, ...]

    @property
    def own(self) -> Vector:
        return mean_difference(self.harmful, self.harmless)


@dataclass(frozen=True)
class Refits:
    """The own direction fitted anew to halves of the training prompts, unit vectors. `cosines`: to the fit of the other
    half, which shares no prompt with it."""

    directions: Float[np.ndarray, "draw d_model"]
    cosines: Float[np.ndarray, " draw"]

    @classmethod
    def of(cls, place: Place, n: int, seed: int) -> "Refits":
        draw = np.random.default_rng(seed)
        halves = [[_halved(side, draw) for side in (place.harmful, place.harmless)] for _ in range(n)]
        fitted = np.array(
            [[unit(mean_difference(harmful[i], harmless[i])) for i in (0, 1)] for harmful, harmless in halves]
        )
        return cls(fitted[:, 0], (fitted[:, 0] * fitted[:, 1]).sum(-1))


@dataclass(frozen=True)
class Decomposed:
    """`shares` by operation; `cosine` of the two directions; `refit_cosine`: the least of the own refits."""

    shares: dict[str, Shares]
    cosine: float
    refit_cosine: float

    def rows(self, source: str, run: str) -> Iterator[tuple[str | int | float, ...]]:
        """One for each operation, in the order of `COLUMNS`."""
        for operation, one in self.shares.items():
            figures = (*one.own, *one.along, *one.across, one.other, *one.refits, *one.alike)
            yield (source, run, operation, one.n, one.draws, *figures, self.cosine, self.refit_cosine)


def decomposed(
    model: LoadedModel,
    place: Place,
    other: Vector,
    prompts: Part,
    draws: int,
    seed: int,
) -> Decomposed:
    """The own direction's effect in parts along and across the `other`; `draws` refits, and as many alike."""
    own, refits = place.own, Refits.of(place, draws, seed)
    cosine = float(unit(own) @ unit(other))
    controls = unit(shuffled_controls(place.harmful, place.harmless, CONTROLS, seed))
    family = Directions(own, other, refits.directions, alike(own, cosine, draws, seed), controls)
    effects = {
        "ablate": _ablating(model, place, family, prompts.harmful),
        "add": _adding(model, place, family, prompts.harmless),
    }
    by_operation = {operation: shares(one) for operation, one in effects.items()}
    return Decomposed(by_operation, cosine, float(refits.cosines.min()))


@dataclass(frozen=True)
class Directions:
    """Own and other at their lengths; the rest unit vectors."""

    own: Vector
    other: Vector
    refits: Float[np.ndarray, "draw d_model"]
    alike: Float[np.ndarray, "draw d_model"]
    controls: Float[np.ndarray, "control d_model"]

    @property
    def parts(self) -> tuple[Vector, Vector]:
        return parted(self.own, self.other)

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.own))


def _ablating(model: LoadedModel, place: Place, family: Directions, prompts: Sequence[Prompt]) -> PartEffects:
    along, across = (unit(part) for part in family.parts)
    none, second = np.zeros_like(along), np.roll(family.controls, 1, axis=0)
    # A plane is two vectors at right angles; what is one vector has a zero beside it.
    singles = [none, along, across, *family.refits, *family.alike, *family.controls]
    planes = [(along, across), *zip(family.controls, _across(second, family.controls), strict=True)]
    asked = np.array([*((one, none) for one in singles), *planes])
    in_turn = ablated(model, texts(prompts), _tensor(asked), _odds(place))
    odds = _by_prompt(
        one for _, one in zip(track(range(len(asked)), "transplant: parts ablated"), in_turn, strict=True)
    )
    fall = odds[0] - odds[1:]
    draws, controls = len(family.refits), len(family.controls)
    of_along, of_across, refits, likes, single, both, plane = np.split(
        fall, np.cumsum([1, 1, draws, draws, controls, 1])
    )
    one, two = single.mean(0), plane.mean(0)
    return PartEffects(
        _categories(prompts),
        of_along[0] - one,
        of_across[0] - one,
        both[0] - two,
        of_along[0] - one,  # of a whole direction only where it points is ablated
        (refits - one).mean(1),
        (likes - one).mean(1),
    )


def _adding(model: LoadedModel, place: Place, family: Directions, prompts: Sequence[Prompt]) -> PartEffects:
    along, across = family.parts
    lengths = [float(np.linalg.norm(along)), float(np.linalg.norm(across)), family.length]
    whole = np.array([unit(family.other), *family.refits, *family.alike]) * family.length
    controls = [family.controls * length for length in lengths]
    vectors = np.concatenate([np.zeros((1, len(along))), along[None], across[None], family.own[None], whole, *controls])
    layers = [place.layer] * len(vectors)
    odds = added(model, texts(prompts), _tensor(vectors), layers, _odds(place), "transplant: parts added").numpy()
    rise = odds[1:] - odds[0]
    draws, each = len(family.refits), len(family.controls)
    of_along, of_across, both, other, refits, likes, *beside = np.split(
        rise, np.cumsum([1, 1, 1, 1, draws, draws, each, each])
    )
    short, middle, long = (one.mean(0) for one in beside)
    return PartEffects(
        _categories(prompts),
        of_along[0] - short,
        of_across[0] - middle,
        both[0] - long,
        other[0] - long,
        (refits - long).mean(1),
        (likes - long).mean(1),
    )


def _odds(place: Place) -> Figure:
    return lambda logits, index: refusal_log_odds(logits, place.refusal_tokens)


def _by_prompt(odds: Iterator[Float[Tensor, " prompt"]]) -> Float[np.ndarray, "variant prompt"]:
    return torch.stack(list(odds)).numpy()


def _tensor(vectors: Float[np.ndarray, "..."]) -> Tensor:
    return torch.from_numpy(vectors).float()


def _across(vectors: Float[np.ndarray, "n d_model"], of: Float[np.ndarray, "n d_model"]) -> Float[np.ndarray, "n d"]:
    """Each less its part along the unit vector beside it; unit vectors."""
    return unit(vectors - (vectors * of).sum(-1, keepdims=True) * of)


def _categories(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.category for prompt in prompts]


def _halved(side: Activations, draw: np.random.Generator) -> list[Activations]:
    return np.array_split(draw.permutation(side), 2)
