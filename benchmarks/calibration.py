"""How often is what rcm concludes wrong? python benchmarks/calibration.py [--draws 2000] [--out FILE.json]

Tables of effects are made up under truths that we set, and go through the very functions that conclude from measured
ones: shares with intervals (`rcm.transplant.shares`), changes (`rcm.comparison.changes`), rules
(`rcm.comparison.rule`). Every prompt differs from the others of its category, and every category from the others. What
is *wrong* is a word other than the truth's; `open` is never wrong, and never right.

Prints, for each truth, how often each word was said, and for each word, how often it was wrong and how often it was
found, with Wilson's intervals.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from rcm.comparison.changes import FIGURES, paired
from rcm.comparison.rule import (
    BEHAVIOUR,
    COUPLING,
    MIXED,
    OPEN,
    REPRESENTATION,
    UNCHANGED,
    Bounds,
    Measured,
    Parts,
    decided,
)
from rcm.stats import wilson
from rcm.stats.separability import separation
from rcm.transplant.shares import PartEffects, shares

NAN = float("nan")
CATEGORIES, LAYERS, REFITS = 12, 30, 19
WORDS = (COUPLING, REPRESENTATION, MIXED, BEHAVIOUR, UNCHANGED, OPEN)
Draw = np.random.Generator


@dataclass(frozen=True)
class Truth:
    """A world to draw tables from. `share`: range of what the part along the earlier's direction does of the own one's
    effect; `cosine`: range of that of the two directions; None where the earlier's is one more refit of the later's.
    `nats`: the own direction's effect. `refuses`: before and after. `told_apart`: sigma by which the earlier model
    separates the classes where it does so best. `refits`: cosine and effect of the own refits, of 1."""

    name: str
    word: str
    share: tuple[float, float] = (0.0, 0.0)
    cosine: tuple[float, float] | None = (0.0, 0.0)
    nats: float = 6.0
    refuses: tuple[float, float] = (0.1, 0.85)
    told_apart: float = 2.0
    refits: float = 0.95


TRUTHS = (
    Truth("same direction, rewired", COUPLING, (0.95, 1.0), None),
    Truth("a new direction, orthogonal", REPRESENTATION, (0.0, 0.05), (-0.1, 0.2)),
    Truth("a new direction, close to the old one (cosine .8)", REPRESENTATION, (0.0, 0.05), (0.75, 0.85)),
    Truth("half of each", MIXED, (0.45, 0.55), (0.65, 0.75)),
    Truth("the base cannot tell", BEHAVIOUR, (0.0, 0.05), (-0.1, 0.1), told_apart=0.0),
    Truth("nothing changed", UNCHANGED, (0.95, 1.0), None, refuses=(0.1, 0.1)),
    Truth("nothing changed, both refuse", UNCHANGED, (0.95, 1.0), None, refuses=(0.85, 0.85)),
    # Nothing should be said of these, and nothing is right.
    Truth("the own direction does nothing", OPEN, (0.0, 1.0), (0.0, 0.9), nats=0.0),
    Truth("a vector as close would do as much", OPEN, (0.85, 0.95), (0.89, 0.91)),
    # Hard ones: that the word is found is not asked, that no other is said is.
    Truth("a little more refusing, by 5 %", UNCHANGED, (0.95, 1.0), None, refuses=(0.1, 0.15)),
    Truth("three quarters along", MIXED, (0.7, 0.75), (0.8, 0.9)),
    Truth("same direction, from few prompts", COUPLING, (0.4, 0.7), None, refits=0.7),
    Truth("a weak direction, same", COUPLING, (0.95, 1.0), None, nats=1.5),
)
HARD = TRUTHS[-4:]


def measured(truth: Truth, n: int, draw: Draw) -> Measured:
    """One table of this world, with `n` prompts of each class."""
    share = draw.uniform(*truth.share)
    *refits, refit = truth.refits + 0.015 * draw.standard_normal(REFITS + 1)
    cosine = refit if truth.cosine is None else draw.uniform(*truth.cosine)
    parts = {operation: _parts(_effects(truth, share, cosine, n, draw)) for operation in ("ablate", "add")}
    change = paired(FIGURES[0], _refused(truth.refuses, n, draw), np.ones(n, dtype=bool), _categories(n))
    before, highest = _separations(truth.told_apart, n, draw)
    return Measured(
        more_refused=Bounds(change.difference, *change.interval),
        separation=before,
        separation_null=0.5,
        most_separable=highest,
        parts=parts,
        cosine=cosine,
        refit_cosine=min(refits),
        confirmed=True,
    )


def _categories(n: int) -> list[str]:
    return [str(i % CATEGORIES) for i in range(n)]


def _effects(truth: Truth, share: float, cosine: float, n: int, draw: Draw) -> PartEffects:
    """Effects that bend: what both parts do together is less than the sum, as log-odds near their ends are."""
    nats, category = truth.nats, np.arange(n) % CATEGORIES

    def scattered(mean: float) -> np.ndarray:
        """Prompts and categories scatter by a third and a quarter of the effect, and by half a nat whatever it is."""
        of_category = 1 + 0.25 * draw.standard_normal(CATEGORIES)[category]
        return mean * of_category * (1 + 0.33 * draw.standard_normal(n)) + 0.5 * draw.standard_normal(n)

    along, across = scattered(share * nats), scattered((1 - share) * nats)
    bend = 0.15 * np.minimum(np.abs(along), np.abs(across))
    both = along + across - bend
    refits = nats * (truth.refits + 0.08 * draw.standard_normal(REFITS))
    geometric = nats * cosine * abs(cosine)
    alike = geometric + 0.12 * abs(nats) * draw.standard_normal(REFITS)
    return PartEffects(_categories(n), along, across, both, along, refits, alike)


def _parts(effects: PartEffects) -> Parts:
    found = shares(effects)
    return Parts(Bounds(*found.own), Bounds(*found.along), found.other, found.refits, found.alike)


def _refused(rates: tuple[float, float], n: int, draw: Draw) -> np.ndarray:
    """Before and after, prompt by prompt; what one refuses readily the other does, too."""
    readiness = draw.standard_normal(n) + 0.5 * draw.standard_normal(CATEGORIES)[np.arange(n) % CATEGORIES]
    spread = np.sqrt(1 + 0.25)
    latent = 0.7 * readiness / spread + np.sqrt(1 - 0.49) * draw.standard_normal((2, n))
    thresholds = [float(norm.ppf(1 - rate)) for rate in rates]
    return np.array([latent[i] > thresholds[i] for i in (0, 1)], dtype=float)


def _separations(apart: float, n: int, draw: Draw) -> tuple[Bounds, float]:
    """At the place of the most, and the largest upper end over all layers, which are as one to nine tenths."""
    common = draw.standard_normal((2, n))
    layers = [0.9**0.5 * common + 0.1**0.5 * draw.standard_normal((2, n)) for _ in range(LAYERS)]
    depth = np.linspace(0, 1, LAYERS)
    found = [_bounded(separation(x[0] + apart * d, x[1]), n) for x, d in zip(layers, depth, strict=True)]
    return found[-1], max(one.high for one in found)


def _bounded(value: float, n: int) -> Bounds:
    error = float(np.sqrt(2 / n + value**2 / (4 * n)))
    return Bounds(value, value - 1.96 * error, value + 1.96 * error)


def said(truth: Truth, n: int, draws: int, seed: int) -> Counter[str]:
    """How often each word was said of this world."""
    draw = np.random.default_rng([seed, n])
    return Counter(decided(measured(truth, n, draw)).word for _ in range(draws))


def table(n: int, draws: int) -> list[dict[str, Any]]:
    """A row for each truth: the words, the wrong ones and the right ones, as shares with intervals."""
    rows: list[dict[str, Any]] = []
    for seed, truth in enumerate(TRUTHS):
        words = said(truth, n, draws, seed)
        right = words[truth.word] if truth.word != OPEN else 0
        wrong = draws - words[OPEN] - right
        rows.append(
            {
                "truth": truth.name,
                "word": truth.word,
                "n": n,
                "draws": draws,
                **{word: words[word] / draws for word in WORDS},
                "wrong": [wrong / draws, *wilson(wrong, draws)],
                "right": [right / draws, *wilson(right, draws)],
            }
        )
    return rows


def by_word(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each conclusion and number of prompts: how often it was said where it is wrong, of all tables of other
    truths; and how often it was found, in the truths that are not hard."""
    hard = {truth.name for truth in HARD}
    found: list[dict[str, Any]] = []
    for n, word in product(dict.fromkeys(row["n"] for row in rows), WORDS[:-1]):
        others = [row for row in rows if row["n"] == n and row["word"] != word]
        own = [row for row in rows if row["n"] == n and row["word"] == word and row["truth"] not in hard]
        wrong, of_wrong = (sum(round(row[word] * row["draws"]) for row in others), sum(r["draws"] for r in others))
        right, of_right = (sum(round(row[word] * row["draws"]) for row in own), sum(row["draws"] for row in own))
        figures = {"wrong": (wrong, of_wrong), "found": (right, of_right)}
        shares = {name: [a / b, *wilson(a, b)] if b else [NAN] * 3 for name, (a, b) in figures.items()}
        found.append({"word": word, "n": n} | shares)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="tables for each truth")
    parser.add_argument("--prompts", type=int, nargs="+", default=[24, 48, 96], help="of each class")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    given = parser.parse_args()
    started = time.perf_counter()
    rows = [row for n in given.prompts for row in table(n, given.draws)]
    print(f"{'truth':52}{'n':>4}" + "".join(f"{word:>16}" for word in WORDS) + f"{'wrong':>24}")
    for row in rows:
        wrong = "{:.1%} [{:.1%}, {:.1%}]".format(*row["wrong"])
        print(f"{row['truth']:52}{row['n']:4}" + "".join(f"{row[word]:16.1%}" for word in WORDS) + f"{wrong:>24}")
    words = by_word(rows)
    for row in words:
        figures = "   ".join("{} {:.1%} [{:.1%}, {:.1%}]".format(name, *row[name]) for name in ("wrong", "found"))
        print(f"{row['word']:16}{row['n']:4} prompts of each class   {figures}")
    seconds = time.perf_counter() - started
    print(f"{given.draws} tables a row, {seconds:.0f} s")
    if given.out:
        given.out.write_text(json.dumps({"rows": rows, "words": words, "seconds": seconds}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
