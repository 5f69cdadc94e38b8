"""The circuit of refusing: the smallest set of heads and MLPs that carries it at the last token, and is it one?

On training pairs, which choose:

1. Rank all heads and MLPs (`rcm.circuits.search`): by what each does alone, exactly; by gradients; or by elimination,
   which asks of what is left what it can do without.
2. The circuit is the smallest number of the first that carries `share` of the behaviour: what lies outside of it is
   ablated at the last token (`rcm.circuits.ablation`), and the model still does as before; it is ablated, and the model
   does no more of it (`rcm.circuits.faithfulness`).

On test pairs, which had no part in choosing and judge:

3. The trial (`rcm.circuits.trial`): faithfulness with only the circuit and without it, what its nodes are missed by,
   completeness, and the five tests of Shi et al. (2024), beside random circuits of the same size and layers.
4. The same over the number of nodes kept, with the areas CPR and CMD of the benchmark MIB, beside random nodes.
5. In text: does the model still refuse with only the circuit intact, and stop without it? Beside random circuits.

6. Where the circuit's heads read at the last token: from which words, by their attention or by what they find there
   (`rcm.circuits.reading`).

The picture's edges between nodes are attribution's (`rcm.circuits.attribution`), on training pairs of one length; those
from words are what patching them into the heads does.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from rcm.circuits import attribution, described, search
from rcm.circuits.ablation import Ablation, Kind, Mask, Measure, Scores, ablate, nodes_of
from rcm.circuits.conclusion import NO_GAP, OPEN, WORDS, concluded
from rcm.circuits.described import AT, Effects
from rcm.circuits.faithfulness import areas, faithfulness
from rcm.circuits.hypotheses import FEWEST_CIRCUITS
from rcm.circuits.reading import reading
from rcm.circuits.replies import ablated_replies
from rcm.circuits.search import COARSE, Attributed, Order, Ranking
from rcm.circuits.trial import HALVES, OF, random_like, ratios, trial
from rcm.directions.refusal_direction import RefusalDirection
from rcm.errors import InputError
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.execution.work import (
    Entries,
    PairLengths,
    Row,
    Scope,
    Work,
    compared,
    decoded,
    interchanged,
    recorded,
    together,
)
from rcm.judges.behaviour import RefusalBehaviour
from rcm.judges.rates import refusal_rate
from rcm.judges.redaction import transcript
from rcm.methods import Method, Study
from rcm.methods.obstacles import nothing_refused
from rcm.patching import Pairs, engine_for
from rcm.prompts import Prompt
from rcm.record.results import Curve, Good, Line, Null, Outcome, Result, Scalar, Transcripts, Word
from rcm.stats import mean_interval, reached

log = logging.getLogger(__name__)
Share = Annotated[float, Field(gt=0, lt=1)]
LEFT_OUT = "left_out"
LEFT = {LEFT_OUT: Word("that part was not measured, for the reason given", "What stands beside it holds without it.")}
PAIRS_PER_CIRCUIT = 8  # that one random circuit beside the curve is measured on
CONDITIONS = {
    "whole": "the whole model",
    "alone": "only the circuit",
    "without": "without the circuit",
    "random_alone": "only a random circuit",
    "random_without": "without a random circuit",
}
TEXT = (
    f"the rest, or the circuit, is ablated {AT} of the prompt; what is said from there on is the model's own. Random: "
    "of the same size and layers, another for each prompt"
)


class Circuit(Method):
    """`share` of the behaviour that the circuit carries on training pairs, of which there are `pairs`; `per_round` of
    what is left, which an elimination leaves out at once. `attribution_pairs`: training pairs for edges, and for the
    ranking by attribution. `test_pairs`, `reading_pairs` of them for where the circuit's heads read. `random_circuits`
    beside the circuit, `curve_circuits` of each size beside the curve. `prompts`: harmful test prompts to reply to, in
    `max_new_tokens`; 0 is none. Of `pairs`, `test_pairs` and `prompts`, null is all."""

    ranking: Ranking
    ablation: Kind
    share: Share
    pairs: PositiveInt | None
    per_round: Share
    attribution_pairs: PositiveInt
    test_pairs: PositiveInt | None
    reading_pairs: PositiveInt
    random_circuits: Annotated[int, Field(ge=FEWEST_CIRCUITS)]
    curve_circuits: PositiveInt
    prompts: Annotated[int, Field(ge=0)] | None
    max_new_tokens: PositiveInt
    redact: bool

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)

    def work(self, scope: Scope) -> list[Work]:
        """How much an elimination asks depends on how many nodes it begins with, and the trial's last part on how many
        it leaves: at most all."""
        train, test = scope.pairs(scope.prompts.train), scope.pairs(scope.prompts.test, self.test_pairs)
        chosen_on, nodes, sizes = train[: self.pairs], scope.nodes, search.sizes_of(scope.nodes)
        alike = [pair for pair in train if pair[0] == pair[1]][: self.attribution_pairs]
        ends, single = np.zeros(2), np.concatenate([scope.entries(scope.heads + 1), np.zeros(nodes + 2)])
        order = 0 if self.ranking != "elimination" else round(2 * nodes / self.per_round)
        searches = 1 if self.ranking != "elimination" else 2

        def masks(name: str, pairs: PairLengths, rows: Entries, least: float = 1.0) -> Work:
            return interchanged(scope, name, pairs, rows, both=False, least=least)

        some, parts = 2 * len(sizes) + 2, [compared(scope, chosen_on + test), masks("", chosen_on, ends)]
        parts.append(masks("", chosen_on, single))
        back = [attribution.work(scope, Counter(a for a, _ in alike)), masks("", alike, ends)] if alike else []
        many = max(1, len(test) // PAIRS_PER_CIRCUIT)
        each = -(-self.curve_circuits // many)
        groups = [test[number::many] for number in range(many)]
        random = np.zeros(4 + nodes + 2 * self.random_circuits + 2 * HALVES)
        seen = [recorded(scope, [length]) for pair in test[: self.reading_pairs] for length in (*pair, *pair)]
        heads = np.zeros(1 + 7 * scope.layers * scope.heads)
        reading = [masks("", [pair], heads) for pair in test[: self.reading_pairs]]
        said = test[: self.prompts]
        rows = [Row(harmful, i, i) for i, (harmful, _) in enumerate(said)]
        twins = [
            recorded(scope, [n for _, n in said[i : i + scope.batch_size]]) for i in _starts(said, scope.batch_size)
        ]
        replies = [decoded(scope, "", rows, self.max_new_tokens), *twins]
        return [
            together("single effects", parts),
            together("attribution", back),
            masks("smallest circuit", chosen_on, np.zeros(some * searches)),
            masks("elimination", chosen_on, np.zeros(order), 0.1),
            masks("trial", test, random, (4 + 2 * self.random_circuits + 2 * HALVES) / len(random)),
            together(
                "over the number of nodes", [masks("", one, np.zeros(2 * len(sizes) * (1 + each))) for one in groups]
            ),
            together("where its heads read", seen),
            together("reading, patched", reading, least=0.0),
            together("replies", [one.times(len(CONDITIONS)) for one in replies] if rows else []),
        ]

    def run(self, study: Study) -> Generator[Result, None, None]:
        model, prompts, seed = study.model, study.prompts, study.seed
        found = study[RefusalDirection]
        stopped = nothing_refused(study, "circuit/outcome", "There is no refusing to find a circuit of.")
        if stopped is not None:
            yield stopped
            return
        train = Pairs.of(model, prompts.train, prompts.paired)
        chosen_on = train.first(self.pairs)
        test = Pairs.of(model, prompts.test, prompts.paired).first(self.test_pairs)
        engine = engine_for(model, [*chosen_on.tokens, *test.tokens], seed)
        metric = LogOdds(found.refusal_tokens)
        ablation = Ablation(self.ablation, model, chosen_on.tokens)
        nodes = nodes_of(engine.shape)

        def measured(pairs: Pairs, label: str) -> Measure:
            return lambda ablated: ablate(engine, pairs.tokens, ablated, metric, ablation, label)

        measure = measured(chosen_on, f"{self.ranking} on training pairs")

        everyone = np.ones(len(nodes), dtype=bool)
        everything, nothing = measure(np.stack([~everyone, everyone]))
        gap = mean_interval(everything - nothing, chosen_on.categories)
        if gap is None:
            why = f"{len(chosen_on)} training pairs are too few to tell whether there is anything to carry."
            yield Outcome("circuit/outcome", OPEN, why, complete=False, words=WORDS)
            return
        if gap[0] <= 0:
            why = f"On {len(chosen_on)} training pairs the model does not certainly refuse harmful prompts more."
            yield Outcome("circuit/outcome", NO_GAP, why, complete=False, words=WORDS)
            return
        start = time.monotonic()
        effects = search.single_effects(measure, len(nodes))
        self._told(len(nodes), len(chosen_on), len(test), time.monotonic() - start)
        some_alike = train.some([i for i, (a, b) in enumerate(train.tokens) if len(a) == len(b)])
        some_alike = some_alike.first(self.attribution_pairs)
        alike = some_alike.tokens
        edges = None
        if alike:
            try:
                edges = search.attributed(engine, alike, metric)
                yield described.agreement(effects, edges, engine.shape)
            except InputError as reason:  # of a model that gradients cannot be read in; the circuit needs none
                if self.ranking == "attribution":
                    raise
                yield Outcome("circuit/edges", LEFT_OUT, str(reason), label="edges", words=LEFT)
        order = self._order(measure, effects, edges, engine)
        size, on_training = search.smallest(measure, order, self.share)
        circuit = search.first(order, size)
        yield from described.size(size, circuit, on_training, nodes, self.share, len(chosen_on))

        tried = trial(measured(test, "trial"), circuit, engine.shape, test.categories, self.random_circuits, seed)
        yield from described.figures(tried)
        yield concluded(size, len(nodes), tried)
        if tried.has_gap:
            yield described.tests(tried)
            yield described.nodes(tried, circuit, order, effects, edges, engine.shape)
            yield from self._over_size(engine, test, order, metric, ablation, seed)
            heads = [node for node, chosen in zip(nodes, circuit, strict=True) if chosen and node.kind == "head"]
            some = test.first(self.reading_pairs)
            read = None
            if heads:
                try:
                    read = reading(engine, some.tokens, heads, metric)
                    yield described.sources(read, some.categories)
                except InputError as reason:
                    yield Outcome("circuit/reading", LEFT_OUT, str(reason), label="where its heads read", words=LEFT)
            yield described.diagram(tried, circuit, edges, read, engine.shape)
        chose = {harmful for pairs in (chosen_on, some_alike) for harmful, _ in pairs.texts}
        tokens = found.refusal_tokens
        yield described.kept(circuit, order, effects, edges, model, tokens, self.ablation, sorted(chose))
        if self.prompts != 0:
            yield from self._in_text(engine, test.first(self.prompts), circuit, ablation, study)

    def _told(self, nodes: int, pairs: int, test_pairs: int, seconds: float) -> None:
        """How much is still to do, by how long single effects took: two rows for each node and pair."""
        eliminated = 2 * nodes / self.per_round if self.ranking == "elimination" else 0
        rows = pairs * eliminated + test_pairs * (2 * self.random_circuits + nodes + 2 * COARSE)
        rows += 2 * COARSE * self.curve_circuits * PAIRS_PER_CIRCUIT
        minutes = rows * seconds / (2 * nodes * pairs) / 60
        log.info("Search and trial patch about %d rows more, in %.1f minutes at most", rows, minutes)

    def _order(self, measure: Measure, effects: Effects, edges: Attributed | None, engine: Engine) -> Order:
        if self.ranking == "attribution":
            if edges is None:
                raise InputError(
                    "method.circuit.ranking=attribution needs pairs whose two prompts have one length, and no training "
                    "pair has; choose ranking=elimination or ranking=exact."
                )
            return search.by_size(search.node_scores(edges.found, engine.shape))
        order = search.by_size(effects)
        if self.ranking == "exact":
            return order
        start, _ = search.smallest(measure, order, (1 + self.share) / 2)
        return search.by_elimination(measure, order, start, self.per_round)

    def _over_size(
        self, engine: Engine, pairs: Pairs, order: Order, metric: LogOdds, ablation: Ablation, seed: int
    ) -> Iterator[Result]:
        """f of the first nodes, and of what is left without them, over their number; beside random ones."""
        nodes, sizes = len(order), search.sizes_of(len(order))
        firsts = np.stack([search.first(order, size) for size in sizes])
        many = max(1, len(pairs) // PAIRS_PER_CIRCUIT)
        each, ends = -(-self.curve_circuits // many), 2 * len(sizes)
        ours, draws = np.empty((ends, len(pairs))), list[Scores]()
        for number in range(many):
            group = range(number, len(pairs), many)
            random = np.concatenate([random_like(one, each, engine.shape, seed + number) for one in firsts])
            masks = np.concatenate([~firsts, firsts, ~random, random])
            scores = ablate(engine, pairs.some(group).tokens, masks, metric, ablation, "over the number of nodes")
            ours[:, group] = scores[:ends]
            shares = ratios(scores[ends:], scores[0], scores[len(sizes) - 1])
            draws.append(shares.reshape(ends, each))
        kept, removed = ours[: len(sizes)], ours[len(sizes) :]
        nothing, everything = kept[0], kept[-1]
        alone, left = (
            np.array([faithfulness(one, nothing, everything, pairs.categories) for one in of]) for of in (kept, removed)
        )
        random, without_random = np.concatenate(draws, axis=1).reshape(2, len(sizes), -1)
        yield Curve(
            "circuit/faithfulness_by_size",
            [float(size) for size in sizes],
            [
                Line("only the first nodes", *(alone[:, i].tolist() for i in range(3))),
                Line("without them", *(left[:, i].tolist() for i in range(3))),
                *(
                    Line(
                        label,
                        np.median(of, axis=1).tolist(),
                        *([_reached(one, high) for one in of] for high in (False, True)),
                    )
                    for label, of in (
                        ("only random nodes of the same layers", random),
                        ("without random nodes", without_random),
                    )
                ),
            ],
            "heads and MLPs kept",
            f"share of the behaviour, {AT}",
            "how much of refusing how few nodes carry",
            f"On test pairs, in the order of the training pairs; all else is ablated {AT}. 1: as the whole model. "
            "Bands: 95 % interval; what 95 % of random circuits stay above and below.",
        )
        share = np.array(sizes) / nodes
        ours_areas = areas(share, alone[:, 0])
        of_random = np.array([areas(share, one) for one in random.T])
        meaning: tuple[tuple[str, str, Good], ...] = (
            ("cpr", "CPR", "high"),
            ("cmd", "CMD", "low"),
        )
        for i, (name, label, good) in enumerate(meaning):
            yield Scalar(
                f"circuit/{name}",
                ours_areas[i],
                n=len(pairs),
                null=Null.of_draws(of_random[:, i], OF, good, ours_areas[i]),
                counts="pairs",
                label=label,
                row="over the number of nodes",
                hint=f"over the share of nodes kept, {AT}: the area under f (CPR), and that between f and 1 (CMD); "
                f"Mueller et al. 2025. Random ones are each of {PAIRS_PER_CIRCUIT} pairs, so they scatter more",
                good=good,
            )

    def _in_text(
        self, engine: Engine, pairs: Pairs, circuit: Mask, ablation: Ablation, study: Study
    ) -> Iterator[Result]:
        """What is replied to harmful prompts, and whether that is a refusal, beside random circuits."""
        random = random_like(circuit, len(pairs), engine.shape, study.seed)
        same = np.repeat(circuit[None], len(pairs), axis=0)
        ablated = {
            "whole": np.zeros_like(same),
            "alone": ~same,
            "without": same,
            "random_alone": ~random,
            "random_without": random,
        }
        asked = [harmful for harmful, _ in pairs.texts]
        rows = list[dict[str, str | float]]()
        for name, label in CONDITIONS.items():
            said = ablated_replies(
                engine.model, pairs, ablated[name], ablation, self.max_new_tokens, f"circuit: {label}"
            )
            verdicts = study.judge.verdicts(asked, said)
            yield refusal_rate(
                f"circuit/refusal_rate_{name}",
                verdicts,
                study.judge,
                clusters=pairs.categories,
                label=label,
                row="harmful prompts refused",
                hint=TEXT,
            )
            for prompt, category, completion, verdict in zip(asked, pairs.categories, said, verdicts, strict=True):
                one = transcript("harmful", Prompt(prompt, category), completion, verdict, redact=self.redact)
                rows.append({"condition": label, **one})
        yield Transcripts("circuit/transcripts", rows, "replies with nodes ablated", "At the last token of the prompt.")


def _starts(items: Sequence[object], at_once: int) -> range:
    return range(0, len(items), at_once)


def _reached(draws: Effects, high: bool) -> float:
    found = reached(draws, high)
    return math.nan if found is None else found.value
