"""What differs between two runs, figure by figure, prompt by prompt.

Both models answered the same prompts, so figures are compared within prompts, and where these come in categories, by
category: the interval leaves out one category at a time (`rcm.stats.by_cluster`; of shares it is never narrower than
that of the prompts alone), the p-value exchanges the two models' values of a whole category, which had they not
differed could have come from either. Without categories prompts take their place. Where runs were asked other prompts,
whole prompts are exchanged instead, and it is said; separation and probe accuracy then may rest on fits to other
prompts as well, which the exchange cannot tell apart, and stay untested.
All p-values of a pair of runs are Holm's, so that one in twenty comparisons of equal models finds anything at all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from rcm.comparison.names import HELD_OUT, REFUSING, REPLIES
from rcm.comparison.reading import Reading
from rcm.record.identity import prompt_digest
from rcm.record.results import Transcripts
from rcm.record.units import Unit, known
from rcm.stats import FEWEST_CLUSTERS, by_cluster, paired_difference_interval
from rcm.stats.separability import separations, spread

DRAWS, SEED = 2000, 0
NAN = float("nan")
ALPHA = 0.05
FEWEST = 8  # prompts, below which nothing is compared
HARMFUL_REFUSED = "harmful prompts refused"
Values = Float[np.ndarray, "*draw prompt"]
Harmful = Bool[np.ndarray, " prompt"]
Statistic = Callable[[Values, Harmful], Float[np.ndarray, "*draw"]]
Sample = dict[tuple[str, str], float]  # by kind and prompt


@dataclass(frozen=True)
class Compared:
    """A figure that both runs have, prompt by prompt. `sample` reads a run's; empty where it has none. `fitted`: it
    rests on training prompts, too."""

    label: str
    sample: Callable[[Reading], Sample]
    statistic: Statistic
    unit: Unit
    fitted: bool = False

    def of(self, values: Values, harmful: Harmful) -> float:
        return float(self.statistic(values[None], harmful)[0])


@dataclass(frozen=True)
class Change:
    """From an earlier run to a later one; `interval` is that of the difference. `p` holds for all figures of the two
    runs together; NaN where nothing was tested. `d`: Cohen's, of the differences within prompts; None where there is
    none. `n`: prompts that both runs were asked; None where they were asked others."""

    label: str
    unit: Unit
    before: float
    after: float
    interval: tuple[float, float]
    p: float
    d: float | None = None
    n: int | None = None

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def significant(self) -> bool:
        return self.p <= ALPHA


def changes(before: Reading, after: Reading) -> list[Change]:
    """Every figure that both runs have."""
    found = [one for figure in FIGURES if (one := _change(figure, before, after))]
    corrected = iter(holm([one.p for one in found if known(one.p)]))
    return [replace(one, p=next(corrected)) if known(one.p) else one for one in found]


def _change(figure: Compared, before: Reading, after: Reading) -> Change | None:
    first, second = figure.sample(before), figure.sample(after)
    common = [key for key in first if key in second]
    if min(len(first), len(second)) < FEWEST:
        return None
    if len(common) == len(first) == len(second):
        values = np.array([[sample[key] for key in common] for sample in (first, second)])
        names = _categories(before)
        return paired(figure, values, _harmful(common), [names.get(key, "") for key in common])
    return _unpaired(figure, first, second)


def paired(
    figure: Compared, values: Float[np.ndarray, "2 prompt"], harmful: Harmful, categories: Sequence[str] = ()
) -> Change:
    """Of an earlier and a later run on the same prompts."""
    draw, n = np.random.default_rng(SEED), values.shape[1]
    of_prompt = np.arange(n)
    if all(categories) and len(set(categories)) >= FEWEST_CLUSTERS:
        of_prompt = np.unique(np.asarray(categories), return_inverse=True)[1]
    swap = (draw.random((DRAWS, of_prompt.max() + 1)) < 0.5)[:, of_prompt]
    exchanged = [np.where(swap, values[1 - i], values[i]) for i in (0, 1)]
    before, after = (figure.of(one, harmful) for one in values)
    chance = np.subtract(*(figure.statistic(one, harmful) for one in exchanged[::-1]))
    interval = _paired_interval(figure, values, harmful, categories, draw)
    p = _p(after - before, chance)
    return Change(figure.label, figure.unit, before, after, interval, p, _cohen(figure, values), n)


def _paired_interval(
    figure: Compared,
    values: Float[np.ndarray, "2 prompt"],
    harmful: Harmful,
    categories: Sequence[str],
    draw: np.random.Generator,
) -> tuple[float, float]:
    if figure.statistic is share:
        return paired_difference_interval(values[0] > 0.5, values[1] > 0.5, categories)

    def difference(index: np.ndarray) -> float:
        before, after = (figure.of(one[index], harmful[index]) for one in values)
        return after - before

    by_category = by_cluster(difference, categories)
    if by_category is not None:
        return by_category
    again = resampled(harmful, draw)
    before, after = (figure.statistic(one[again], harmful) for one in values)
    return _quantiles(after - before)


def _categories(reading: Reading) -> dict[tuple[str, str], str]:
    """Of every prompt that the run asked, by kind and digest; where it says what categories they have."""
    replies = next((one for one in reading.every(Transcripts) if one.name == REPLIES), None)
    return {
        (str(row["kind"]), prompt_digest(str(row["prompt"]))): str(row.get("category", ""))
        for row in (replies.rows if replies else ())
    }


def _unpaired(figure: Compared, first: Sample, second: Sample) -> Change:
    draw = np.random.default_rng(SEED)
    sides = [(np.array(list(sample.values())), _harmful(list(sample))) for sample in (first, second)]
    before, after = (figure.of(*side) for side in sides)
    if figure.fitted:
        return Change(figure.label, figure.unit, before, after, interval=(NAN, NAN), p=NAN)
    return _change_of(
        figure,
        [before, after],
        [figure.statistic(values[resampled(harmful, draw)], harmful) for values, harmful in sides],
        [figure.statistic(*side) for side in _exchanged(sides, draw)],
    )


def _exchanged(
    sides: Sequence[tuple[Values, Harmful]], draw: np.random.Generator
) -> Iterator[tuple[Float[np.ndarray, "draw prompt"], Harmful]]:
    """Prompts of both runs dealt out anew, within each class."""
    dealt: list[list[np.ndarray]] = []
    for kind in (True, False):
        own = [values[harmful == kind] for values, harmful in sides]
        pooled = draw.permuted(np.tile(np.concatenate(own), (DRAWS, 1)), axis=1)
        dealt.append(np.split(pooled, [len(own[0])], axis=1))
    for harmful, harmless in zip(*dealt, strict=True):
        yield np.concatenate([harmful, harmless], 1), np.repeat([True, False], [harmful.shape[1], harmless.shape[1]])


def _change_of(
    figure: Compared, observed: Sequence[float], drawn: Sequence[Values], chance: Sequence[Values]
) -> Change:
    """Each of the earlier and of the later run: the figure, resampled, and exchanged."""
    before, after = observed
    p = _p(after - before, chance[1] - chance[0])
    return Change(figure.label, figure.unit, before, after, _quantiles(drawn[1] - drawn[0]), p)


def _quantiles(drawn: Values) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _p(difference: float, chance: Values) -> float:
    """How often chance differs as much, counting what was observed; NaN where there is no difference to speak of."""
    if not known(difference):
        return NAN
    return (1 + int((np.abs(chance) >= abs(difference) - 1e-9).sum())) / (1 + DRAWS)


def _cohen(figure: Compared, values: Float[np.ndarray, "2 prompt"]) -> float | None:
    """Mean difference within a prompt, in standard deviations of it."""
    differences = values[1] - values[0]
    spread = differences.std(ddof=1)
    return float(differences.mean() / spread) if figure.statistic is share and spread > 0 else None


def resampled(harmful: Harmful, draw: np.random.Generator) -> np.ndarray:
    """Indices of prompts drawn with replacement, of each class as many as there are; a row for each draw."""
    index = np.empty((DRAWS, len(harmful)), dtype=int)
    for kind in (True, False):
        own = np.flatnonzero(harmful == kind)
        if len(own):
            index[:, own] = own[draw.integers(len(own), size=(DRAWS, len(own)))]
    return index


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) p-values: the chance of any false alarm among all of them."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate([(len(p) - rank) * p[i] for rank, i in enumerate(order)])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, stepped)
    return adjusted.tolist()


def _harmful(keys: Sequence[tuple[str, str]]) -> Harmful:
    return np.array([kind == "harmful" for kind, _ in keys], dtype=bool)


def share(values: Values, harmful: Harmful) -> Float[np.ndarray, "*draw"]:
    return values.mean(-1)


def separation(values: Values, harmful: Harmful) -> Float[np.ndarray, "*draw"]:
    return separations(values[..., harmful], values[..., ~harmful])


def _refused(kind: str) -> Callable[[Reading], Sample]:
    def sample(reading: Reading) -> Sample:
        replies = next((one for one in reading.every(Transcripts) if one.name == REPLIES), None)
        return {
            (kind, prompt_digest(str(row["prompt"]))): float(row["verdict"] in REFUSING)
            for row in (replies.rows if replies else ())
            if row["kind"] == kind
        }

    return sample


def _held_out(column: str) -> Callable[[Reading], Sample]:
    def sample(reading: Reading) -> Sample:
        return {(row["kind"], row["prompt"]): float(row[column]) for row in reading.rows(HELD_OUT)}

    return sample


def _projections(reading: Reading) -> Sample:
    """In standard deviations within a class, around the middle of the classes: two models' are to be exchanged."""
    sample = _held_out("projection")(reading)
    values, harmful = np.array(list(sample.values())), _harmful(list(sample))
    if not len(values):
        return sample
    middle = (values[harmful].mean() + values[~harmful].mean()) / 2
    scaled = (values - middle) / (float(spread(values[harmful], values[~harmful])) or 1.0)
    return dict(zip(sample, scaled.tolist(), strict=True))


FIGURES = (
    Compared(HARMFUL_REFUSED, _refused("harmful"), share, "share"),
    Compared("harmless prompts refused", _refused("harmless"), share, "share"),
    Compared("safe lookalikes refused", _refused("lookalike"), share, "share"),
    Compared("separation", _projections, separation, "sigma", fitted=True),
    Compared("probe accuracy", _held_out("probe_correct"), share, "share", fitted=True),
)
