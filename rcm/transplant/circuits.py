"""Another model's circuit of refusing, in this one: does it carry refusing here, and is it the circuit that is here?

A source is a finished run with the method `circuit`, of a model of this shape. All is at the last token of the prompt,
by the source's refusal tokens and its kind of ablation.

1. On test pairs that had no part in choosing it: the gap, by which harmful prompts are refused rather than with
   everything ablated. Where it is certainly above zero, the source's circuit is put on trial (`rcm.circuits.trial`),
   beside random circuits of the same size and layers. Else there is nothing to carry, and no share of it.
2. How alike the two models' circuits are, and the ranks of what their nodes do alone (`rcm.circuits.overlap`). Where no
   run of this model found a circuit under that ablation, the latter is measured here, on training pairs.
"""

import json
import logging
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from rcm.circuits import search
from rcm.circuits.ablation import Ablation, Kind, Mask, Masks, Measure, ablate, nodes_of
from rcm.circuits.conclusion import NO_GAP, OPEN, WORDS, concluded
from rcm.circuits.described import FOUND
from rcm.circuits.overlap import Overlap, overlap
from rcm.circuits.trial import trial
from rcm.execution.components import Component
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.execution.recording import shape_of
from rcm.models import LoadedModel
from rcm.patching import Pairs, engine_for
from rcm.prompts import Split
from rcm.record.identity import prompt_digest
from rcm.record.results import Column, Good, Null, Outcome, Result, Scalar, Table
from rcm.stats import FEWEST, Estimate, mean_interval
from rcm.transplant.source import Source

log = logging.getLogger(__name__)
Effects = Float[np.ndarray, " node"]
AT = "at the last token"
NO_OWN = "No run of this model among the sources found a circuit."
FIGURES = ("gap", "carried", "alone", "left", "jaccard", "rho")
ENDS = ("", "_low", "_high", "_n", "_null", "_p")
COLUMNS = (
    *("source", "run", "outcome", "nodes", "home_gap"),
    *(f"{name}{end}" for name in FIGURES for end in ENDS),
    "no_jaccard",
)
HINT = (
    f"The circuit of one model, tried in this one {AT}, on test pairs. Null: what 95 % of random circuits of the same "
    "size and layers stay below; of f(not C) above. The last two compare it with this model's own: null: random sets, "
    "and permuted scores, of the same kinds and layers."
)
SHOWN = (
    Column("source", "circuit of"),
    Column("outcome", "here"),
    Column("nodes", "heads and MLPs", "count"),
    Column("home_gap", "gap at home", "nats", "of the model that the circuit was found in"),
    Column("gap", "gap here", "nats", f"refused more than with all nodes ablated {AT}"),
    Column("carried", "carried", "share", "1 - max(|1 - f(C)|, |f(not C)|)"),
    Column("alone", "f(C)", "share", "what the model does with only the circuit"),
    Column("left", "f(not C)", "share", "what it still does without"),
    Column("jaccard", "Jaccard index", "", "with this model's own circuit"),
    Column("no_jaccard", "why no index"),
    Column("rho", "rank correlation", "", "of what each node does alone, in the two models"),
)


@dataclass(frozen=True)
class FoundCircuit:
    """What a run with the method `circuit` kept. `effects`: of each node alone, as shares of its model's gap.
    `chosen_on`: digests of the harmful prompts that chose it."""

    circuit: Mask
    effects: Effects
    refusal_tokens: tuple[int, ...]
    ablation: Kind
    chosen_on: frozenset[str]

    @classmethod
    def of(cls, source: Source, model: LoadedModel) -> "FoundCircuit | None":
        """None where the source has none, or is of another shape."""
        kept = source.tensors(FOUND)
        if kept is None:
            return None
        told, shape = kept.metadata, shape_of(model)
        layers, heads = int(told["layers"]), int(told["heads"])
        if (layers, heads) != (shape.layers, shape.heads) or not source.has_shape_of(model):
            log.warning(
                "The circuit of %s is left out: its model has %d layers of %d heads and width %s, this one %d of %d "
                "and %d.",
                *(source.label, layers, heads, told["d_model"], shape.layers, shape.heads, model.d_model),
            )
            return None
        return cls(
            kept.tensors["circuit"].numpy(),
            kept.tensors["effects"].double().numpy(),
            tuple(json.loads(told["refusal_tokens"])),
            cast(Kind, told["ablation"]),
            frozenset(json.loads(told["chosen_on"])),
        )

    def fresh(self, pairs: Pairs) -> Pairs:
        """Those that had no part in choosing it, be it that two runs divided their prompts in two ways."""
        digests = [prompt_digest(harmful) for harmful, _ in pairs.texts]
        return pairs.some([i for i, digest in enumerate(digests) if digest not in self.chosen_on])


def transplanted_circuits(
    model: LoadedModel, sources: Sequence[Source], prompts: Split, pairs: int | None, random_circuits: int, seed: int
) -> Iterator[Result]:
    """Of every source that is of another model and has a circuit; nothing where none has. `sources`: also this model's
    own runs. `pairs`: how many test pairs to try it on, and training pairs for effects of this model; None is all."""
    found = [(source, one) for source in sources if (one := FoundCircuit.of(source, model)) is not None]
    others = [(source, one) for source, one in found if not source.is_of(model)]
    if not others:
        return
    own = next((one for source, one in found if source.is_of(model)), None)
    train, test = (Pairs.of(model, part, prompts.paired).first(pairs) for part in (prompts.train, prompts.test))
    engine = engine_for(model, [*train.tokens, *test.tokens], seed)
    here = Target(engine, nodes_of(engine.shape), train, test, own, random_circuits, seed)
    rows = list[Sequence[Any]]()
    for source, theirs in others:
        row = {"source": source.label, "run": source.id, "nodes": int(theirs.circuit.sum())}
        row["home_gap"] = math.nan if source.circuit_gap is None else source.circuit_gap
        row |= yield from here.tried(source.label, theirs, source.circuit_gap)
        row |= yield from here.compared(source.label, theirs)
        rows.append([row[name] for name in COLUMNS])
    yield Table("transplant/circuits", COLUMNS, rows, "circuits of other models", HINT, SHOWN)


@dataclass(frozen=True)
class Target:
    """This model, which others' circuits are brought into; `own`: what a run of it found."""

    engine: Engine
    nodes: Sequence[Component]
    train: Pairs
    test: Pairs
    own: FoundCircuit | None
    random_circuits: int
    seed: int

    def tried(
        self, label: str, theirs: FoundCircuit, home_gap: float | None
    ) -> Generator[Result, None, dict[str, Any]]:
        """Yield the gap, what the trial shows and its word; return their part of the row."""
        name, shown, n = f"transplant/circuit_from_{label}", f"circuit of {label}", len(test := theirs.fresh(self.test))
        measure = self._measure(test, theirs, f"trial of that of {label}")
        everything, nothing = measure(self._ends())
        interval = mean_interval(everything - nothing, test.categories)
        gap = Scalar(
            f"transplant/circuit_gap_from_{label}",
            float((everything - nothing).mean()),
            interval,
            n,
            unit="nats",
            counts="pairs",
            label="gap",
            row=shown,
            hint=f"by which harmful prompts are refused rather than with all nodes ablated {AT}",
        )
        yield gap
        # A circuit may carry all of next to nothing.
        gaps = f"The gap is {gap.value:.2f} nats" + (
            "." if home_gap is None else f", {home_gap:.2f} where it was found."
        )
        if interval is None or interval[0] <= 0:
            word, why = NO_GAP, "it does not certainly refuse harmful prompts more than with all nodes ablated"
            if interval is None:
                word, why = OPEN, f"they are too few to tell whether it refuses, use at least {FEWEST}"
            because = f"On {n} test pairs of this model, {AT}: {why}. {gaps}"
            yield Outcome(name, word, because, label=shown, words=WORDS)
            nothing_known = {f"{figure}{end}": math.nan for figure in ("carried", "alone", "left") for end in ENDS}
            return {"outcome": word, **nothing_known, **_cells(gap=gap)}

        tried = trial(measure, theirs.circuit, self.engine.shape, test.categories, self.random_circuits, self.seed)

        def share(figure: str, one: Estimate, null: Null | None, good: Good, name: str, hint: str) -> Scalar:
            return Scalar(
                f"transplant/circuit_{figure}_from_{label}",
                one.value,
                None if math.isnan(one.low) else (one.low, one.high),
                n,
                null,
                unit="share",
                counts="pairs",
                good=good,
                label=name,
                row=shown,
                hint=f"{hint}, {AT}",
            )

        of_alone = tried.null_of(tried.random_kept, tried.sufficient.value, "high")
        of_left = tried.null_of(tried.random_removed, tried.left.value, "low")
        does, still = (
            "what this model does with only that circuit; 1 is all",
            "what it still does without; 0 is nothing",
        )
        carried = share("carried", tried.carried, tried.null, "high", "carried", "1 - max(|1 - f(C)|, |f(not C)|)")
        alone = share("alone", tried.sufficient, of_alone, "high", "f(C)", does)
        left = share("left", tried.left, of_left, "low", "f(not C)", still)
        yield from (carried, alone, left)
        outcome = concluded(int(theirs.circuit.sum()), len(self.nodes), tried)
        yield replace(outcome, name=name, label=shown, because=f"{outcome.because} {gaps}")
        return {"outcome": outcome.value, **_cells(gap=gap, carried=carried, alone=alone, left=left)}

    def compared(self, label: str, theirs: FoundCircuit) -> Generator[Result, None, dict[str, Any]]:
        """Yield how alike the circuits are, where there is an own one, and the ranks of all nodes; return their part of
        the row."""
        if self.own is None:
            why = NO_OWN
        elif self.own.ablation != theirs.ablation:
            why = (
                f"This model's circuit was found under {self.own.ablation} ablation, that of {label} under "
                f"{theirs.ablation}; find both under one."
            )
        else:
            why = ""
        own = None if why else self.own
        found = self._overlap(label, theirs, own)

        def figure(name: str, value: float, null: Null | None, shown: str, hint: str) -> Scalar:
            return Scalar(
                f"transplant/circuit_{name}_from_{label}",
                value,
                n=found.components,
                null=null,
                counts="nodes",
                label=shown,
                row=f"circuit of {label}, and this model's own",
                hint=f"{hint}, {AT}",
                good="high",
            )

        both = "nodes that both circuits have, of those that either has"
        alone = "Spearman's rho of what each node does alone in the two models, on training pairs"
        jaccard = figure("jaccard", found.jaccard, found.jaccard_null, "Jaccard index", both)
        rho = figure("rank_correlation", found.rho, found.rho_null, "rank correlation", alone)
        if own is not None:
            yield jaccard
        yield rho
        return {"no_jaccard": why, **_cells(jaccard=jaccard, rho=rho)}

    def _overlap(self, label: str, theirs: FoundCircuit, own: FoundCircuit | None) -> Overlap:
        """Of what nodes do alone; also of the circuits where there is an own one."""

        def scores(effects: Effects) -> dict[Component, float]:
            return dict(zip(self.nodes, effects.tolist(), strict=True))

        def members(circuit: Mask) -> list[Component]:
            return [node for node, chosen in zip(self.nodes, circuit, strict=True) if chosen]

        if own is None:
            return overlap(scores(self._effects(label, theirs)), scores(theirs.effects), (), (), self.seed)
        ours, circuit = scores(own.effects), members(own.circuit)
        return overlap(ours, scores(theirs.effects), circuit, members(theirs.circuit), self.seed)

    def _effects(self, label: str, theirs: FoundCircuit) -> Effects:
        """What each node does alone here, by the source's tokens, in gaps of this model. Above zero is what refuses,
        also where harmful prompts are refused less."""
        measure = self._measure(self.train, theirs, f"single nodes, beside {label}")
        everything, nothing = measure(self._ends())
        gap = float((everything - nothing).mean())
        if gap == 0:
            return np.zeros(len(self.nodes))  # nothing has a share of it, so nothing is ranked
        return search.single_effects(measure, len(self.nodes)) * np.sign(gap)

    def _measure(self, pairs: Pairs, theirs: FoundCircuit, label: str) -> Measure:
        metric = LogOdds(theirs.refusal_tokens)
        ablation = Ablation(theirs.ablation, self.engine.model, self.train.tokens)
        return lambda ablated: ablate(self.engine, pairs.tokens, ablated, metric, ablation, label)

    def _ends(self) -> Masks:
        """Nothing ablated, and everything."""
        none = np.zeros((1, len(self.nodes)), dtype=bool)
        return np.concatenate([none, ~none])


def _cells(**figures: Scalar) -> dict[str, Any]:
    """The columns of each."""
    cells = dict[str, Any]()
    for name, one in figures.items():
        null, p = (one.null.value, one.null.p) if one.null else (math.nan, math.nan)
        values = (one.value, *(one.interval or (math.nan, math.nan)), one.n, null, p)
        cells |= dict(zip((f"{name}{end}" for end in ENDS), values, strict=True))
    return cells
