"""Which neurons of the MLPs decide on refusal: by exact effect, and by the ways that were published, side by side.

A neuron is an input of a down projection (`rcm.execution.components`); in every step it is read and exchanged at the
last token of the prompt, but in the twin contrast, which is of the tokens of replies.

On training pairs, which choose:

1. Score all neurons by attribution (`rcm.circuits.neurons`), from one forward and one backward pass for each prompt.
2. Exchange the first `candidates` of them one by one, harmless into harmful (necessity) and harmful into harmless
   (sufficiency), exactly (`rcm.execution.rows`); and `random` others of the same layers, which tell how well
   attribution ranks, and what it misses.
3. Choose four sets of as many neurons: by exact effect, by attribution, by contrast of activations (CNA:
   arXiv:2605.12290), and by contrast with the model's base on the model's own replies (safety neurons:
   arXiv:2406.14144). What the published ways choose is exchanged in step 2, too, so that the exact way may choose it.
   CNA leaves out universal neurons, which are told on the first sentences of 20 plain texts (`rcm/assets/plain.txt`),
   asked as prompts.

On test pairs, which had no part in choosing and judge:

4. Each set as a whole, both ways, as a share of the pair's gap, beside random sets of as many neurons of the same
   layers. Refusing is `localised` in neurons if the exact set does more than those, and certainly more than
   `min_share`.
5. How much the first neurons do, by exact effect, over how many there are; beside random ones of the same layers.
6. Every chosen neuron alone.

How alike the sets are is told beside what random sets of the same layers share.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from scipy.stats import rankdata, spearmanr

from rcm.circuits.neurons import (
    CONTRASTED_FROM,
    AllNeurons,
    Chosen,
    NeuronAttribution,
    Scores,
    attribute_neurons,
    contrastive,
    found_by,
    highest,
    jaccard,
    of_same_layers,
    random_jaccard,
    twin_contrast,
    universal,
)
from rcm.circuits.neurons import work as attribution_work
from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.components import Component, Rows
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.execution.work import (
    MIDDLE,
    Scope,
    Work,
    asked_once,
    compared,
    decoded,
    interchanged,
    recorded,
    together,
)
from rcm.judges.behaviour import RefusalBehaviour
from rcm.methods import Method, Study
from rcm.methods.obstacles import nothing_refused
from rcm.models import LoadedModel
from rcm.patching import ALPHA, Interchange, Pairs, beside_random, interchange
from rcm.patching.conclusion import LOCALISED, NO_GAP, OPEN, UNSPECIFIC
from rcm.patching.effects import LOST, WAYS
from rcm.patching.together import PAIRS_PER_ORDER
from rcm.prompts import Part, texts
from rcm.record.results import Column, Curve, Heatmap, Line, Null, Outcome, Result, Scalar, Table, Word, Words
from rcm.stats import ENOUGH, FEWEST, mean_interval, reached
from rcm.steering.measurements import plain_prompts

log = logging.getLogger(__name__)

NO_NEURONS, WEAK = "no_neurons", "weak"
WORDS: Words = {
    LOCALISED: Word(
        "on pairs that did not choose them, the neurons of the largest exact effect do more than random neurons of the "
        "same layers, and certainly more than min_share",
        "See what they read and write, and whether other ways to choose find the same.",
    ),
    WEAK: Word(
        "they do more than random ones, and certainly something, but not certainly more than min_share",
        "Use more pairs, or more neurons together.",
    ),
    UNSPECIFIC: Word(
        "they do no more than random ones, or not certainly anything",
        "Do not call them refusal neurons; look at whole MLPs.",
    ),
    NO_GAP: Word(
        "in no pair do the harmful and the harmless prompt differ enough in refusing for anything to be restored",
        "Use pairs that the model treats differently.",
    ),
    NO_NEURONS: Word("no MLP has neurons that can be exchanged", "Use patching, which exchanges whole MLP outputs."),
    OPEN: Word("there is too little to judge by", "Use more pairs, and more random sets."),
}
RANDOM_NEURONS = "random sets of neurons of the same layers"
UNRELATED = 20  # plain texts, asked as prompts, on which universal neurons are told
PERMUTED = 200  # draws of a rank correlation, and ten times as many of an overlap, which cost nothing
SIZES = 12  # at most, of the sets that begin with the first neuron
SHARE = "share of the gap"
OTHER: dict[str, Literal["harmful", "harmless"]] = {"necessity": "harmless", "sufficiency": "harmful"}
NO_INTERVAL = (math.nan, math.nan)
TOP = 20  # neurons that pages show
Exchange = Callable[..., Interchange]  # of pairs and rows, with a label
EXACT, ATTRIBUTION, CONTRASTIVE, TWIN = "exact", "attribution", "contrastive", "twin_contrast"
LABELS = {
    EXACT: "exact effect",
    ATTRIBUTION: "attribution",
    CONTRASTIVE: "contrast of activations (CNA)",
    TWIN: "contrast with the base (safety neurons)",
}
SHORT = {EXACT: "exact", ATTRIBUTION: "attribution", CONTRASTIVE: "CNA", TWIN: "twin contrast"}


@dataclass(frozen=True)
class Selection:
    """The neurons that one way chooses, the highest first, by its scores of all neurons; none where it cannot, and
    `why_not`."""

    name: str
    scores: Scores
    chosen: Chosen
    why_not: str = ""

    def ranks(self) -> Float[np.ndarray, " neuron"]:
        """From 1; NaN of a neuron without a score."""
        return np.asarray(rankdata(-self.scores, method="min", nan_policy="omit"), dtype=float)


class Neurons(Method):
    """`pairs`: training pairs that choose; `test_pairs`: that judge; null is all. `candidates`: how many neurons to
    exchange one by one, the first by attribution, and `random`: how many others of the same layers. `share_of_neurons`:
    of all neurons, in each selection. `twin_prompts`: harmful training prompts that the twin contrast is of, with
    replies of `twin_tokens` tokens; it loads the model's base beside the model for a moment. `min_gap` in nats;
    `min_share` of the gap. `random_sets`: how many beside each selection.
    """

    pairs: PositiveInt | None
    test_pairs: PositiveInt | None
    candidates: PositiveInt
    random: PositiveInt
    share_of_neurons: PositiveFloat
    twin_prompts: NonNegativeInt
    twin_tokens: PositiveInt
    min_gap: NonNegativeFloat
    min_share: NonNegativeFloat
    random_sets: PositiveInt

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)
    judged: ClassVar = False

    def work(self, scope: Scope) -> list[Work]:
        """Of pairs that all have a gap; the base of an adapter, which the twin contrast loads, is left out."""
        train, test = scope.pairs(scope.prompts.train, self.pairs), scope.pairs(scope.prompts.test, self.test_pairs)
        every = scope.layers * scope.neurons
        k = max(1, round(self.share_of_neurons * every))
        alone = min(every, self.candidates + self.random)
        groups = [test[start : start + PAIRS_PER_ORDER] for start in range(0, len(test), PAIRS_PER_ORDER)]
        # Of so many neurons, anywhere in the model, the first lies at this share of the layers, on average.
        sizes = np.unique(np.geomspace(1, max(1, every // 2), SIZES).round())
        orders = np.repeat(1 / (sizes + 1), 1 + -(-self.random_sets // max(1, len(groups))))
        firsts = plain_prompts(UNRELATED)
        plain = scope.lengths(one._replace(text=one.text.partition(". ")[0] + ".") for one in firsts)
        size = scope.batch_size
        asked = scope.lengths(scope.prompts.train.harmful[: self.twin_prompts])
        twins = [recorded(scope, [length + self.twin_tokens]).times(2) for length in asked]
        ways = len(SHORT) - 1
        return [
            compared(scope, train, neurons=True),
            attribution_work(scope, train),
            together("universal neurons", [recorded(scope, plain[i : i + size]) for i in range(0, len(plain), size)]),
            together(
                "replies", [decoded(scope, "", asked_once(asked), self.twin_tokens), *twins] if asked else [], least=0.0
            ),
            interchanged(
                scope,
                "each neuron",
                train,
                np.full(alone, MIDDLE),
                least=self.candidates / (self.candidates + self.random),
            ),
            interchanged(scope, "gaps of test pairs", test, np.zeros(0)),
            interchanged(scope, "each selection", test, np.full(ways * (1 + self.random_sets), 1 / (k + 1))),
            interchanged(scope, "all neurons", test, np.zeros(1)),
            together("the first neurons", [interchanged(scope, "", group, orders) for group in groups]),
            interchanged(scope, "each chosen neuron", test, np.full(ways * k, MIDDLE)),
        ]

    def run(self, study: Study) -> Generator[Result, None, None]:
        """What attribution is worth, the selections, how alike they are, and what they do; nothing is exchanged in a
        model that does not refuse."""
        model, prompts, seed = study.model, study.prompts, study.seed
        found, every = study[RefusalDirection], AllNeurons(model.points.neurons)
        stopped = _stopped(study, every)
        if stopped is not None:
            yield stopped
            return
        asked = Pairs.of(model, prompts.train, prompts.paired).first(self.pairs)
        engine = _engine(model, asked, seed)
        yield from _told(engine)

        attributed = attribute_neurons(
            model, asked.tokens, LogOdds(found.refusal_tokens), "neurons: attribution, forward and backward"
        )
        with_gap = (attributed.gap.abs() >= self.min_gap) & (attributed.gap != 0)
        yield _count("pairs", "chose", int(with_gap.sum()), len(asked))
        if not with_gap.any():
            why = f"In no training pair does the metric differ by {self.min_gap:g} or more."
            yield Outcome("neurons/outcome", NO_GAP, why, complete=False, words=WORDS)
            return
        choosing = asked.some(torch.nonzero(with_gap)[:, 0].tolist())
        k = max(1, round(self.share_of_neurons * len(every)))
        published = self._published(model, every, attributed.where(with_gap), prompts.train, k)
        by_attribution = published[0]
        candidates = highest(np.abs(by_attribution.scores), self.candidates)
        drawn = of_same_layers(every, candidates, self.random, seed)
        patched = np.unique(np.concatenate([candidates, drawn, *(one.chosen for one in published)]))
        rows = 2 * len(patched) * len(choosing)
        log.info("Exchanging %d neurons in %d pairs, both ways: %d rows", len(patched), len(choosing), rows)
        exchange = partial(_exchanged, engine, found)
        of_each = exchange(choosing, _rows([[one] for one in every.components(patched)], engine), label="each of them")
        shares = np.full(len(every), np.nan)
        shares[patched] = of_each.shares.mean((0, 1)).numpy()
        yield from _worth(every, shares, by_attribution, candidates, drawn, k, seed)

        exact = Selection(EXACT, shares, highest(_positive(shares), k), "No neuron does anything for refusing.")
        selections = [exact, *published]
        figures = {one.name: one for one in _overlaps(every, selections, seed)}
        yield from figures.values()
        yield _by_layer(every, selections)

        test = Pairs.of(model, prompts.test, prompts.paired).first(self.test_pairs)
        held_out = _of_gap(exchange, test, engine, self.min_gap)
        yield _count("test_pairs", "judge", len(held_out), len(test))
        if len(held_out):
            for figure in self._together(exchange, held_out, every, engine, selections, seed):
                figures[figure.name] = figure
                if figure.name.endswith("_share") or figure.name.startswith(f"neurons/{EXACT}_"):
                    yield figure  # the others are in the table
            yield from _all_neurons(exchange, held_out, every, engine)
        yield _selections_table(selections, figures)
        yield self._concluded(selections, figures)
        if len(held_out) and len(exact.chosen):
            yield self._kept(exchange, held_out, every, engine, highest(_positive(shares), len(every)), seed)
            yield _alone(exchange, held_out, every, engine, selections)

    def _published(
        self, model: LoadedModel, every: AllNeurons, attributed: NeuronAttribution, train: Part, k: int
    ) -> list[Selection]:
        """What attribution, contrast of activations and contrast of twins choose, of pairs that all have a gap."""
        by_attribution = attributed.shares.mean(0)
        # Of each text its first sentence, which is as long as a prompt.
        plain = [model.template.tokens(one.text.partition(". ")[0] + ".") for one in plain_prompts(UNRELATED)]
        contrast = contrastive(every, attributed.difference, universal(model, plain))
        none = np.full(len(every), np.nan)
        twins, why_not = none, "twin_prompts is 0."
        if model.base is None:
            why_not = "The model has no adapter, so its base is not at hand; give it as base and adapter."
        elif self.twin_prompts:
            why_not = "Every reply was empty, or all neurons are in the last layer."
            twins = twin_contrast(model, model.base(), texts(train.harmful[: self.twin_prompts]), self.twin_tokens)
        return [
            Selection(ATTRIBUTION, by_attribution, highest(_positive(by_attribution), k), "No score is above zero."),
            Selection(
                CONTRASTIVE,
                contrast,
                highest(contrast, k),
                f"The model has no more than {CONTRASTED_FROM} layers, or all neurons of the others are universal.",
            ),
            Selection(TWIN, twins, highest(twins, k), why_not),
        ]

    def _together(
        self,
        exchange: Exchange,
        pairs: Pairs,
        every: AllNeurons,
        engine: Engine,
        selections: Sequence[Selection],
        seed: int,
    ) -> Iterator[Scalar]:
        """Each selection as one set beside random sets: both ways together, and each way."""
        sets = {one.name: every.components(one.chosen) for one in selections if len(one.chosen)}
        if not sets:
            return

        def random(n: int, seed: int) -> Rows:
            return _random(n, list(sets.values()), every, engine, seed)

        labelled = partial(exchange, label="each selection")
        ours, others = beside_random(
            labelled, pairs, _rows(sets.values(), engine), random, self.random_sets, len(pairs), seed
        )
        both = np.concatenate([ours.mean(0, keepdims=True), ours])
        chance = np.concatenate([others.mean(0, keepdims=True), others])
        for place, name in enumerate(sets):
            for way, mine, theirs in zip(("share", *WAYS), both[..., place], chance[..., place], strict=True):
                does = (
                    "mean of the two ways" if way == "share" else f"refusal {LOST[way]} with {pairs.other(OTHER[way])}"
                )
                yield Scalar(
                    f"neurons/{name}_{way}",
                    float(mine.mean()),
                    mean_interval(mine, pairs.categories),
                    len(mine),
                    Null.of_draws(theirs, RANDOM_NEURONS, figure=float(mine.mean())),
                    counts="pairs",
                    unit="share",
                    label=LABELS[name] if way == "share" else way,
                    row="chosen neurons together" if way == "share" else f"neurons by {LABELS[name]} together",
                    hint=f"{does}, share of the gap; exchanged at the last token of test pairs, which did not choose",
                    good="high",
                    absent="Nothing was chosen, or no test pair has a gap.",
                )

    def _kept(
        self, exchange: Exchange, pairs: Pairs, every: AllNeurons, engine: Engine, order: Chosen, seed: int
    ) -> Curve:
        """What the first neurons do together, in an order that training pairs decided on, beside random ones."""
        sizes = np.unique(np.geomspace(1, len(order), SIZES).round().astype(int)).tolist()
        firsts = [every.components(order[:size]) for size in sizes]

        def random(n: int, seed: int) -> Rows:
            return _random(n, firsts, every, engine, seed)

        labelled = partial(exchange, label="the first neurons together")
        ours, others = beside_random(
            labelled, pairs, _rows(firsts, engine), random, self.random_sets, PAIRS_PER_ORDER, seed
        )
        shares, draws = ours.mean(0), others.mean(0)
        ends = [mean_interval(of_size, pairs.categories) or NO_INTERVAL for of_size in shares.T]
        reach = [[_reached(draws[:, size], high) for size in range(len(sizes))] for high in (False, True)]
        return Curve(
            "neurons/kept",
            [float(size) for size in sizes],
            [
                Line(
                    "largest exact effect first",
                    shares.mean(0).tolist(),
                    *(list(end) for end in zip(*ends, strict=True)),
                ),
                Line("random neurons of the same layers", np.median(draws, axis=0).tolist(), *reach),
            ],
            "neurons exchanged together",
            SHARE,
            "how few neurons do most",
            "Mean of necessity and sufficiency on test pairs, at the last token; the order is that of the training "
            "pairs, up to the last neuron for refusing. Bands: 95 % interval; what 95 % of random sets stay above and "
            "below.",
        )

    def _concluded(self, selections: Sequence[Selection], figures: dict[str, Scalar]) -> Outcome:
        """Whether the neurons of the largest exact effect do more than random ones, and what the others do."""
        exact, judged = selections[0], figures.get(f"neurons/{EXACT}_share")
        if not len(exact.chosen):
            return Outcome("neurons/outcome", UNSPECIFIC, exact.why_not, words=WORDS)
        if judged is None:
            return Outcome("neurons/outcome", OPEN, "No test pair has a gap to judge the neurons on.", words=WORDS)
        null = judged.null
        if null is None or null.p is None or (null.draws or 0) < ENOUGH:
            why = f"There are fewer than {ENOUGH} random sets to judge the neurons by."
            return Outcome("neurons/outcome", OPEN, why, words=WORDS)
        if judged.interval is None or (judged.n or 0) < FEWEST:
            why = f"{judged.n} test pairs with a gap are too few to judge the neurons on; {FEWEST} would do."
            return Outcome("neurons/outcome", OPEN, why, words=WORDS)
        low, high = judged.interval
        if null.p > ALPHA or low <= 0:
            word, but = UNSPECIFIC, ", no more than chance" if null.p > ALPHA else ", not certainly anything"
        elif low > self.min_share:
            word, but = LOCALISED, ""
        else:
            word, but = WEAK, f", not certainly above {self.min_share:.0%}"
        others = [
            f"{SHORT[one.name]} {figures[f'neurons/{one.name}_share'].value:+.0%}"
            if len(one.chosen)
            else f"{SHORT[one.name]} none ({one.why_not.removesuffix('.')})"
            for one in selections[1:]
        ]
        because = (
            f"On {judged.n} test pairs the {len(exact.chosen)} neurons of the largest exact effect together do "
            f"{judged.value:+.0%} of the gap [{low:.0%}, {high:.0%}] at the last token{but}; {null.of} reach "
            f"{null.value:+.0%} (p = {null.p:.2g}). As many by other ways: {', '.join(others)}."
        )
        return Outcome("neurons/outcome", word, because, words=WORDS)


def _stopped(study: Study, every: AllNeurons) -> Outcome | None:
    """Why there is nothing to do; None where there is."""
    stopped = nothing_refused(study, "neurons/outcome", "There is no refusing to localise.")
    if stopped is not None:
        return stopped
    if len(every):
        return None
    why = (
        "No MLP of the model has a down projection that rcm knows (in a mixture of experts each expert has one), so "
        "there are no neurons to exchange."
    )
    return Outcome("neurons/outcome", NO_NEURONS, why, complete=False, words=WORDS)


def _engine(model: LoadedModel, pairs: Pairs, seed: int) -> Engine:
    """Checked on sets of neurons, too, in the pair whose lengths differ most."""
    harmful, harmless = max(pairs.tokens, key=lambda pair: abs(len(pair[0]) - len(pair[1])))
    base, source = (cache_components(model, both, neurons=True) for both in ([harmful, harmless], [harmless, harmful]))
    return engine_of(model, base, source, seed)


def _told(engine: Engine) -> Iterator[Result]:
    reason = f"{engine.reason[0].upper()}{engine.reason[1:]}."
    hint = "rows: all in one pass; loop: one pass for each"
    yield Outcome("neurons/engine", engine.path, reason, label="engine", hint=hint)
    if engine.error is not None:
        yield Scalar(
            "neurons/engine_error",
            engine.error,
            label="error of the engine",
            hint="largest difference of a logit from the slow loop's, sets of neurons among the rows",
            good="low",
        )


def _exchanged(engine: Engine, found: RefusalDirection, pairs: Pairs, patches: Rows, label: str) -> Interchange:
    """Both ways, at the last token of every pair."""
    return interchange(engine, pairs.tokens, patches, LogOdds(found.refusal_tokens), label=f"neurons: {label}")


def _of_gap(exchange: Exchange, pairs: Pairs, engine: Engine, min_gap: float) -> Pairs:
    """Those that have a gap, whichever prompt is refused more."""
    if not len(pairs):
        return pairs
    study = exchange(pairs, _rows([], engine), label="gaps")
    return pairs.some(torch.nonzero((study.gap.abs() >= min_gap) & (study.gap != 0))[:, 0].tolist())


def _rows(sets: Iterable[Sequence[Component]], engine: Engine) -> Rows:
    return Rows.of(list(sets), engine.shape)


def _random(n: int, sets: Sequence[Sequence[Component]], every: AllNeurons, engine: Engine, seed: int) -> Rows:
    """`n` random counterparts of every set, all of one draw side by side."""
    drawn = [Rows.random_neurons(n, one, every.widths, engine.shape, seed + place) for place, one in enumerate(sets)]
    by_draw = torch.arange(n * len(sets)).view(len(sets), n).T.flatten()
    return Rows.concat(drawn)[by_draw]


def _positive(scores: Scores) -> Scores:
    return np.where(scores > 0, scores, np.nan)


def _reached(draws: Float[np.ndarray, " draw"], high: bool) -> float:
    found = reached(draws, high)
    return math.nan if found is None else found.value


def _count(name: str, label: str, value: int, of: int) -> Scalar:
    return Scalar(
        f"neurons/{name}",
        value,
        n=of,
        counts="pairs",
        unit="count",
        label=label,
        row="pairs",
        hint="with a gap of min_gap or more, of those asked; training pairs choose, test pairs judge",
    )


def _worth(
    every: AllNeurons,
    shares: Scores,
    attribution: Selection,
    candidates: Chosen,
    drawn: Chosen,
    k: int,
    seed: int,
) -> Iterator[Scalar]:
    """How well attribution ranks, and how much of the strongest its candidates hold."""
    draw = np.random.default_rng(seed)
    both = np.concatenate([candidates, drawn])
    for name, label, some in (("", "candidates and random", both), ("_of_random", "random ones alone", drawn)):
        if len(some) < FEWEST:
            continue
        scores, exact = rankdata(attribution.scores[some]), rankdata(shares[some])
        chance = np.array([np.corrcoef(draw.permutation(scores), exact)[0, 1] for _ in range(PERMUTED)])
        rho = float(spearmanr(scores, exact).statistic)
        yield Scalar(
            f"neurons/rank_correlation{name}",
            rho,
            n=len(some),
            null=Null.of_draws(chance, "permutations of the neurons", figure=rho),
            counts="neurons",
            label=label,
            row="attribution ranks neurons as exact effects do",
            hint="Spearman's rho of both, signed, on the training pairs, at the last token; random: of the layers of "
            "the candidates, and none of them",
            good="high",
            absent=f"Fewer than {FEWEST} neurons.",
        )
    strongest = both[highest(np.abs(shares[both]), k)]
    found = found_by(every, candidates, drawn, strongest)
    yield Scalar(
        "neurons/preselected",
        found.share,
        (found.low, found.high),
        len(drawn),
        counts="random neurons",
        unit="share",
        label="strongest neurons that attribution preselects",
        hint="by |exact effect| on the training pairs, of as many as a selection has; an estimate: each random neuron "
        "among them stands for as many of its layer as nobody measured",
        good="high",
    )
    for name, label, share in (
        ("weakest_of_strongest", "weakest of the strongest", float(np.abs(shares[strongest]).min())),
        ("strongest_of_random", "strongest random one", float(np.abs(shares[drawn]).max(initial=0))),
    ):
        yield Scalar(
            f"neurons/{name}",
            share,
            n=len(strongest) if name == "weakest_of_strongest" else len(drawn),
            counts="neurons",
            unit="share",
            label=label,
            row="what preselection may miss",
            hint="|exact effect| of one neuron, share of the gap, on the training pairs; far apart: little is missed",
        )


def _overlaps(every: AllNeurons, selections: Sequence[Selection], seed: int) -> Iterator[Scalar]:
    """Jaccard indices of each published selection and the exact one."""
    exact = selections[0].chosen
    for one in selections[1:]:
        if len(one.chosen) and len(exact):
            value = jaccard(one.chosen, exact)
            chance = random_jaccard(every, one.chosen, exact, 10 * PERMUTED, seed)
            yield Scalar(
                f"neurons/{one.name}_overlap",
                value,
                n=len(one.chosen),
                null=Null.of_draws(chance, RANDOM_NEURONS, figure=value),
                counts="neurons",
                label=SHORT[one.name],
                row="overlap with the neurons of the largest exact effect",
                hint="Jaccard index: neurons in both selections, of those in either; both chosen on training pairs",
                good="high",
            )


def _by_layer(every: AllNeurons, selections: Sequence[Selection]) -> Heatmap:
    values = np.stack([every.of_layers(one.chosen).astype(float) for one in selections], axis=1)
    for column, one in enumerate(selections):
        values[every.of_layers(np.flatnonzero(~np.isnan(one.scores))) == 0, column] = np.nan
    return Heatmap(
        "neurons/layers",
        values,
        [str(layer) for layer in range(len(every.widths))],
        [SHORT[one.name] for one in selections],
        "layer",
        "selection",
        center=None,
        value_label="neurons",
        label="where the chosen neurons are",
        hint="How many neurons of each layer a selection has. CNA leaves out the first two layers, twin contrast the "
        "last; exact effects were measured where attribution or a published way has candidates.",
    )


def _all_neurons(exchange: Exchange, pairs: Pairs, every: AllNeurons, engine: Engine) -> Iterator[Scalar]:
    """What all MLPs do: a ceiling of what neurons can."""
    layers = [layer for layer, width in enumerate(every.widths) if width]
    mlps = _rows([[Component("mlp", layer) for layer in layers]], engine)
    for way, shares in zip(WAYS, exchange(pairs, mlps, label="all neurons").shares[..., 0].numpy(), strict=True):
        yield Scalar(
            f"neurons/all_{way}",
            float(shares.mean()),
            mean_interval(shares, pairs.categories),
            len(shares),
            counts="pairs",
            unit="share",
            label=way,
            row="all neurons together",
            hint="a control: all MLPs at the last token exchanged together, share of the gap, on test pairs",
        )


def _selections_table(selections: Sequence[Selection], figures: dict[str, Scalar]) -> Table:
    """One row for each way of choosing, also for those that could not choose."""
    measured = ("share", *WAYS, "overlap")
    rows = [
        (
            LABELS[one.name],
            len(one.chosen),
            *(cell for what in measured for cell in _cells(figures.get(f"neurons/{one.name}_{what}"))),
            "" if len(one.chosen) else one.why_not,
        )
        for one in selections
    ]
    ends = ("", "_low", "_high", "_null", "_p")
    return Table(
        "neurons/selections",
        ("selection", "neurons", *(f"{what}{end}" for what in measured for end in ends), "note"),
        rows,
        "neurons by ways of choosing",
        "All chosen on training pairs; exchanged as one set at the last token of test pairs, beside random sets of as "
        "many neurons of the same layers.",
        [
            Column("selection", "chosen by"),
            Column("neurons", "neurons", "count"),
            Column("share", "share", "share", "of the gap, mean of the two ways"),
            *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
            Column("overlap", "overlap", "", "Jaccard index with the neurons of the largest exact effect"),
            Column("note", "why none"),
        ],
    )


def _cells(figure: Scalar | None) -> tuple[float, ...]:
    """Value, interval, null and p; NaN where there is none."""
    if figure is None:
        return (math.nan,) * 5
    low, high = figure.interval or NO_INTERVAL
    null = figure.null
    return figure.value, low, high, *((math.nan, math.nan) if null is None else (null.value, null.p or math.nan))


def _alone(
    exchange: Exchange,
    pairs: Pairs,
    every: AllNeurons,
    engine: Engine,
    selections: Sequence[Selection],
) -> Table:
    """Every neuron that some selection has, by itself, the strongest first."""
    chosen = np.unique(np.concatenate([one.chosen for one in selections]))
    study = exchange(pairs, _rows([[one] for one in every.components(chosen)], engine), label="each chosen neuron")
    shares = study.shares.numpy()
    both = shares.mean(0)
    order = np.argsort(-np.abs(both.mean(0)), kind="stable")
    ranks = [one.ranks()[chosen] for one in selections]
    rows = [
        (
            int(every.layer[chosen[place]]),
            int(every.number[chosen[place]]),
            float(both[:, place].mean()),
            *(mean_interval(both[:, place], pairs.categories) or NO_INTERVAL),
            *shares[..., place].mean(1).tolist(),
            float(selections[0].scores[chosen[place]]),
            *(float(rank[place]) for rank in ranks),
            number < TOP,
        )
        for number, place in enumerate(order)
    ]
    names = [f"{one.name}_rank" for one in selections]
    return Table(
        "neurons/neurons",
        ("layer", "neuron", "share", "share_low", "share_high", *WAYS, "training_share", *names, "listed"),
        rows,
        "strongest neurons",
        "Every neuron that some selection has, exchanged alone at the last token of test pairs; by share, for refusing "
        "or against it. Ranks are by each way's score of all neurons, that of exact effects of all that were measured; "
        "none where it leaves a neuron out.",
        [
            Column("layer", "layer", "index"),
            Column("neuron", "neuron", "index"),
            Column("share", "share", "share", "of the gap, mean of the two ways"),
            *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
            Column("training_share", "on training pairs", "share", "which chose"),
            *(
                Column(name, f"rank: {SHORT[one.name]}", "index", LABELS[one.name])
                for name, one in zip(names, selections, strict=True)
            ),
        ],
        only="listed",
    )
