"""Models whose refusal circuit is known, to score whatever claims to find circuits.

A program of three variables, each of them a node at the last token of the prompt:

    detect A   is a token of class A in the prompt?       head 0.1
    detect B   is a token of class B in it?               head 1.2
    decide     refuse if A was detected, unless B was     mlp 2

A is digits, B a few capitals; the prompts mean nothing. Two models of one shape ship with rcm:

    strict   trained by strict interchange (SIIT: Gupta et al. 2024, arXiv:2407.14494, section 3; from the interchange
             intervention training of Geiger et al. 2022, arXiv:2112.00826): these nodes are the variables, and no
             other node, at any token, changes a decision
    task     trained to give the same replies, by nothing else: which of its nodes matter is measured

Strict interchange minimises what exact patching measures, so on the first patching alone would be flattered. On the
second, a node matters if its value from another prompt changes decisions (`measured_circuit`): a test by other prompts,
another figure and other code than the methods that are scored. `python -m benchmarks.ground_truth` trains and scores
both; what came of it stands in their card, `rcm/assets/ground-truth/README.md`.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rcm.errors import InputError
from rcm.execution.components import Component, DenseKind, Shape, places
from rcm.execution.interventions import Edit, Intervention, Site, applied
from rcm.models import LoadedModel
from rcm.models.hub import Folder
from rcm.models.points import Points
from rcm.models.template import Batch
from rcm.stats.separability import auroc

CLASS_A, CLASS_B, NEUTRAL = "0123456789", "ABCDEFGH", "abcdefghijklmnopqrstuvwxyz   .,'?!-"
REFUSE, ANSWER = "N", "Y"  # a whole reply
SHORTEST, LONGEST = 6, 24  # characters of a prompt, each a token
MOST = 3  # tokens of a class in one prompt

SHAPE = Shape(layers=4, heads=4)
KINDS: tuple[DenseKind, ...] = ("head", "mlp")
NODES = tuple(SHAPE.components(KINDS))
DETECT_A, DETECT_B, DECIDE = Component("head", 0, 1), Component("head", 1, 2), Component("mlp", 2)
CIRCUIT = (DETECT_A, DETECT_B, DECIDE)
EMBEDDING, LOGITS = "embedding", "logits"
Edge = tuple[Component | str, Component | str]
# From what writes to the residual stream to what reads it. Heads read the embedding by their keys and values, which
# two of them share; what their queries read, at the last token, is the same in all prompts.
EDGES: tuple[Edge, ...] = (
    (EMBEDDING, DETECT_A),
    (EMBEDDING, DETECT_B),
    (DETECT_A, DECIDE),
    (DETECT_B, DECIDE),
    (DECIDE, LOGITS),
)
WRITERS: tuple[Component | str, ...] = (EMBEDDING, *NODES)
READERS: tuple[Component | str, ...] = (*NODES, LOGITS)


def _depth(end: Component | str) -> int:
    """How far up it lies: what is below writes what the other reads."""
    if isinstance(end, Component):
        return 2 * end.layer + (end.kind == "mlp")
    return -1 if end == EMBEDDING else 2 * SHAPE.layers


ALL_EDGES: tuple[Edge, ...] = tuple(edge for edge in product(WRITERS, READERS) if _depth(edge[0]) < _depth(edge[1]))
MATTERS = 0.02  # of the decisions: what changes more is of the circuit of `task`

Name = Literal["strict", "task"]
Where = Literal["last", "all"]
Pair = tuple[str, str]
Part = TypeVar("Part", bound=Component | Edge)


class Facts(NamedTuple):
    """What there is to detect in a prompt."""

    a: bool
    b: bool

    @classmethod
    def of(cls, prompt: str) -> "Facts":
        return cls(any(one in CLASS_A for one in prompt), any(one in CLASS_B for one in prompt))


ALL_FACTS = tuple(Facts(a, b) for a in (False, True) for b in (False, True))


def refused(detect_a: Facts, detect_b: Facts, decide: Facts | None = None) -> bool:
    """What the program says, each node having its value from the prompt with these facts; without the last, `decide`
    works out its own."""
    return detect_a.a and not detect_b.b if decide is None else refused(decide, decide)


def prompt_with(of: Facts, length: int, draw: random.Random) -> str:
    """A prompt of which these facts hold."""
    prompt, (spots_a, spots_b) = _neutral(length, draw)
    prompt = _marked(prompt, spots_a, CLASS_A, draw) if of.a else prompt
    return _marked(prompt, spots_b, CLASS_B, draw) if of.b else prompt


def strangers(n: int, seed: int) -> list[Pair]:
    """Pairs of prompts of one length of which other facts hold; they share nothing else."""
    draw, pairs = random.Random(seed), []
    for i in range(n):
        ours, length = ALL_FACTS[i % 4], draw.randint(SHORTEST, LONGEST)
        theirs = draw.choice([other for other in ALL_FACTS if other != ours])
        pairs.append((prompt_with(ours, length, draw), prompt_with(theirs, length, draw)))
    return pairs


def twins(n: int, seed: int) -> list[Pair]:
    """Pairs of a prompt to refuse and one to answer, alike but for the tokens of one class: by turns, the second lacks
    those of A, or has some of B besides."""
    draw, pairs = random.Random(seed), []
    for i in range(n):
        neutral, (spots_a, spots_b) = _neutral(draw.randint(SHORTEST, LONGEST), draw)
        harmful = _marked(neutral, spots_a, CLASS_A, draw)
        pairs.append((harmful, _marked(harmful, spots_b, CLASS_B, draw) if i % 2 else neutral))
    return pairs


def _neutral(length: int, draw: random.Random) -> tuple[str, tuple[list[int], list[int]]]:
    """Characters of no class, and where some of A and of B may take their place."""
    spots = draw.sample(range(length), 2 * MOST)
    return "".join(draw.choices(NEUTRAL, k=length)), (spots[:MOST], spots[MOST:])


def _marked(prompt: str, spots: Sequence[int], members: str, draw: random.Random) -> str:
    """With some of a class, one at least."""
    letters = list(prompt)
    for spot in spots[: draw.randint(1, MOST)]:
        letters[spot] = draw.choice(members)
    return "".join(letters)


def ground_truth(name: Name, folder: Path | None = None, batch_size: int = 32) -> LoadedModel:
    """The packaged model, or the one of this name in a folder; also `model=folder
    model.path=packaged:ground-truth/NAME`."""
    settings = Folder(
        path=str(folder / name) if folder else f"packaged:ground-truth/{name}",
        family="ground-truth",
        stage=None,
        dtype="float32",
        quantization=None,
        attn_implementation=None,
        adapter=None,
        refusal_tokens=(REFUSE,),
    )
    return settings.load(torch.device("cpu"), "chat", batch_size)


@dataclass(frozen=True)
class Outputs:
    """What every node puts out at every token: `z` of the heads, and what the MLPs write."""

    heads: Float[Tensor, "layer prompt token head d_head"]
    mlps: Float[Tensor, "layer prompt token d_model"]


class Recorded:
    """An intervention that changes nothing, and keeps what it sees with its gradient."""

    def __init__(self) -> None:
        self.seen: dict[tuple[DenseKind, int], Tensor] = {}

    def rows(self, index: Sequence[int]) -> "Recorded":
        raise NotImplementedError("a recording is of all prompts")

    def sites(self, points: Points) -> Iterator[Site]:
        for kind in KINDS:
            modules, side = places(points)[kind]
            for layer, module in enumerate(modules):
                yield module, side, self._keep(kind, layer)

    def _keep(self, kind: DenseKind, layer: int) -> Edit:
        def keep(x: Tensor) -> Tensor:
            self.seen[kind, layer] = x
            return x

        return keep

    @property
    def outputs(self) -> Outputs:
        heads, mlps = (torch.stack([self.seen[kind, i] for i in range(SHAPE.layers)]) for kind in KINDS)
        return Outputs(heads.unflatten(-1, (SHAPE.heads, -1)), mlps)


@dataclass(frozen=True)
class Swapped:
    """An intervention: nodes of each prompt, at the tokens that `where` says, put out what they do in another run.

    `where` has the nodes in the order of `NODES`. Gradients flow through both runs.
    """

    donors: Outputs
    where: Bool[Tensor, "prompt node token"]

    def rows(self, index: Sequence[int]) -> "Swapped":
        raise NotImplementedError("donors are those of all prompts")

    def sites(self, points: Points) -> Iterator[Site]:
        of_heads, of_mlps = self.where.split([SHAPE.layers * SHAPE.heads, SHAPE.layers], dim=1)
        where: dict[DenseKind, Tensor] = {"head": of_heads.unflatten(1, SHAPE).transpose(2, 3), "mlp": of_mlps}
        donors: dict[DenseKind, Tensor] = {"head": self.donors.heads, "mlp": self.donors.mlps}
        for kind in KINDS:
            modules, side = places(points)[kind]
            for layer, module in enumerate(modules):
                if where[kind][:, layer].any():
                    yield module, side, _edit(where[kind][:, layer, ..., None], donors[kind][layer])


def _edit(where: Bool[Tensor, "prompt token *one"], donor: Float[Tensor, "prompt token *width"]) -> Edit:
    return lambda x: torch.where(where, donor, x.reshape(donor.shape)).reshape(x.shape)


def last_logits(
    model: LoadedModel, batch: Batch, interventions: Sequence[Intervention] = ()
) -> Float[Tensor, "prompt vocabulary"]:
    """At the last token, of one ordinary pass."""
    with applied(model.points, interventions):
        output = model.hf(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=1,
        )
    return output.logits[:, -1]


def decisions(model: LoadedModel, logits: Float[Tensor, "*some vocabulary"]) -> Bool[Tensor, "*some"]:
    """Whether the model refuses: which of the two replies is likelier."""
    refuse, answer = (model.template.tokenizer(one, add_special_tokens=False)["input_ids"] for one in (REFUSE, ANSWER))
    return logits[..., refuse[0]] > logits[..., answer[0]]


@torch.inference_mode()
def swapped_logits(
    model: LoadedModel, pairs: Sequence[Pair], sets: Sequence[Collection[Component]], where: Where = "last"
) -> Float[Tensor, "set pair vocabulary"]:
    """At the last token of the first prompt of each pair, while these nodes put out what they do in the second, at the
    last token or at all. The two prompts must have one length. The slow reference of the row engine, where both can."""
    ours, theirs = _batches(model, pairs)
    donors = _outputs(model, theirs)
    swaps = (_swap(donors, _in_all(len(pairs), nodes), where) for nodes in sets)
    return torch.stack([last_logits(model, ours, [swap]) for swap in swaps])


@torch.inference_mode()
def decision_changes(
    model: LoadedModel, pairs: Sequence[Pair], where: Where = "last", beside: Bool[Tensor, "pair node"] | None = None
) -> Float[Tensor, " node"]:
    """For each of `NODES`, the share of pairs whose first prompt gets another decision with the node's value in the
    second; `beside`: while these others have theirs, too (none)."""
    ours, theirs = _batches(model, pairs)
    donors = _outputs(model, theirs)
    changes = []
    for node in range(len(NODES)):
        chosen = torch.zeros(len(pairs), len(NODES), dtype=torch.bool) if beside is None else beside.clone()
        decided = []
        for swapped in (False, True):
            chosen[:, node] = swapped
            decided.append(decisions(model, last_logits(model, ours, [_swap(donors, chosen, where)])))
        changes.append((decided[0] != decided[1]).double().mean())
    return torch.stack(changes)


def measured_circuit(
    model: LoadedModel, pairs: Sequence[Pair], where: Where = "last", seed: int = 0
) -> tuple[Component, ...]:
    """The nodes that matter: more than `MATTERS` of the decisions change with them, alone or beside a random half of
    the others, drawn for each pair. Alone, nodes that can stand in for each other change none."""
    half = torch.rand(len(pairs), len(NODES), generator=torch.Generator().manual_seed(seed)) < 0.5
    changes = torch.maximum(decision_changes(model, pairs, where), decision_changes(model, pairs, where, half))
    return tuple(node for node, change in zip(NODES, changes.tolist(), strict=True) if change > MATTERS)


@torch.inference_mode()
def edge_changes(
    model: LoadedModel, pairs: Sequence[Pair], edges: Sequence[Edge] = ALL_EDGES
) -> Float[Tensor, " edge"]:
    """The same for edges, at all tokens: the share of pairs whose first prompt gets another decision when the reader
    alone reads what the writer writes in the second, straight from it (path patching: Wang et al. 2023, section 3.1).
    """
    ours, theirs = _batches(model, pairs)
    own, others = _outputs(model, ours), _outputs(model, theirs)
    plain = decisions(model, last_logits(model, ours))
    changes = []
    for writer, reader in edges:
        # What lies between them stays as it was; so does all else, which costs nothing and needs no exceptions.
        kept = [_swap(own, _in_all(len(pairs), [node for node in NODES if node not in (writer, reader)]), "all")]
        if isinstance(writer, Component):
            kept.append(_swap(others, _in_all(len(pairs), [writer]), "all"))
        logits = last_logits(model, ours if isinstance(writer, Component) else theirs, [*kept, read := Recorded()])
        if isinstance(reader, Component):
            logits = last_logits(model, ours, [_swap(read.outputs, _in_all(len(pairs), [reader]), "all")])
        changes.append((decisions(model, logits) != plain).double().mean())
    return torch.stack(changes)


def recovery_auroc(scores: Mapping[Part, float], true: Collection[Part]) -> float:
    """How well a method tells what is of the circuit, nodes or edges: the probability that one of it has the larger
    score, by size, than one that is none of it. 0.5 is chance."""
    inside = np.array([abs(score) for part, score in scores.items() if part in true])
    outside = np.array([abs(score) for part, score in scores.items() if part not in true])
    if len(inside) < len(set(true)) or not len(inside) or not len(outside):
        raise InputError(
            f"{len(inside)} of the {len(set(true))} parts of the circuit have a score, and {len(outside)} others; give "
            "one to each part, and to one other at least."
        )
    return auroc(inside, outside)


def _batches(model: LoadedModel, pairs: Sequence[Pair]) -> tuple[Batch, Batch]:
    if uneven := [pair for pair in pairs if len(pair[0]) != len(pair[1])]:
        raise InputError(
            f"The prompts {uneven[0][0]!r} and {uneven[0][1]!r} differ in length, so their tokens cannot be swapped; "
            "give pairs of one length."
        )
    ours, theirs = (model.template.batch(side) for side in zip(*pairs, strict=True))
    return ours, theirs


def _outputs(model: LoadedModel, batch: Batch) -> Outputs:
    last_logits(model, batch, [recorded := Recorded()])
    return recorded.outputs


def _swap(donors: Outputs, nodes: Bool[Tensor, "prompt node"], where: Where) -> Swapped:
    tokens = donors.mlps.shape[2]
    chosen = nodes[..., None].repeat(1, 1, tokens)
    chosen[..., : tokens - 1 if where == "last" else 0] = False
    return Swapped(donors, chosen)


def _in_all(prompts: int, nodes: Collection[Component]) -> Bool[Tensor, "prompt node"]:
    return torch.tensor([node in nodes for node in NODES]).expand(prompts, -1)
