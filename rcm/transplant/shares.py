"""How much of what a direction does is the work of its part along another one: Shapley shares with both anchors.

An own direction v and another u at the same place: v = along + across, along = (v . u) u / |u|^2. E(S) is what the
parts in S do to the log-odds of refusing, less what shuffled-label controls of the same length do to the same prompt.
Over the four subsets the Shapley value (1953) of the part along u is

    phi = ( E(along) - E(none) + E(both) - E(across) ) / 2,     share = phi / E(both)

and the two shares add up to one, where single effects need not: log-odds bend less than rates, and do bend.

Two anchors tell what a small effect of u may also be. *Refits* of v on other prompts: as little as these do, estimation
noise explains. *Alike* are random vectors with u's cosine to v: as little as these do, geometry explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rcm.stats import FEWEST, Estimate, by_cluster, mean_interval

Effects = Float[np.ndarray, " prompt"]
NAN = float("nan")


@dataclass(frozen=True)
class PartEffects:
    """What one operation does, prompt by prompt, in nats of log-odds towards its goal (ablating: away from refusing;
    adding: towards it), net of controls. `other`: the other's whole direction, at the own one's length."""

    categories: Sequence[str]
    along: Effects
    across: Effects
    both: Effects
    other: Effects
    refits: Float[np.ndarray, " draw"]
    alike: Float[np.ndarray, " draw"]


@dataclass(frozen=True)
class Shares:
    """`own`: nats that the own direction moves; `along`: the Shapley share of its part along the other, NaN where the
    own effect is not certainly above zero; `other`: nats that the other's moves. `refits`, `alike`: least and most of
    the means that `draws` of each reach. `n` prompts; NaN bounds where they are too few."""

    n: int
    own: Estimate
    along: Estimate
    other: float
    refits: tuple[float, float]
    alike: tuple[float, float]
    draws: int

    @property
    def across(self) -> Estimate:
        """The share of the part across the other: what is left."""
        return Estimate(1 - self.along.value, 1 - self.along.high, 1 - self.along.low)


def parted(
    own: Float[np.ndarray, " d_model"], other: Float[np.ndarray, " d_model"]
) -> tuple[Float[np.ndarray, " d_model"], Float[np.ndarray, " d_model"]]:
    """The part of `own` along `other`, and the part across it."""
    along = (own @ other) / (other @ other) * other
    return along, own - along


def alike(own: Float[np.ndarray, " d_model"], cosine: float, n: int, seed: int) -> Float[np.ndarray, "n d_model"]:
    """Random unit vectors with this cosine to `own`."""
    unit = own / np.linalg.norm(own)
    drawn = np.random.default_rng(seed).standard_normal((n, len(own)))
    drawn -= np.outer(drawn @ unit, unit)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return cosine * unit + np.sqrt(max(0.0, 1 - cosine**2)) * drawn


def shares(effects: PartEffects) -> Shares:
    """The shares with intervals of 95 %, by category where prompts have categories."""
    n, both = len(effects.both), effects.both
    own = Estimate(float(both.mean()), *(mean_interval(both, effects.categories) or (NAN, NAN)))
    along = Estimate(NAN, NAN, NAN)
    if own.low > 0:
        along = Estimate(_share(effects, np.arange(n)), *(_interval(effects) or (NAN, NAN)))
    return Shares(
        n,
        own,
        along,
        float(effects.other.mean()),
        (float(effects.refits.min()), float(effects.refits.max())),
        (float(effects.alike.min()), float(effects.alike.max())),
        min(len(effects.refits), len(effects.alike)),
    )


def _share(effects: PartEffects, index: Int[np.ndarray, " _"]) -> float:
    along, across, both = (float(part[index].mean()) for part in (effects.along, effects.across, effects.both))
    return (along + both - across) / 2 / both


def _interval(effects: PartEffects) -> tuple[float, float] | None:
    n = len(effects.both)
    by_category = by_cluster(lambda index: _share(effects, index), effects.categories)
    if by_category is not None:
        return by_category
    return by_cluster(lambda index: _share(effects, index), [str(i) for i in range(n)]) if n >= FEWEST else None
