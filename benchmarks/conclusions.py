"""How often are the words that methods conclude with wrong, and how often found? python -m benchmarks.conclusions

Like `benchmarks/calibration.py`, which does so for the verdict on what tuning changed: figures are drawn from worlds
with a known truth, and go through the functions that conclude from measured ones. Prompts come in 12 categories, which
differ; components are patched in as many pairs as there are prompts of a class. Printed as rows of the table in
docs/claims.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch

from rcm.execution.components import Shape
from rcm.judges import Verdict
from rcm.judges.behaviour import Judged, refusal_behaviour
from rcm.patching import Effects, Interchange
from rcm.stats import ENOUGH, wilson
from rcm.steering.headline import beats

CATEGORIES, FLOOR = 12, 0.3
HEADS, STEADY, MIN_SHARE = Shape(8, 5).components(["head"]), 4, 0.02
Draw = np.random.Generator
World = Callable[[int, Draw], str]


def refusing(harmful: float, harmless: float, alike: float) -> World:
    """A model that refuses these shares of both classes; of categories more or less (beta), so that prompts of one
    correlate by `alike`."""

    def concluded(n: int, draw: Draw) -> str:
        sides = []
        for rate in (harmful, harmless):
            scale = 1 / alike - 1
            of_categories = draw.beta(rate * scale, (1 - rate) * scale, CATEGORIES)
            refused = draw.random(n) < of_categories[np.arange(n) % CATEGORIES]
            verdicts = [Verdict.REFUSAL if one else Verdict.COMPLIANCE for one in refused]
            sides.append(Judged(verdicts, [str(i % CATEGORIES) for i in range(n)]))
        return refusal_behaviour("behaviour/outcome", *sides, FLOOR, 0).outcome.value

    return concluded


def steering(ours: float | None, few: float) -> World:
    """Controls turn over a beta(0.4, `few`) share of prompts; ours this share, or what a control does. What forces
    suppresses as well: were they independent, both would be won by chance less often."""

    def concluded(n: int, draw: Draw) -> str:
        shares = draw.beta(0.4, few, (2 * ENOUGH + 1, 1))
        shares[0] = shares[0] if ours is None else ours
        forced, suppressed = (draw.random((2, 2 * ENOUGH + 1, n)) < shares).mean(2)
        return "steered" if _beats(forced) and _beats(suppressed) else "unspecific"

    return concluded


def patching(necessity: float, sufficiency: float) -> World:
    """Heads of which one has these shares; without any, the question is whether another one is critical.

    What labels do has heavy tails, and damage to either prompt is skewed and varies with categories; heads share a part
    of both. A few heads do the same tiny damage in every pair.
    """

    def concluded(n: int, draw: Draw) -> str:
        heads, categories = len(HEADS), np.arange(n) % CATEGORIES
        labels = 0.05 * draw.standard_t(3, (n, heads)) + 0.02 * draw.standard_t(3, (n, 1))
        damage = draw.exponential(0.03, (n, heads)) + 0.05 * draw.standard_t(3, (n, heads))
        damage += 0.02 * draw.standard_normal((CATEGORIES, heads))[categories]
        labels[:, :STEADY], damage[:, :STEADY] = labels[:, :STEADY] / 1e5, 3e-4 + 1e-5 * draw.random((n, STEADY))
        planted = (np.arange(heads) == heads - 1).astype(float)
        lost, gained = labels + damage + necessity * planted, labels - damage + sufficiency * planted
        gap, into = torch.ones(n, dtype=torch.float64), [torch.from_numpy(one) for one in (1 - lost, gained)]
        study = Interchange(gap, torch.zeros_like(gap), *into)
        effects = Effects.of(study, HEADS, 1.0, int(draw.integers(2**32)), [str(one) for one in categories])
        critical = effects.critical(MIN_SHARE)
        return "critical" if (critical[-1] if necessity or sufficiency else critical.any()) else "not critical"

    return concluded


def _beats(rates: np.ndarray) -> bool:
    """Whether the first, ours, exceeds the others."""
    return beats(rates[0], {"random": rates[1 : ENOUGH + 1], "shuffled": rates[ENOUGH + 1 :]})


WORLDS: tuple[tuple[str, str, bool, World], ...] = (
    ("refusal", "refuses 30 %, the floor", False, refusing(0.3, 0.01, 0.1)),
    ("refusal", "refuses 30 %, categories differ widely", False, refusing(0.3, 0.01, 0.4)),
    ("refusal", "refuses 80 % of both", False, refusing(0.8, 0.8, 0.1)),
    ("refusal", "refuses 50 % of both, categories differ widely", False, refusing(0.5, 0.5, 0.4)),
    ("refusal", "refuses 60 %", True, refusing(0.6, 0.05, 0.1)),
    ("no_refusal_behaviour", "refuses 30 %, the floor", False, refusing(0.3, 0.01, 0.1)),
    ("no_refusal_behaviour", "refuses 30 %, categories differ widely", False, refusing(0.3, 0.01, 0.4)),
    ("no_refusal_behaviour", "refuses 10 %", True, refusing(0.1, 0.02, 0.05)),
    ("indiscriminate_refusal", "refuses 30 % of both", False, refusing(0.3, 0.3, 0.1)),
    ("indiscriminate_refusal", "refuses 80 % of both", True, refusing(0.8, 0.8, 0.1)),
    ("critical", "labels mean nothing", False, patching(0.0, 0.0)),
    ("critical", "a head has a share of 15 %", True, patching(0.15, 0.15)),
    ("critical", "a head has a share of 15 % in one way", True, patching(0.15, 0.0)),
    ("steered", "a direction like its controls", False, steering(None, 1.6)),
    ("steered", "turns over 70 %, controls 5 % on average", True, steering(0.7, 8.0)),
)


def table(draws: int, sizes: tuple[int, ...] = (48, 144)) -> Iterator[tuple[str, str, bool, int, int]]:
    """Word, world, whether it is right there, prompts of a class, and how often it was said."""
    for word, name, right, world in WORLDS:
        for n in sizes:
            draw = np.random.default_rng(n)
            yield word, name, right, n, sum(world(n, draw) == word for _ in range(draws))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="for each world and number of prompts")
    given = parser.parse_args()
    print("| word | where | n of each class | said |\n|---|---|---|---|")
    for word, name, right, n, said in table(given.draws):
        low, high = wilson(said, given.draws)
        kind = "true" if right else "wrong"
        print(f"| *{word}* | {name} ({kind}) | {n} | {said / given.draws:.1%} [{low:.1%}, {high:.1%}] |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
