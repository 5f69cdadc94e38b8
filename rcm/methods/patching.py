"""Which layers and heads decide on refusal: exact interchange of components between harmful and harmless prompts.

1. Pair harmful with harmless test prompts. At the last token of the prompt replace every head, attention output, MLP
   output and residual stream in turn, harmless into harmful (necessity) and harmful into harmless (sufficiency): all of
   them in one pass, exactly (`rcm.patching.rows`).
2. An effect is the change of the refusal metric as a share of the pair's gap; a pair without a gap has no share.
3. A cell is significant if it exceeds what swapping the labels within pairs reaches anywhere in all maps (max-T), and
   critical if its share is also certain to exceed `min_share`. So "none" is a possible answer.
4. Two other ways to rank heads stand beside: what they write along the refusal direction, and what refusing loses when
   their mean over training prompts replaces them. Do the three agree, and is the ranking stable over pairs?
5. On validation pairs, which had no part in the choice: the critical heads together, beside random sets of as many
   heads; and the leading heads knocked out two at a time, which shows copies that stand in for each other.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveInt
from scipy.stats import spearmanr

from rcm.generation import reply_tokens
from rcm.judges import Judge
from rcm.methods.behaviour import NO_REFUSAL, REFUSAL
from rcm.methods.direction import Direction, Found
from rcm.models import LoadedModel
from rcm.patching import (
    KINDS,
    Component,
    Effects,
    Engine,
    Estimate,
    Interchange,
    LogOdds,
    Pair,
    Rows,
    contributions,
    engine_of,
    interchange,
    interchange_of_replies,
    mean_values,
    record,
    stability,
)
from rcm.progress import track
from rcm.prompts import Part, Split, texts
from rcm.results import Curve, Heatmap, Line, Outcome, Result, Scalar, Table
from rcm.stats import exchange_null, mean_interval

LOCALISED, NONE, NO_GAP = "localised", "none", "no_gap"
TOP = 10  # heads, of which the stability of the ranking is told
MEAN_PAIRS = 48  # training pairs behind the mean that ablation puts in the place of a head
PAIRS_PER_DRAW = 4  # that share one draw of random sets
SHARE = "share of the gap"
WAYS = ("necessity", "sufficiency")
Heads = Float[np.ndarray, " head"]  # of all layers, in the order of `Shape.components`


class Patching(Direction):
    """`pairs`: how many test pairs; null is all. `position_pairs`: how many of them also at every end-of-instruction
    token. `ranked_pairs`: how many of them to rank heads on by contribution and by ablation. `metric`: `log_odds` of
    opening with a refusal token, or `replies`, how much likelier the model's own refusal is than its own answer over
    `reply_tokens` tokens. `min_gap` in units of the metric. `min_share` of the gap. `random_sets`: of heads, behind the
    null of the critical ones. `leading_heads`: how many of each ranking to knock out two at a time.
    """

    pairs: PositiveInt | None
    position_pairs: PositiveInt
    ranked_pairs: PositiveInt
    metric: Literal["log_odds", "replies"]
    reply_tokens: PositiveInt
    min_gap: NonNegativeFloat
    min_share: NonNegativeFloat
    random_sets: PositiveInt
    leading_heads: PositiveInt

    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        found = yield from self.find(model, prompts, seed)
        yield from self.patch(model, prompts, seed, found)

    def patch(
        self, model: LoadedModel, prompts: Split, seed: int, found: Found, gate: Outcome | None = None
    ) -> Generator[Result, None, None]:
        """Yield maps, rankings and the critical components; nothing is patched in a model that does not refuse."""
        stopped = gate is not None and gate.value != REFUSAL
        if stopped or not found.refusal_tokens:
            value = gate.value if gate is not None and stopped else NO_REFUSAL
            yield Outcome("patching/outcome", value, "There is no refusing to localise.")
            return
        metric = LogOdds(found.refusal_tokens)
        pairs = _pairs(model, prompts.test, self.pairs)
        (first, *_), (twin, *_) = zip(*pairs, strict=True)
        engine = engine_of(model, record(model, [first], tail=2), record(model, [twin], tail=2), seed)
        yield Outcome("patching/engine", engine.path, f"{engine.reason[0].upper()}{engine.reason[1:]}.")
        yield Scalar("patching/engine_error", engine.error)

        components = engine.shape.components(KINDS)
        study = self._study(engine, pairs, prompts, metric)
        yield from _controls(study, engine)
        effects = Effects.of(study.rows(range(len(components))), components, self.min_gap, seed)
        yield from _gap(study, effects, seed)
        if not effects.with_gap.any():
            yield Outcome("patching/outcome", NO_GAP, f"In no pair does the metric differ by {self.min_gap:g} or more.")
            return
        yield from _maps(effects, engine, self.min_share)
        yield _residual_curve(effects, engine)

        ranking = _rank(engine, pairs[: self.ranked_pairs], _pairs(model, prompts.train, MEAN_PAIRS), metric, found)
        yield from _agreement(effects, ranking)
        yield from _stability(effects, seed)
        critical = effects.critical(self.min_share)
        yield _heads_table(effects, ranking, critical)
        yield _layers_table(effects, critical)

        heads = [components[cell] for cell in effects.of_kind("head") if critical[cell]]
        yield _outcome(effects, critical)
        yield Scalar("patching/critical_heads", len(heads), n=len(effects.of_kind("head")))
        held_out = _pairs(model, prompts.validation, None)
        if heads:
            yield from self._together(engine, held_out, heads, metric, seed)
        yield self._knock_out(engine, held_out, _leading(effects, ranking, self.leading_heads), metric)
        if len(self._positions(model)) > 1:  # the last one alone is in the layers' maps
            yield from self._positions_maps(engine, pairs[: self.position_pairs], metric)

    def _study(self, engine: Engine, pairs: Sequence[Pair], prompts: Split, metric: LogOdds) -> Interchange:
        """Every component alone, then the controls: each layer replaced by itself, and everything replaced."""
        patches = Rows.concat([Rows.each(KINDS, engine.shape), Rows.identity(engine.shape), Rows.full(engine.shape)])
        if self.metric == "log_odds":
            return interchange(engine, pairs, patches, metric, label="patching: every component")
        said = [
            reply_tokens(engine.model, texts(side)[: len(pairs)], self.reply_tokens, label="patching: replies")
            for side in prompts.test
        ]
        length = min(_length(row, engine.model) for side in said for row in side)
        refusals, answers = (torch.tensor([row[:length] for row in side]) for side in said)
        return interchange_of_replies(engine, pairs, patches, refusals, answers)

    def _together(
        self, engine: Engine, pairs: Sequence[Pair], heads: Sequence[Component], metric: LogOdds, seed: int
    ) -> Iterator[Scalar]:
        """The critical heads as one set, beside random sets of as many; shares of the gap."""
        groups = [pairs[start : start + PAIRS_PER_DRAW] for start in range(0, len(pairs), PAIRS_PER_DRAW)]
        each = -(-self.random_sets // len(groups))
        ours, others = [], []
        for number, group in enumerate(track(groups, "patching: critical heads")):
            randoms = Rows.random_heads(each, len(heads), engine.shape, seed + number, without=heads)
            study = interchange(engine, group, Rows.concat([Rows.of([heads], engine.shape), randoms]), metric)
            kept = study.where(study.gap >= self.min_gap)
            shares = torch.stack([kept.necessity, kept.sufficiency]) / kept.gap[:, None]
            ours.append(shares[..., 0])
            others.append(shares[..., 1:])
        for way, mine, random in zip(WAYS, torch.cat(ours, 1).numpy(), torch.cat(others, 1).numpy(), strict=True):
            if not len(mine):
                continue
            null = float(np.quantile(exchange_null(mine, random, seed), 0.95))
            yield Scalar(
                f"patching/critical_heads_{way}", float(mine.mean()), mean_interval(mine, seed), len(mine), null
            )

    def _knock_out(self, engine: Engine, pairs: Sequence[Pair], heads: Sequence[Component], metric: LogOdds) -> Heatmap:
        """Necessity of two heads together less that of each alone: above zero, one stands in for the other."""
        both = [(a, b) for i, a in enumerate(heads) for b in heads[:i]]
        patches = Rows.of([*([head] for head in heads), *both], engine.shape)
        study = interchange(engine, pairs, patches, metric, label="patching: two heads at a time")
        kept = study.where(study.gap >= self.min_gap)
        shares = (kept.necessity / kept.gap[:, None]).mean(0).numpy()
        place = {head: i for i, head in enumerate(heads)}
        grid = np.diag(shares[: len(heads)])
        for (a, b), share in zip(both, shares[len(heads) :], strict=True):
            i, j = place[a], place[b]
            grid[i, j] = grid[j, i] = share - shares[i] - shares[j]
        names = [_name(head) for head in heads]
        return Heatmap("patching/knock_out", grid, names, names, "head (diagonal: alone)", "head", value_label=SHARE)

    def _positions_maps(self, engine: Engine, pairs: Sequence[Pair], metric: LogOdds) -> Iterator[Heatmap]:
        """The residual stream at every end-of-instruction token, which all prompts have in common."""
        positions = self._positions(engine.model)
        patches = Rows.each(["residual"], engine.shape)
        grids: list[Float[np.ndarray, "way layer"]] = []
        for position in positions:
            study = interchange(engine, pairs, patches, metric, -position, f"patching: position {position}")
            kept = study.where(study.gap >= self.min_gap)
            shares = torch.stack([kept.necessity, kept.sufficiency]) / kept.gap[:, None]
            grids.append(shares.mean(1).numpy())
        labels = [f"{position} {engine.model.template.end_of_instruction_text[position]}" for position in positions]
        for way, grid in zip(WAYS, np.stack(grids, axis=1), strict=True):
            columns = [str(layer) for layer in range(engine.shape.layers)]
            yield Heatmap(f"patching/positions_{way}", grid, labels, columns, "position", "layer", value_label=SHARE)


@dataclass(frozen=True)
class Ranking:
    """Two ways to rank heads without interchange. `direct`: what harmful prompts make a head write along the refusal
    direction more than harmless ones do, as a share of the direction's natural length. `ablation`: the log-odds that
    harmful prompts lose when the head's mean replaces it."""

    direct: Heads
    ablation: Heads


def _pairs(model: LoadedModel, part: Part, n: int | None) -> list[Pair]:
    """Harmful prompts, each with the harmless one beside it, as tokens."""
    tokens = model.template.tokens
    return [(tokens(a.text), tokens(b.text)) for a, b in zip(*part, strict=False)][:n]


def _length(row: Sequence[int], model: LoadedModel) -> int:
    """Tokens of a reply before its padding, the one that ends the turn included."""
    stops = model.hf.generation_config.eos_token_id or []
    ends = [place for place, token in enumerate(row, start=1) if token in stops]
    return ends[0] if ends else len(row)


def _controls(study: Interchange, engine: Engine) -> Iterator[Scalar]:
    """What replacing everything does, and what replacing a layer by itself must not do."""
    layers = engine.shape.layers
    own = torch.stack([study.necessity, study.sufficiency])[..., -1 - layers : -1]
    yield Scalar("patching/noise_floor", own.abs().max().item(), n=own.numel())
    for way, figures in zip(WAYS, (study.necessity, study.sufficiency), strict=True):
        yield Scalar(f"patching/last_token_{way}", (figures[:, -1].sum() / study.gap.sum()).item(), n=len(study.gap))


def _gap(study: Interchange, effects: Effects, seed: int) -> Iterator[Scalar]:
    gap = study.gap.numpy()
    yield Scalar("patching/gap", float(gap.mean()), mean_interval(gap, seed), len(gap))
    yield Scalar("patching/pairs", int(effects.with_gap.sum()))
    yield Scalar("patching/pairs_without_gap", int((~effects.with_gap).sum()))


def _maps(effects: Effects, engine: Engine, min_share: float) -> Iterator[Heatmap]:
    """Shares of the gap; the marked cells are critical."""
    layers, heads = engine.shape
    names = [str(layer) for layer in range(layers)]
    for way in WAYS:
        estimate: Estimate = getattr(effects, way)
        critical = estimate.critical(min_share)
        kinds = {kind: effects.of_kind(kind) for kind in KINDS}
        grids = {
            "heads": (kinds["head"], heads, [str(head) for head in range(heads)], "head"),
            "layers": (
                list(np.stack([kinds[kind] for kind in ("attention", "mlp", "residual")], 1).flat),
                3,
                ["attention", "MLP", "residual"],
                "component",
            ),
        }
        for name, (cells, width, columns, label) in grids.items():
            values, marks = (figure[cells].reshape(layers, width) for figure in (estimate.share, critical))
            marked = [(int(row), int(column)) for row, column in np.argwhere(marks)]
            yield Heatmap(f"patching/{name}_{way}", values, names, columns, "layer", label, marked, value_label=SHARE)


def _residual_curve(effects: Effects, engine: Engine) -> Curve:
    """Where along the layers the last token comes to hold the decision."""
    cells = effects.of_kind("residual")
    lines = [
        Line(way, list(one.share[cells]), list(one.low[cells]), list(one.high[cells]))
        for way, one in zip(WAYS, (effects.necessity, effects.sufficiency), strict=True)
    ]
    layers = [float(layer) for layer in range(engine.shape.layers)]
    return Curve("patching/residual", layers, lines, "layer", f"{SHARE}, residual stream replaced at the last token")


def _rank(engine: Engine, pairs: Sequence[Pair], training: Sequence[Pair], metric: LogOdds, found: Found) -> Ranking:
    mean = mean_values(engine.model, [tokens for pair in training for tokens in pair])
    patches = Rows.concat([Rows.each(["head"], engine.shape), Rows.of([[]], engine.shape)])
    length = float(found.vector.norm())
    direct, metrics = [], []
    for pair in track(pairs, "patching: heads by contribution and ablation"):
        harmful, harmless = (record(engine.model, [tokens]) for tokens in pair)
        along = [contributions(engine.model, side.at(-1), found.vector / length) for side in (harmful, harmless)]
        direct.append((along[0] - along[1]).flatten() / length)
        metrics.append(engine.measure(harmful, [mean, mean], patches, metric)[0])
    figures = torch.stack(metrics)
    lost = (figures[:, -1:] - figures[:, :-1]).mean(0)
    return Ranking(torch.stack(direct).double().mean(0).cpu().numpy(), lost.numpy())


def _agreement(effects: Effects, ranking: Ranking) -> Iterator[Scalar]:
    """Spearman's rho between the rankings of all heads."""
    patched = effects.shares[:, effects.of_kind("head")].mean(0)
    columns = {"direct": ranking.direct, "ablation": ranking.ablation, "interchange": patched}
    names = list(columns)
    for i, a in enumerate(names):
        for b in names[:i]:
            rho = spearmanr(columns[a], columns[b]).statistic
            yield Scalar(f"patching/rank_correlation_{b}_{a}", float(rho), n=len(patched))


def _stability(effects: Effects, seed: int) -> Iterator[Scalar]:
    rho, jaccard = stability(effects.shares[:, effects.of_kind("head")], TOP, seed)
    for name, values in (("rank_stability", rho), (f"top_{TOP}_stability", jaccard)):
        low, high = np.quantile(values, [0.025, 0.975])
        yield Scalar(f"patching/{name}", float(values.mean()), (float(low), float(high)), len(effects.shares))


def _outcome(effects: Effects, critical: Bool[np.ndarray, " cell"]) -> Outcome:
    """The strongest heads and layers in words, or none."""
    order = np.argsort(-np.abs(effects.shares.mean(0)))
    leading = [cell for cell in order if critical[cell] and effects.components[cell].kind != "residual"]
    if not leading:
        return Outcome("patching/outcome", NONE, "No head, attention or MLP output exceeds what swapped labels reach.")
    said = ", ".join(f"{effects.components[cell]} ({effects.shares[:, cell].mean():+.0%})" for cell in leading[:6])
    return Outcome("patching/outcome", LOCALISED, f"{len(leading)} critical components; the strongest: {said}.")


def _leading(effects: Effects, ranking: Ranking, n: int) -> list[Component]:
    """The first heads of each ranking, by layer."""
    cells = effects.of_kind("head")
    patched = effects.shares[:, cells].mean(0)
    first = {int(place) for column in (patched, ranking.direct, ranking.ablation) for place in np.argsort(-column)[:n]}
    return [effects.components[cells[place]] for place in sorted(first)]


def _heads_table(effects: Effects, ranking: Ranking, critical: Bool[np.ndarray, " cell"]) -> Table:
    """One row for each head: three ways to say how much it matters."""
    columns = ("layer", "head", "direct", "ablation", *_columns(), "critical")
    rows = [
        (head.layer, head.head, float(direct), float(ablation), *_figures(effects, cell), bool(critical[cell]))
        for cell, direct, ablation in zip(effects.of_kind("head"), ranking.direct, ranking.ablation, strict=True)
        for head in [effects.components[cell]]
    ]
    return Table("patching/heads", columns, rows)


def _layers_table(effects: Effects, critical: Bool[np.ndarray, " cell"]) -> Table:
    cells = [cell for kind in ("attention", "mlp", "residual") for cell in effects.of_kind(kind)]
    rows = [
        (effects.components[cell].layer, effects.components[cell].kind, *_figures(effects, cell), bool(critical[cell]))
        for cell in cells
    ]
    return Table("patching/layers", ("layer", "component", *_columns(), "critical"), rows)


def _columns() -> list[str]:
    return [f"{way}{figure}" for way in WAYS for figure in ("", "_low", "_high", "_p")]


def _figures(effects: Effects, cell: int) -> list[float]:
    estimates = (effects.necessity, effects.sufficiency)
    return [float(figure[cell]) for one in estimates for figure in (one.share, one.low, one.high, one.p)]


def _name(head: Component) -> str:
    return f"{head.layer}.{head.head}"
