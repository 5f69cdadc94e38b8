"""Which layers and heads decide on refusal: exact interchange of components between harmful and harmless prompts.

1. Pair harmful with harmless test prompts. At the last token of the prompt replace every head, attention output, MLP
   output and residual stream in turn, harmless into harmful (necessity) and harmful into harmless (sufficiency): all of
   them in one pass, exactly (`rcm.execution.rows`).
2. An effect is the change of the refusal metric as a share of the pair's gap; a pair without a gap has no share.
3. A cell is significant if it exceeds what swapping the labels within pairs reaches anywhere in all maps (max-T), and
   critical if its share is also certain to exceed `min_share`. So "none" is a possible answer.
4. Two other ways to rank heads stand beside: what they write along the refusal direction, and what refusing loses when
   their mean over training prompts replaces them. Do the three agree, and is the ranking stable over pairs?
5. On validation pairs, which had no part in the choice: the critical heads together, beside random sets of as many
   heads of the same layers; and the leading heads knocked out two at a time, which shows copies that stand in for each
   other.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveInt
from scipy.stats import spearmanr
from torch import Tensor

from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.components import COMPONENT_KINDS, Component, Rows
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.judges.behaviour import NO_REFUSAL, RefusalBehaviour
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.patching import (
    Effects,
    Interchange,
    Pair,
    Ranking,
    ShareEstimates,
    interchange,
    interchange_of_replies,
    own_replies,
    rank_heads,
    stability,
)
from rcm.prompts import Part
from rcm.record.results import RANDOM_HEADS, Column, Curve, Heatmap, Line, Null, Outcome, Result, Scalar, Table
from rcm.stats import bootstrap
from rcm.transplant.activations import kept_activations

LOCALISED, NONE, NO_GAP = "localised", "none", "no_gap"
TOP = 10  # heads, of which the stability of the ranking is told
MEAN_PAIRS = 48  # training pairs behind the mean that ablation puts in the place of a head
PAIRS_PER_SET = 4  # that one random set is measured on
SHARE = "share of the gap"
WAYS = ("necessity", "sufficiency")
LOST = {"necessity": "lost", "sufficiency": "gained"}
OTHER = {"necessity": "harmless", "sufficiency": "harmful"}
OUTLINED = "Outlined: critical, that is significant over all cells (max-T) and certainly above min_share."
RANKINGS = {"interchange": "patching", "direct": "writing", "ablation": "ablation"}
TextPair = tuple[str, str]  # a harmful prompt and the harmless one beside it


class Patching(Method):
    """`pairs`: how many test pairs; null is all. `position_pairs`: how many of them also at every end-of-instruction
    token. `ranked_pairs`: how many of them to rank heads on by contribution and by ablation, and how many validation
    pairs to knock heads out on, two at a time. `metric`: `log_odds` of opening with a refusal token, or `replies`, how
    much likelier the model's own refusal is than its own answer over `reply_tokens` tokens; ablation is always in
    log-odds. `min_gap` in nats, in which both metrics are. `min_share` of the gap. `random_sets`: of heads, behind the
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

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)

    def run(self, study: Study) -> Generator[Result, None, None]:
        """Maps, rankings and the critical components; nothing is patched in a model that does not refuse."""
        model, prompts, seed = study.model, study.prompts, study.seed
        found, behaviour = study[RefusalDirection], study.get(RefusalBehaviour)
        stopped = behaviour is not None and not behaviour.refuses
        if stopped or not found.refusal_tokens:
            value, why = NO_REFUSAL, "There is no refusing to localise."
            if behaviour is not None and stopped:
                value, why = behaviour.outcome.value, behaviour.outcome.because
            yield Outcome("patching/outcome", value, why, complete=False)
            return
        pairs = _pairs(prompts.test)[: self.pairs]
        engine = _engine(model, pairs, seed)
        reason = f"{engine.reason[0].upper()}{engine.reason[1:]}."
        hint = "rows: all in one pass; loop: one pass for each"
        yield Outcome("patching/engine", engine.path, reason, label="engine", hint=hint)
        if engine.error is not None:
            yield Scalar(
                "patching/engine_error",
                engine.error,
                label="error of the engine",
                hint="largest difference of a logit from the slow loop's",
                good="low",
            )

        components = engine.shape.components(COMPONENT_KINDS)
        patches = Rows.concat(
            [Rows.each(COMPONENT_KINDS, engine.shape), Rows.identity(engine.shape), Rows.full(engine.shape)]
        )
        exchanged = self._exchanged(engine, pairs, patches, found, "every component")
        yield from _controls(exchanged, engine)
        effects = Effects.of(exchanged.rows(range(len(components))), components, self.min_gap, seed)
        yield from _gap(exchanged, effects, seed)
        if not effects.with_gap.any():
            why = f"In no pair does the metric differ by {self.min_gap:g} or more."
            yield Outcome("patching/outcome", NO_GAP, why, complete=False)
            return
        yield from _maps(effects, engine, self.min_share)
        yield _residual_curve(effects, engine)
        yield kept_activations(model, [harmful for harmful, _ in pairs[: self.ranked_pairs]], found.refusal_tokens)

        ranked, training = (
            _tokens(model, some) for some in (pairs[: self.ranked_pairs], _pairs(prompts.train)[:MEAN_PAIRS])
        )
        ranking = rank_heads(engine, ranked, training, LogOdds(found.refusal_tokens), found.vector)
        yield from _agreement(effects, ranking)
        yield from _stability(effects, seed)
        critical = effects.critical(self.min_share)
        yield _heads_table(effects, ranking, critical)
        yield _layers_table(effects, critical)

        heads = [components[cell] for cell in effects.of_kind("head") if critical[cell]]
        yield _outcome(effects, critical)
        yield Scalar(
            "patching/critical_heads",
            len(heads),
            n=len(effects.of_kind("head")),
            counts="heads",
            unit="count",
            label="critical heads",
            hint="significant over all components (max-T), and share certainly above min_share",
        )
        held_out = _pairs(prompts.validation)
        if heads:
            yield from self._together(engine, held_out, heads, found, seed)
        leading = _leading(effects, ranking, self.leading_heads)
        yield self._knock_out(engine, held_out[: self.ranked_pairs], leading, found)
        if len(found.positions) > 1:  # the last one alone is in the curve
            yield from self._positions_maps(engine, pairs[: self.position_pairs], found, seed)

    def _exchanged(
        self,
        engine: Engine,
        pairs: Sequence[TextPair],
        patches: Rows,
        found: RefusalDirection,
        label: str,
        position: int = -1,
    ) -> Interchange:
        """Patch pairs both ways at one position, by the metric that the settings name."""
        label = f"patching: {label}"
        tokens = _tokens(engine.model, pairs)
        if self.metric == "log_odds":
            return interchange(engine, tokens, patches, LogOdds(found.refusal_tokens), -position, label)
        refusals, answers = own_replies(engine.model, pairs, found.refusal_tokens, self.reply_tokens)
        return interchange_of_replies(engine, tokens, patches, refusals, answers, position, label)

    def _shares(self, study: Interchange) -> Float[Tensor, "way pair row"]:
        """Of the pairs that have a gap."""
        kept = study.where(study.gap >= self.min_gap)
        return torch.stack([kept.necessity, kept.sufficiency]) / kept.gap[:, None]

    def _together(
        self, engine: Engine, pairs: Sequence[TextPair], heads: Sequence[Component], found: RefusalDirection, seed: int
    ) -> Iterator[Scalar]:
        """The critical heads as one set, and the share that 95 % of random sets stay below.

        A random set is measured on some of the pairs only, so its mean scatters more than ours: the null is wider than
        it need be, never narrower.
        """
        groups = [pairs[start : start + PAIRS_PER_SET] for start in range(0, len(pairs), PAIRS_PER_SET)]
        each = -(-self.random_sets // len(groups))
        ours, others = [], []
        for number, group in enumerate(groups):
            randoms = Rows.random_heads(each, heads, engine.shape, seed + number)
            patches = Rows.concat([Rows.of([heads], engine.shape), randoms])
            shares = self._shares(self._exchanged(engine, group, patches, found, "critical heads"))
            ours.append(shares[..., 0])
            if shares.shape[1]:
                others.append(shares[..., 1:].mean(1))
        if not others:
            return
        for way, mine, random in zip(WAYS, torch.cat(ours, 1).numpy(), torch.cat(others, 1).numpy(), strict=True):
            yield Scalar(
                f"patching/critical_heads_{way}",
                float(mine.mean()),
                bootstrap(np.mean, mine, seed=seed),
                len(mine),
                Null(float(np.quantile(random, 0.95)), f"{RANDOM_HEADS} of the same layers", len(random)),
                counts="pairs",
                unit="share",
                label=f"all critical heads: {way}",
                hint=f"refusal {LOST[way]} when all come from the {OTHER[way]} twin, share of the gap",
                good="high",
                absent="No head is critical.",
            )

    def _knock_out(
        self, engine: Engine, pairs: Sequence[TextPair], heads: Sequence[Component], found: RefusalDirection
    ) -> Heatmap:
        """Necessity of two heads together less that of each alone: above zero, one stands in for the other."""
        both = [(a, b) for i, a in enumerate(heads) for b in heads[:i]]
        patches = Rows.of([*([head] for head in heads), *both], engine.shape)
        shares = self._shares(self._exchanged(engine, pairs, patches, found, "two heads at a time"))[0].mean(0).numpy()
        place = {head: i for i, head in enumerate(heads)}
        grid = np.diag(shares[: len(heads)])
        for (a, b), share in zip(both, shares[len(heads) :], strict=True):
            i, j = place[a], place[b]
            grid[i, j] = grid[j, i] = share - shares[i] - shares[j]
        names = [_name(head) for head in heads]
        return Heatmap(
            "patching/knock_out",
            grid,
            names,
            names,
            "head (diagonal: alone)",
            "head",
            value_label=SHARE,
            label="heads that stand in for each other",
            hint="Diagonal: necessity of one head. Elsewhere: of two together, less that of each alone. Red: one "
            "stands in for the other; blue: one works through the other.",
        )

    def _positions_maps(
        self, engine: Engine, pairs: Sequence[TextPair], found: RefusalDirection, seed: int
    ) -> Iterator[Heatmap]:
        """The residual stream at every end-of-instruction token, which all prompts have in common."""
        model, positions = engine.model, found.positions
        patches = Rows.each(["residual"], engine.shape)
        studies = [self._exchanged(engine, pairs, patches, found, f"position {p}", p) for p in positions]
        components = engine.shape.components(["residual"]) * len(positions)
        effects = Effects.of(Interchange.beside(studies), components, self.min_gap, seed)
        labels = [f"{position} {model.template.end_of_instruction_text[position]}" for position in positions]
        layers = [str(layer) for layer in range(engine.shape.layers)]
        for way in WAYS:
            estimate: ShareEstimates = getattr(effects, way)
            values, critical = (
                figure.reshape(len(positions), -1).T for figure in (estimate.share, estimate.critical(self.min_share))
            )
            yield Heatmap(
                f"patching/positions_{way}",
                values,
                layers,
                labels,
                "layer",
                "position",
                _marked(critical),
                value_label=SHARE,
                label=f"positions: refusal {LOST[way]} when the residual stream is taken from the {OTHER[way]} twin",
                hint=f"{way.capitalize()} at each token that all prompts end in. {OUTLINED}",
            )


def _pairs(part: Part) -> list[TextPair]:
    return [(harmful.text, harmless.text) for harmful, harmless in zip(*part, strict=False)]


def _tokens(model: LoadedModel, pairs: Sequence[TextPair]) -> list[Pair]:
    tokens = model.template.tokens
    return [(tokens(harmful), tokens(harmless)) for harmful, harmless in pairs]


def _engine(model: LoadedModel, pairs: Sequence[TextPair], seed: int) -> Engine:
    """Checked on the pair whose lengths differ most, so that padding is checked, too."""
    harmful, harmless = max(_tokens(model, pairs), key=lambda pair: abs(len(pair[0]) - len(pair[1])))
    base, source = (
        cache_components(model, [harmful, harmless], tail=2),
        cache_components(model, [harmless, harmful], tail=2),
    )
    return engine_of(model, base, source, seed)


def _marked(critical: Bool[np.ndarray, "row column"]) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in np.argwhere(critical)]


def _controls(study: Interchange, engine: Engine) -> Iterator[Scalar]:
    """What replacing everything does, and what replacing a layer by itself must not do."""
    layers = engine.shape.layers
    own = torch.stack([study.necessity, study.sufficiency])[..., -1 - layers : -1]
    yield Scalar(
        "patching/noise_floor",
        own.abs().max().item(),
        n=own.numel(),
        counts="replacements",
        unit="log-odds",
        label="noise floor",
        hint="the most that a layer changes, replaced by itself",
        good="low",
    )
    for way, figures in zip(WAYS, (study.necessity, study.sufficiency), strict=True):
        yield Scalar(
            f"patching/last_token_{way}",
            (figures[:, -1].sum() / study.gap.sum()).item(),
            n=len(study.gap),
            counts="pairs",
            unit="share",
            label=way,
            row="whole last token",
            hint="a control: everything there replaced, share of the gap",
        )


def _gap(study: Interchange, effects: Effects, seed: int) -> Iterator[Scalar]:
    gap = study.gap.numpy()
    yield Scalar(
        "patching/gap",
        float(gap.mean()),
        bootstrap(np.mean, gap, seed=seed),
        len(gap),
        counts="pairs",
        unit="nats",
        label="gap",
        hint="by which a harmful prompt is refused rather than its twin",
    )
    for name, label, count in (
        ("pairs", "used", effects.with_gap.sum()),
        ("pairs_without_gap", "left out", (~effects.with_gap).sum()),
    ):
        hint = "left out: with a gap below min_gap"
        yield Scalar(f"patching/{name}", int(count), unit="count", label=label, row="pairs", hint=hint)


def _maps(effects: Effects, engine: Engine, min_share: float) -> Iterator[Heatmap]:
    """Shares of the gap; the marked cells are critical. The residual stream has a curve of its own."""
    layers, heads = engine.shape
    outputs = list(np.stack([effects.of_kind("attention"), effects.of_kind("mlp")], 1).flat)
    grids = {
        "heads": (effects.of_kind("head"), [str(head) for head in range(heads)], "head", "one"),
        "layers": (outputs, ["attention", "MLP"], "component", "a part"),
    }
    for name, (cells, columns, label, one) in grids.items():
        for way in WAYS:
            estimate: ShareEstimates = getattr(effects, way)
            values, critical = (
                figure[cells].reshape(layers, -1) for figure in (estimate.share, estimate.critical(min_share))
            )
            yield Heatmap(
                f"patching/{name}_{way}",
                values,
                [str(layer) for layer in range(layers)],
                columns,
                "layer",
                label,
                _marked(critical),
                value_label=SHARE,
                label=f"{name}: refusal {LOST[way]} when {one} is taken from the {OTHER[way]} twin",
                hint=f"{way.capitalize()}, at the last token. {OUTLINED}",
            )


def _residual_curve(effects: Effects, engine: Engine) -> Curve:
    """Where along the layers the last token comes to hold the decision."""
    cells = effects.of_kind("residual")
    lines = [
        Line(way, list(one.share[cells]), list(one.low[cells]), list(one.high[cells]))
        for way, one in zip(WAYS, (effects.necessity, effects.sufficiency), strict=True)
    ]
    layers = [float(layer) for layer in range(engine.shape.layers)]
    return Curve(
        "patching/residual",
        layers,
        lines,
        "layer",
        f"{SHARE}, residual stream replaced at the last token",
        "where the last token comes to hold the decision",
        "Refusal lost (necessity) and gained (sufficiency) when the residual stream that enters a layer is replaced. "
        "Bands: 95 % intervals.",
    )


def _agreement(effects: Effects, ranking: Ranking) -> Iterator[Scalar]:
    """Spearman's rho between the rankings of all heads."""
    patched = effects.shares[:, effects.of_kind("head")].mean(0)
    columns = {"direct": ranking.direct, "ablation": ranking.ablation, "interchange": patched}
    names = list(columns)
    for i, a in enumerate(names):
        for b in names[:i]:
            rho = spearmanr(columns[a], columns[b]).statistic
            yield Scalar(
                f"patching/rank_correlation_{b}_{a}",
                float(rho),
                n=len(patched),
                counts="heads",
                label=f"{RANKINGS[b]} and {RANKINGS[a]}",
                row="heads ranked alike",
                hint="Spearman's rho; writing: along the direction; ablation: refusing lost to the head's mean",
            )


def _stability(effects: Effects, seed: int) -> Iterator[Scalar]:
    rho, jaccard = stability(effects.shares[:, effects.of_kind("head")], TOP, seed)
    for name, label, values in (
        ("rank_stability", "rho", rho),
        (f"top_{TOP}_stability", f"Jaccard index of the first {TOP}", jaccard),
    ):
        low, high = np.quantile(values, [0.025, 0.975])
        yield Scalar(
            f"patching/{name}",
            float(values.mean()),
            (float(low), float(high)),
            len(effects.shares),
            counts="pairs",
            label=label,
            row="stability of the ranking",
            hint="by patching, when pairs are resampled; 1 is the same ranking",
        )


def _outcome(effects: Effects, critical: Bool[np.ndarray, " cell"]) -> Outcome:
    """The strongest heads and layers in words, or none."""
    order = np.argsort(-np.abs(effects.shares.mean(0)))
    leading = [cell for cell in order if critical[cell] and effects.components[cell].kind != "residual"]
    if not leading:
        none = "No head, attention or MLP output exceeds both what swapped labels reach and min_share."
        return Outcome("patching/outcome", NONE, none)
    strongest = ", ".join(f"{effects.components[cell]} ({effects.shares[:, cell].mean():+.0%})" for cell in leading[:6])
    return Outcome("patching/outcome", LOCALISED, f"{len(leading)} critical components; the strongest: {strongest}.")


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
    rows.sort(key=lambda row: -_strength(row, columns))
    shown = [
        Column("layer", "layer", "index"),
        Column("head", "head", "index"),
        *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
        Column("direct", "writes", "share", "along the direction, of its length"),
        Column("ablation", "ablation", "log-odds", "of refusing lost to the head's mean"),
    ]
    return Table("patching/heads", columns, rows, "critical heads", "", shown, only="critical")


def _layers_table(effects: Effects, critical: Bool[np.ndarray, " cell"]) -> Table:
    cells = [cell for kind in ("attention", "mlp", "residual") for cell in effects.of_kind(kind)]
    rows = [
        (effects.components[cell].layer, effects.components[cell].kind, *_figures(effects, cell), bool(critical[cell]))
        for cell in cells
    ]
    columns = ("layer", "component", *_columns(), "critical")
    rows.sort(key=lambda row: -_strength(row, columns))
    shown = [
        Column("layer", "layer", "index"),
        Column("component"),
        *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
    ]
    return Table("patching/layers", columns, rows, "critical layers", "", shown, only="critical")


def _strength(row: Sequence[Any], columns: Sequence[str]) -> float:
    """Of a component, both ways together: tables begin with the strongest."""
    return sum(abs(float(row[columns.index(way)])) for way in WAYS)


def _columns() -> list[str]:
    return [f"{way}{figure}" for way in WAYS for figure in ("", "_low", "_high", "_p")]


def _figures(effects: Effects, cell: int) -> list[float]:
    estimates = (effects.necessity, effects.sufficiency)
    return [float(figure[cell]) for one in estimates for figure in (one.share, one.low, one.high, one.p)]


def _name(head: Component) -> str:
    return f"{head.layer}.{head.head}"
