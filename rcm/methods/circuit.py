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

The picture's edges are attribution's (`rcm.circuits.attribution`), on training pairs of one length.
"""

import json
import math
from collections.abc import Generator, Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from scipy.stats import spearmanr

from rcm.circuits import search
from rcm.circuits.ablation import Ablation, Kind, Mask, Measure, Scores, ablate, nodes_of
from rcm.circuits.attribution import Attribution
from rcm.circuits.conclusion import NO_GAP, WORDS, concluded
from rcm.circuits.faithfulness import areas, faithfulness
from rcm.circuits.hypotheses import FEWEST_CIRCUITS, Q
from rcm.circuits.importances import LOGITS, between, name_of
from rcm.circuits.replies import ablated_replies
from rcm.circuits.search import Order, Ranking
from rcm.circuits.trial import OF, Trial, random_like, ratios, trial
from rcm.directions.refusal_direction import TOO_FEW, RefusalDirection
from rcm.errors import InputError
from rcm.execution.components import Component
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.judges.behaviour import NO_REFUSAL, RefusalBehaviour
from rcm.judges.rates import refusal_rate
from rcm.judges.redaction import transcript
from rcm.methods import Method, Study
from rcm.patching import Pairs, engine_for
from rcm.prompts import Prompt
from rcm.record.results import (
    Column,
    Curve,
    Diagram,
    Edge,
    Good,
    Line,
    Node,
    Null,
    Outcome,
    Result,
    Scalar,
    Table,
    Tensors,
    Transcripts,
)
from rcm.stats import FEWEST, Estimate, mean_interval, reached

Effects = Float[np.ndarray, " node"]
Share = Annotated[float, Field(gt=0, lt=1)]
PAIRS_PER_CIRCUIT = 4  # that one random circuit beside the curve is measured on
AT = "at the last token"
CONDITIONS = {
    "whole": ("the whole model", "nothing ablated"),
    "alone": ("only the circuit", "everything else ablated"),
    "without": ("without the circuit", "the circuit ablated"),
    "random_alone": ("only a random circuit", "of the same size and layers, another for each prompt"),
    "random_without": ("without a random circuit", "of the same size and layers, another for each prompt"),
}


class Circuit(Method):
    """`share` of the behaviour that the circuit carries on training pairs, of which there are `pairs`; `per_round` of
    what is left, which an elimination leaves out at once. `attribution_pairs`: training pairs for edges, and for the
    ranking by attribution. `test_pairs`: null is all. `random_circuits` beside it, `curve_circuits` of each size beside
    the curve. `prompts`: harmful test prompts to reply to, in `max_new_tokens`; 0 is none."""

    ranking: Ranking
    ablation: Kind
    share: Share
    pairs: Annotated[int, Field(ge=FEWEST)]
    per_round: Share
    attribution_pairs: PositiveInt
    test_pairs: PositiveInt | None
    random_circuits: Annotated[int, Field(ge=FEWEST_CIRCUITS)]
    curve_circuits: PositiveInt
    prompts: Annotated[int, Field(ge=0)]
    max_new_tokens: PositiveInt
    redact: bool

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)

    def run(self, study: Study) -> Generator[Result, None, None]:
        model, prompts, seed = study.model, study.prompts, study.seed
        found = study[RefusalDirection]
        stopped = _stopped(study)
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
        if gap is None or gap[0] <= 0:
            why = f"On {len(chosen_on)} training pairs the model does not certainly refuse harmful prompts more."
            yield Outcome("circuit/outcome", NO_GAP, why, complete=False, hint=WORDS)
            return
        effects = search.single_effects(measure, len(nodes))
        alike = [pair for pair in train.tokens if len(pair[0]) == len(pair[1])][: self.attribution_pairs]
        edges = search.attributed(model, alike, metric) if alike else None
        if edges is not None:
            yield _agreement(effects, edges, engine)
        order = self._order(measure, effects, edges, engine)
        size, on_training = search.smallest(measure, order, self.share)
        circuit = search.first(order, size)
        yield from _size(size, circuit, on_training, nodes, self.share)

        tried = trial(measured(test, "trial"), circuit, engine.shape, test.categories, self.random_circuits, seed)
        yield from _figures(tried)
        yield _tests(tried)
        yield concluded(size, len(nodes), tried)
        yield _nodes(tried, circuit, order, effects, engine)
        if tried.has_gap:
            yield from self._over_size(engine, test, order, metric, ablation, seed)
            yield _diagram(tried, circuit, edges, engine)
        yield _kept(circuit, order, effects, edges, engine, found.refusal_tokens, self.ablation)
        if self.prompts:
            yield from self._in_text(engine, test.first(self.prompts), circuit, ablation, study)

    def _order(self, measure: Measure, effects: Effects, edges: Attribution | None, engine: Engine) -> Order:
        if self.ranking == "attribution":
            if edges is None:
                raise InputError(
                    "method.circuit.ranking=attribution needs pairs whose two prompts have one length, and no training "
                    "pair has; choose ranking=elimination or ranking=exact."
                )
            return search.by_size(search.node_scores(edges, engine.shape))
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
        groups = [
            range(len(pairs))[start : start + PAIRS_PER_CIRCUIT] for start in range(0, len(pairs), PAIRS_PER_CIRCUIT)
        ]
        each = -(-self.curve_circuits // len(groups))
        ours, draws = list[Scores](), list[Scores]()
        for number, group in enumerate(groups):
            some = pairs.some(group)
            random = np.concatenate([random_like(one, each, engine.shape, seed + number) for one in firsts])
            masks = np.concatenate([~firsts, firsts, ~random])
            scores = ablate(engine, some.tokens, masks, metric, ablation, "over the number of nodes")
            ours.append(scores[: 2 * len(sizes)])
            by_size = scores[2 * len(sizes) :].reshape(len(sizes), each, -1)
            nothing, everything = ours[-1][0], ours[-1][len(sizes) - 1]
            draws.append(ratios(by_size.reshape(-1, len(group)), nothing, everything).reshape(len(sizes), each))
        together = np.concatenate(ours, axis=1)
        kept, removed = together[: len(sizes)], together[len(sizes) :]
        nothing, everything = kept[0], kept[-1]
        alone, left = (
            np.array([faithfulness(one, nothing, everything, pairs.categories) for one in of]) for of in (kept, removed)
        )
        random = np.concatenate(draws, axis=1)
        yield Curve(
            "circuit/faithfulness_by_size",
            [float(size) for size in sizes],
            [
                Line("only the first nodes", *(alone[:, i].tolist() for i in range(3))),
                Line("without them", *(left[:, i].tolist() for i in range(3))),
                Line(
                    "only random nodes of the same layers",
                    np.median(random, axis=1).tolist(),
                    *([_reached(one, high) for one in random] for high in (False, True)),
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
        meaning: tuple[tuple[str, str, str, Good], ...] = (
            ("cpr", "CPR", "area under that curve", "high"),
            ("cmd", "CMD", "area between it and 1", "low"),
        )
        for i, (name, label, hint, good) in enumerate(meaning):
            yield Scalar(
                f"circuit/{name}",
                ours_areas[i],
                n=len(pairs),
                null=Null.of_draws(of_random[:, i], OF, good, ours_areas[i]),
                counts="pairs",
                label=label,
                row="over the number of nodes",
                hint=f"{hint}, over the share of nodes kept (Mueller et al. 2025), {AT}",
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
        for name, (label, hint) in CONDITIONS.items():
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
                hint=f"{hint} {AT} of the prompt; what follows is the model's own",
            )
            for prompt, category, completion, verdict in zip(asked, pairs.categories, said, verdicts, strict=True):
                one = transcript("harmful", Prompt(prompt, category), completion, verdict, redact=self.redact)
                rows.append({"condition": label, **one})
        yield Transcripts("circuit/transcripts", rows, "replies with nodes ablated", "At the last token of the prompt.")


def _stopped(study: Study) -> Outcome | None:
    """Why there is no circuit to look for."""
    found, behaviour = study[RefusalDirection], study.get(RefusalBehaviour)
    if behaviour is not None and not behaviour.refuses:
        return Outcome("circuit/outcome", behaviour.outcome.value, behaviour.outcome.because, complete=False)
    if found.refusal_tokens:
        return None
    few = found.outcome.value == TOO_FEW
    value, why = (TOO_FEW, found.outcome.because) if few else (NO_REFUSAL, "There is no refusing to find a circuit of.")
    return Outcome("circuit/outcome", value, why, complete=False)


def _reached(draws: Effects, high: bool) -> float:
    found = reached(draws, high)
    return math.nan if found is None else found.value


def _agreement(effects: Effects, edges: Attribution, engine: Engine) -> Scalar:
    return Scalar(
        "circuit/attribution_rank_correlation",
        float(spearmanr(effects, search.node_scores(edges, engine.shape)).statistic),
        n=len(effects),
        counts="nodes",
        label="attribution ranks alike",
        hint=f"Spearman's rho of gradients, on pairs of one length, and of exact effects, on training pairs, {AT}",
        good="high",
        absent="No training pair has two prompts of one length.",
    )


def _size(size: int, circuit: Mask, on_training: float, nodes: Sequence[Component], share: float) -> Iterator[Scalar]:
    heads = sum(bool(chosen) and node.kind == "head" for node, chosen in zip(nodes, circuit, strict=True))
    all_heads = sum(node.kind == "head" for node in nodes)
    for name, value, n, label in (
        ("size", size, len(nodes), "heads and MLPs"),
        ("heads", heads, all_heads, "heads"),
        ("mlps", size - heads, len(nodes) - all_heads, "MLPs"),
    ):
        yield Scalar(
            f"circuit/{name}",
            value,
            n=n,
            unit="count",
            counts="nodes",
            label=label,
            row="size of the circuit",
            hint=f"the fewest that carry {share:.0%} on training pairs, {AT}; few: concentrated",
            good="low",
        )
    yield Scalar(
        "circuit/carried_training",
        on_training,
        unit="share",
        label="on training pairs",
        row="carried by the circuit",
        hint="which chose it, so it flatters",
        good="high",
    )


def _figures(tried: Trial) -> Iterator[Scalar]:
    n, absent = len(tried.kept), "On test pairs there is nothing to carry."

    def figure(name: str, one: Estimate, null: Null | None, good: Good, **meaning: Any) -> Scalar:
        interval = None if math.isnan(one.low) else (one.low, one.high)
        return Scalar(
            f"circuit/{name}",
            one.value,
            interval,
            n,
            null,
            unit="share",
            counts="pairs",
            good=good,
            absent=absent,
            **meaning,
        )

    gap = tried.everything - tried.nothing
    yield Scalar(
        "circuit/gap",
        float(gap.mean()),
        mean_interval(gap, tried.categories),
        n,
        counts="pairs",
        unit="nats",
        label="gap",
        hint=f"by which harmful prompts are refused rather than with all nodes ablated {AT}",
    )
    if not tried.has_gap:
        return
    yield figure(
        "carried",
        tried.carried,
        tried.null,
        "high",
        label="on test pairs",
        row="carried by the circuit",
        hint=f"1 - max(|1 - f(C)|, |f(not C)|), {AT}",
    )
    of_circuit = "faithfulness of the circuit"
    yield figure(
        "sufficiency",
        tried.sufficient,
        tried.null_of(tried.random_kept, tried.sufficient.value, "high"),
        "high",
        label="f(C)",
        row=of_circuit,
        hint=f"what the model does with only the circuit, {AT}; 1 is all",
    )
    yield figure(
        "left_without",
        tried.left,
        tried.null_of(tried.random_removed, tried.left.value, "low"),
        "low",
        label="f(not C)",
        row=of_circuit,
        hint=f"what the model still does without the circuit, {AT}; 0 is nothing",
    )
    yield Scalar(
        "circuit/incompleteness",
        tried.incompleteness,
        n=n,
        counts="pairs",
        unit="share",
        label="incompleteness",
        hint=f"|f(C less K) - f(N less K)| over random halves K of the circuit, {AT}: what it makes of a lack, and "
        "what the model does; 0: the same",
        good="low",
    )


def _tests(tried: Trial) -> Table:
    """The five of Shi et al. (2024)."""
    beats = f"of {len(tried.random_kept)} {OF}; shown if it beats certainly more than {Q:.0%}"
    means = {
        "sufficiency": f"alone it comes nearer to the model than others, {beats}",
        "partial necessity": f"without it the model is missed by more than without others, {beats}",
        "minimality": f"{tried.superfluous} of its nodes certainly do less than random nodes put in on top",
        "equivalence": "examples in which the model exceeds the circuit; about half",
        "independence": "HSIC of what is left without it with what the model does; none",
    }
    rows = [
        (name, one.statistic, one.n, one.p, "holds" if one.holds else "fails", means[name])
        for name, one in tried.tests().items()
    ]
    return Table(
        "circuit/tests",
        ("test", "statistic", "of", "p", "verdict", "meaning"),
        rows,
        "is it a circuit?",
        f"Five tests on test pairs, {AT} (Shi et al. 2024). The first two are shown by a small p, at 5 %; the other "
        "three fail by a small p, and hold where nothing speaks against them.",
    )


def _nodes(tried: Trial, circuit: Mask, order: Order, effects: Effects, engine: Engine) -> Table:
    """The circuit's nodes, the most important first."""
    nodes, place = nodes_of(engine.shape), {int(member): i for i, member in enumerate(np.flatnonzero(circuit))}
    rows = list[Sequence[Any]]()
    for rank, member in enumerate(order[: len(place)].tolist(), start=1):
        node, missed = nodes[member], tried.missed[place[member]]
        ends = mean_interval(missed, tried.categories) or (math.nan, math.nan)
        number = node.number if node.kind == "head" else None
        rows.append((rank, node.kind, node.layer, number, float(missed.mean()), *ends, float(effects[member])))
    return Table(
        "circuit/nodes",
        ("rank", "kind", "layer", "head", "missed", "missed_low", "missed_high", "alone"),
        rows,
        "nodes of the circuit",
        f"In the order of the ranking; {AT}.",
        [
            Column("rank", "rank", "index"),
            Column("kind"),
            Column("layer", "layer", "index"),
            Column("head", "head", "index"),
            Column("missed", "missed by the circuit", "share", "what the circuit does less without it, on test pairs"),
            Column("alone", "alone", "share", "ablated, and as the only one that is not; training pairs"),
        ],
    )


def _diagram(tried: Trial, circuit: Mask, edges: Attribution | None, engine: Engine) -> Diagram:
    """The nodes by what the circuit lacks without each, and what passes between them."""
    shape = engine.shape
    inside = [(nodes_of(shape)[i], float(tried.missed[k].mean())) for k, i in enumerate(np.flatnonzero(circuit))]
    label = {name_of(node): _label(node) for node, _ in inside} | {LOGITS: "refusal"}
    drawn = [Node(_label(node), "head" if node.kind == "head" else "mlp", node.layer, value) for node, value in inside]
    drawn.append(Node("refusal", "output", shape.layers, math.nan))
    weights = {} if edges is None else between(edges.edges.numpy(), edges.connected.numpy(), shape)
    gap = float((tried.everything - tried.nothing).mean())
    passing = [
        Edge(label[writer], label[reader], weight / gap)
        for (writer, reader), weight in weights.items()
        if writer in label and reader in label
    ]
    return Diagram(
        "circuit/diagram",
        drawn,
        passing,
        shape.layers,
        "share of the behaviour that the circuit lacks without it",
        "share of the behaviour that passes, to first order",
        label="the circuit of refusing",
        hint=f"Heads and MLPs of the circuit {AT}, layers upward. Colour: what the circuit does less without the node, "
        "on test pairs. Edges: attribution at the last token, on training pairs of one length.",
    )


def _label(node: Component) -> str:
    return f"{node.layer}.{node.number}" if node.kind == "head" else f"MLP {node.layer}"


def _first_mlp(edges: Attribution) -> int:
    """Its column: in a parallel block it does not read what the heads beside it write."""
    return next(i for i, reader in enumerate(edges.readers) if reader.kind == "mlp")


def _kept(
    circuit: Mask,
    order: Order,
    effects: Effects,
    edges: Attribution | None,
    engine: Engine,
    refusal_tokens: tuple[int, ...],
    ablation: str,
) -> Tensors:
    """For other checkpoints, and for other programs."""
    none = torch.zeros(0, 0)
    model = engine.model
    return Tensors(
        "circuit/found",
        {
            "circuit": torch.from_numpy(circuit),
            "order": torch.from_numpy(order),
            "effects": torch.from_numpy(effects).float(),
            "edges": none if edges is None else edges.edges.float(),
            "connected": none.bool() if edges is None else edges.connected,
        },
        {
            "nodes": json.dumps([str(node) for node in nodes_of(engine.shape)]),
            "layers": str(engine.shape.layers),
            "heads": str(engine.shape.heads),
            "d_model": str(model.d_model),
            "parallel": json.dumps(edges is not None and not bool(edges.connected[1, _first_mlp(edges)])),
            "refusal_tokens": json.dumps(list(refusal_tokens)),
            "template_hash": model.template.digest,
            "ablation": ablation,
            "position": "-1",
        },
        label="the circuit",
    )
