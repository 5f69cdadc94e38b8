"""What is reported of a circuit, and how to read it: figures, tables, the picture, and what is kept for others."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr

from rcm.circuits import search
from rcm.circuits.ablation import Mask, nodes_of
from rcm.circuits.attribution import Attribution
from rcm.circuits.hypotheses import Q
from rcm.circuits.importances import LOGITS, between, name_of
from rcm.circuits.reading import SOURCES, Reading
from rcm.circuits.search import Attributed, Order
from rcm.circuits.trial import OF, Trial
from rcm.execution.components import Component, Shape
from rcm.models import LoadedModel
from rcm.record.identity import prompt_digest
from rcm.record.results import Column, Diagram, Edge, Good, Node, Null, Scalar, Table, Tensors
from rcm.stats import Estimate, mean_interval

Effects = Float[np.ndarray, " node"]
AT = "at the last token"
FOUND = "circuit/found"  # what is kept for other checkpoints and other programs
OUTPUT = "refusal"
CARRIED = f"1 - max(|1 - f(C)|, |f(not C)|), {AT}; training pairs chose it, so there it flatters"


def agreement(effects: Effects, edges: Attributed, shape: Shape) -> Scalar:
    return Scalar(
        "circuit/attribution_rank_correlation",
        float(spearmanr(effects, search.node_scores(edges.found, shape)).statistic),
        n=len(effects),
        counts="nodes",
        label="attribution ranks alike",
        hint=f"Spearman's rho of gradients, on pairs of one length, and of exact effects, on training pairs, {AT}",
        good="high",
        absent="No training pair has two prompts of one length.",
    )


def size(
    size: int, circuit: Mask, on_training: float, nodes: Sequence[Component], share: float, pairs: int
) -> Iterator[Scalar]:
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
        n=pairs,
        counts="pairs",
        unit="share",
        label="on training pairs",
        row="carried by the circuit",
        hint=CARRIED,
        good="high",
    )


def figures(tried: Trial) -> Iterator[Scalar]:
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
        tried.gap,
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
        hint=CARRIED,
    )
    of_circuit = "faithfulness of the circuit"
    faithful = f"what the model does with only the circuit (f(C): 1 is all), and without it (0 is nothing), {AT}"
    yield figure(
        "sufficiency",
        tried.sufficient,
        tried.null_of(tried.random_kept, tried.sufficient.value, "high"),
        "high",
        label="f(C)",
        row=of_circuit,
        hint=faithful,
    )
    yield figure(
        "left_without",
        tried.left,
        tried.null_of(tried.random_removed, tried.left.value, "low"),
        "low",
        label="f(not C)",
        row=of_circuit,
        hint=faithful,
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


def tests(tried: Trial) -> Table:
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


def nodes(tried: Trial, circuit: Mask, order: Order, effects: Effects, edges: Attributed | None, shape: Shape) -> Table:
    """The circuit's nodes, the most important first."""
    every, place = nodes_of(shape), {int(member): i for i, member in enumerate(np.flatnonzero(circuit))}
    written = _edges(edges, shape)
    rows = list[Sequence[Any]]()
    for rank, member in enumerate(order[: len(place)].tolist(), start=1):
        node, missed = every[member], tried.missed[place[member]]
        ends = mean_interval(missed, tried.categories) or (math.nan, math.nan)
        number = node.number if node.kind == "head" else None
        direct = written.get((name_of(node), LOGITS), math.nan)
        rows.append((rank, node.kind, node.layer, number, float(missed.mean()), *ends, float(effects[member]), direct))
    return Table(
        "circuit/nodes",
        ("rank", "kind", "layer", "head", "missed", "missed_low", "missed_high", "alone", "direct"),
        rows,
        "nodes of the circuit",
        f"In the order of the ranking; shares of what the model does, {AT}.",
        [
            Column("rank", "rank", "index"),
            Column("kind"),
            Column("layer", "layer", "index"),
            Column("head", "head", "index"),
            Column("missed", "missed by the circuit", "share", "what the circuit does less without it, on test pairs"),
            Column("alone", "alone", "share", "ablated, and as the only one that is not; training pairs"),
            Column(
                "direct", "direct", "share", "what it writes for refusal tokens itself, to first order; training pairs"
            ),
        ],
    )


def sources(read: Reading, categories: Sequence[str]) -> Table:
    """A row for each head of the circuit, by what it does as a whole."""
    names, gap = ("template", "shared", "differing", "end"), read.gap
    rows = list[Sequence[Any]]()
    for i in np.argsort(-np.abs(read.whole.mean(0)), kind="stable").tolist():
        whole = read.whole[:, i] / gap
        ends = mean_interval(whole, categories) or (math.nan, math.nan)
        attended = read.attention[:, :, i].mean(1)
        split = (float(one[:, i].mean()) / gap if len(one) else math.nan for one in (read.by_attention, read.by_values))
        figures = (
            *(float(one) for one in read.by_source[:, i].mean(0) / gap),
            *(float(one) for side in attended for one in side),
            *split,
        )
        rows.append((read.heads[i].layer, read.heads[i].number, float(whole.mean()), *ends, *figures, len(read.alike)))
    attention = [f"attention_{side}_{name}" for side in ("harmful", "harmless") for name in names]
    differing = SOURCES[2]
    return Table(
        "circuit/sources",
        ("layer", "head", "whole", "whole_low", "whole_high", *names, *attention, "qk", "ov", "alike"),
        rows,
        "where the circuit's heads read",
        f"What the harmful prompt loses of the gap when of a head's output {AT} the part that comes from some words is "
        f"its twin's, patched exactly. QK: the twin's attention on its own values; OV: its own attention on the twin's "
        f"values; on the {len(read.alike)} of {len(read.whole)} test pairs whose prompts have one length.",
        [
            Column("layer", "layer", "index"),
            Column("head", "head", "index"),
            Column("whole", "the whole head", "share"),
            *(Column(name, source, "share") for name, source in zip(names, SOURCES, strict=True)),
            Column("attention_harmful_differing", f"attention to {differing}", "share", "of the harmful prompt"),
            Column("attention_harmless_differing", "of its twin", "share", f"attention to {differing}"),
            Column("qk", "by attention (QK)", "share"),
            Column("ov", "by values (OV)", "share"),
        ],
    )


def diagram(tried: Trial, circuit: Mask, edges: Attributed | None, read: Reading | None, shape: Shape) -> Diagram:
    """The nodes by what the circuit lacks without each, what passes between them, and the words that its heads read."""
    every = nodes_of(shape)
    inside = [(every[member], float(tried.missed[i].mean())) for i, member in enumerate(np.flatnonzero(circuit))]
    label = {name_of(node): _label(node) for node, _ in inside} | {LOGITS: OUTPUT}
    drawn = [Node(_label(node), "head" if node.kind == "head" else "mlp", node.layer, value) for node, value in inside]
    drawn.append(Node(OUTPUT, "output", shape.layers, math.nan))
    passing = [
        Edge(label[writer], label[reader], weight)
        for (writer, reader), weight in _edges(edges, shape).items()
        if writer in label and reader in label
    ]
    if read is not None:
        drawn += [Node(source, "source", -1, math.nan) for source in SOURCES]
        parts = read.by_source.mean(0) / read.gap
        passing += [
            Edge(source, _label(head), float(parts[i, k]))
            for i, head in enumerate(read.heads)
            for k, source in enumerate(SOURCES)
        ]
    return Diagram(
        "circuit/diagram",
        drawn,
        passing,
        shape.layers,
        "share lacking without it",
        "share of the behaviour that passes",
        label="the circuit of refusing",
        hint=f"Heads (layer.head) and MLPs of the circuit {AT}, layers upward. Colour: what the circuit does less "
        "without the node, on test pairs. Edges between nodes: attribution, to first order, on training pairs of one "
        "length; from words: what the harmful prompt loses when what the head takes from them is its twin's, exactly.",
    )


def _edges(edges: Attributed | None, shape: Shape) -> dict[tuple[str, str], float]:
    """Between components, as shares of the gap of the pairs that they are of."""
    if edges is None:
        return {}
    found = between(edges.found.edges.numpy(), edges.found.connected.numpy(), shape)
    return {ends: weight / edges.gap for ends, weight in found.items()}


def _label(node: Component) -> str:
    return f"{node.layer}.{node.number}" if node.kind == "head" else f"MLP {node.layer}"


def _first_mlp(edges: Attribution) -> int:
    """Its column: in a parallel block it does not read what the heads beside it write."""
    return next(i for i, reader in enumerate(edges.readers) if reader.kind == "mlp")


def kept(
    circuit: Mask,
    order: Order,
    effects: Effects,
    edges: Attributed | None,
    model: LoadedModel,
    refusal_tokens: tuple[int, ...],
    ablation: str,
    chosen_on: Sequence[str],
) -> Tensors:
    """For other checkpoints, and for other programs. `chosen_on`: the harmful prompts that chose it."""
    none = torch.zeros(0, 0)
    shape = Shape(model.n_layers, int(model.config.num_attention_heads))
    return Tensors(
        FOUND,
        {
            "circuit": torch.from_numpy(circuit),
            "order": torch.from_numpy(order),
            "effects": torch.from_numpy(effects).float(),
            "edges": none if edges is None else edges.found.edges.float(),
            "connected": none.bool() if edges is None else edges.found.connected,
        },
        {
            "nodes": json.dumps([str(node) for node in nodes_of(shape)]),
            "layers": str(shape.layers),
            "heads": str(shape.heads),
            "d_model": str(model.d_model),
            "parallel": json.dumps(edges is not None and not bool(edges.found.connected[1, _first_mlp(edges.found)])),
            "refusal_tokens": json.dumps(list(refusal_tokens)),
            "template_hash": model.template.digest,
            "ablation": ablation,
            "chosen_on": json.dumps(sorted(map(prompt_digest, chosen_on))),
            "position": "-1",
        },
        label="the circuit",
    )
