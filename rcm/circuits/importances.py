"""Edges between components, and a circuit in the format of the Mechanistic Interpretability Benchmark.

    {"cfg": {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"},
     "nodes": {"input" | "a0.h1" | "m0" | "logits": {"in_graph", "score"}},
     "edges": {"a0.h1->m2" | "input->a0.h1<q>" | ...: {"score", "in_graph"}}}

(importances of MIB's circuit track: Mueller et al. 2025, arXiv:2504.13151, which takes the format from EAP-IG: Hanna et
al. 2024, arXiv:2403.17806). That format has a key and a value for every query head; where several share one, each gets
an equal part of its edges, so that sums stay what they were. Scores and edges are those of the last token.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from rcm.circuits.ablation import Mask, nodes_of
from rcm.execution.components import Component, Shape

INPUT, LOGITS = "input", "logits"
Matrix = Float[np.ndarray, "writer reader"]
KINDS = ("query", "key", "value")


class Edge(NamedTuple):
    """`reads`: by what a head takes it, q, k or v; empty for MLPs and logits."""

    writer: str
    reader: str
    reads: str
    score: float


def name_of(node: Component) -> str:
    """As the benchmark calls it."""
    return f"a{node.layer}.h{node.number}" if node.kind == "head" else f"m{node.layer}"


def writers_of(shape: Shape) -> list[str]:
    """What writes to the stream, in the order of attribution's rows."""
    layers = [[*(f"a{layer}.h{head}" for head in range(shape.heads)), f"m{layer}"] for layer in range(shape.layers)]
    return [INPUT, *(name for layer in layers for name in layer)]


def edges_of(edges: Matrix, connected: Bool[np.ndarray, "writer reader"], shape: Shape) -> Iterator[Edge]:
    """Every edge that there is, of a matrix whose columns are attribution's readers: of each layer queries, keys and
    values by head, then the MLP; then the logits."""
    grouped = ((edges.shape[1] - 1) // shape.layers - 1 - shape.heads) // 2  # key heads of a layer
    column = 0
    writers = writers_of(shape)

    def of(column: int, reader: str, reads: str, parts: int) -> Iterator[Edge]:
        for row in np.flatnonzero(connected[:, column]):
            yield Edge(writers[row], reader, reads, float(edges[row, column]) / parts)

    for layer in range(shape.layers):
        for kind in KINDS:
            heads = shape.heads if kind == "query" else grouped
            for head in range(heads):
                parts = shape.heads // heads
                for one in range(head * parts, (head + 1) * parts):
                    yield from of(column, f"a{layer}.h{one}", kind[0], parts)
                column += 1
        yield from of(column, f"m{layer}", "", 1)
        column += 1
    yield from of(column, LOGITS, "", 1)


def between(edges: Matrix, connected: Bool[np.ndarray, "writer reader"], shape: Shape) -> dict[tuple[str, str], float]:
    """Edges from component to component, whatever a head reads by."""
    total: dict[tuple[str, str], float] = {}
    for edge in edges_of(edges, connected, shape):
        total[edge.writer, edge.reader] = total.get((edge.writer, edge.reader), 0.0) + edge.score
    return total


def importances(
    circuit: Mask,
    scores: Float[np.ndarray, " node"],
    edges: Matrix,
    connected: Bool[np.ndarray, "writer reader"],
    shape: Shape,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """`scores`: of each node. `config`: the model's width and whether its blocks are parallel, by the format's names.
    An edge is in the graph if both of its ends are; the matrix may have no columns where edges are not known."""
    inside = {INPUT, LOGITS, *(name_of(node) for node, chosen in zip(nodes_of(shape), circuit, strict=True) if chosen)}
    nodes = {name_of(node): float(score) for node, score in zip(nodes_of(shape), scores, strict=True)}
    order = [*writers_of(shape), LOGITS]
    found = edges_of(edges, connected, shape) if edges.shape[1] else ()
    return {
        "cfg": {"n_layers": shape.layers, "n_heads": shape.heads, **config},
        "nodes": {
            name: {"in_graph": name in inside} | ({"score": nodes[name]} if name in nodes else {}) for name in order
        },
        "edges": {
            f"{edge.writer}->{edge.reader}" + (f"<{edge.reads}>" if edge.reads else ""): {
                "score": edge.score,
                "in_graph": edge.writer in inside and edge.reader in inside,
            }
            for edge in found
        },
    }
