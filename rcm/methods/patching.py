"""Which layers and heads decide on refusal: exact interchange of components between harmful and harmless prompts.

On test pairs, which choose:

1. Pair harmful with harmless test prompts (`rcm.patching.pairs`). At the last token of the prompt replace every head,
   attention output, MLP output and residual stream in turn, harmless into harmful (necessity) and harmful into harmless
   (sufficiency): all of them in one pass, exactly (`rcm.execution.rows`).
2. An effect is the change of the refusal metric as a share of the pair's gap, over the pairs that have one.
3. A cell is significant if its share exceeds what swapping the labels within pairs reaches anywhere in all maps
   (max-T), and critical if the share is also certain to exceed `min_share`. So "none" is a possible answer. Tables go
   by share, and say of the strongest that are not critical what they lack.
4. Another way to rank heads stands beside: what they write along the refusal direction, where they can. Do the two
   agree, and is the ranking stable over pairs?

On validation pairs, which had no part in choosing and judge:

5. The critical heads together, beside random sets of as many heads of the same layers. Refusing is `localised` only if
   they do more than those.
6. How few heads, in the order of step 3, do half and 80 % of what all heads do, beside random orders.
7. The leading heads knocked out two at a time, which shows copies that stand in for each other.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveInt
from scipy.stats import spearmanr

from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.components import COMPONENT_KINDS, Component, Rows
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.execution.work import (
    MIDDLE,
    Entries,
    PairLengths,
    Scope,
    Work,
    asked_once,
    compared,
    decoded,
    interchanged,
    looked_at,
    recorded,
    together,
)
from rcm.judges.behaviour import RefusalBehaviour
from rcm.methods import Method, Study
from rcm.methods.obstacles import nothing_refused
from rcm.models import LoadedModel
from rcm.patching import (
    Effects,
    Interchange,
    Pairs,
    ShareEstimates,
    beside_random,
    engine_for,
    first_of,
    heads_needed,
    interchange,
    interchange_of_replies,
    random_orders,
    sizes_up_to,
    stability,
    written_shares,
)
from rcm.patching.conclusion import NO_GAP, WORDS, concluded
from rcm.patching.effects import LOST, WAYS, estimate
from rcm.patching.reported import ReportedEffects
from rcm.patching.tables import TOP, heads_table, layers_table
from rcm.patching.together import PAIRS_PER_ORDER
from rcm.prompts import Part, texts
from rcm.record.results import RANDOM_HEADS, Curve, Heatmap, Line, Null, Outcome, Result, Scalar
from rcm.stats import FEWEST, mean_interval, reached
from rcm.transplant.activations import kept_activations

PARTS = (0.5, 0.8)  # of what all heads do together
SHARE = "share of the gap"
OTHER: dict[str, Literal["harmful", "harmless"]] = {"necessity": "harmless", "sufficiency": "harmful"}
OUTLINED = (
    "Outlined: critical, that is significant over all cells (max-T) and certainly above min_share. The table says what "
    "the strongest of the others lack."
)
SAME_LAYERS = f"{RANDOM_HEADS} of the same layers"


class Patching(Method):
    """`pairs`: how many test pairs; null is all. `position_pairs`: how many of them also at every end-of-instruction
    token. `activation_pairs`: of how many harmful validation prompts to keep the activations, for other checkpoints.
    `metric`: `log_odds` of opening with a refusal token, or `replies`, how much likelier the model's own refusal is
    than its own answer over `reply_tokens` tokens. `min_gap` in nats, in which both metrics are. `min_share` of the
    gap. `random_sets`: how many of heads, and how many random orders of them. `leading_heads`: how many of each ranking
    to knock out two at a time, on `knock_out_pairs` of the validation pairs.
    """

    pairs: PositiveInt | None
    position_pairs: PositiveInt
    activation_pairs: PositiveInt
    metric: Literal["log_odds", "replies"]
    reply_tokens: PositiveInt
    min_gap: NonNegativeFloat
    min_share: NonNegativeFloat
    random_sets: PositiveInt
    leading_heads: PositiveInt
    knock_out_pairs: PositiveInt

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)
    gives: ClassVar = ReportedEffects
    judged: ClassVar = False

    def work(self, scope: Scope) -> list[Work]:
        """Of pairs that all have a gap, and heads of which some are critical."""
        test, held_out = scope.pairs(scope.prompts.test, self.pairs), scope.pairs(scope.prompts.validation)
        if not test or not held_out:
            return []
        each = scope.entries(scope.heads + len(COMPONENT_KINDS))  # and every layer by itself
        everything = np.append(each, 0.0)
        sizes = sizes_up_to(scope.layers * scope.heads)
        groups = [held_out[start : start + PAIRS_PER_ORDER] for start in range(0, len(held_out), PAIRS_PER_ORDER)]
        orders = np.zeros(len(sizes) * (1 + -(-self.random_sets // len(groups))))
        leading = 2 * self.leading_heads
        doubled = np.full(leading + leading * (leading - 1) // 2, MIDDLE)

        def exchanged(name: str, pairs: PairLengths, entries: Entries, tail: int = 1, least: float = 1.0) -> Work:
            if self.metric == "log_odds":
                return interchanged(scope, name, pairs, entries, tail=tail, least=least)
            longer = [(a + self.reply_tokens - 1, b + self.reply_tokens - 1) for a, b in pairs]
            tail, keep = tail + self.reply_tokens - 1, self.reply_tokens
            return interchanged(scope, name, longer, entries, tail=tail, keep=keep, least=least).times(2)

        def own_replies(pairs: PairLengths) -> list[Work]:
            sides = [list(side) for side in zip(*pairs, strict=True)] if self.metric == "replies" else []
            parts = [decoded(scope, "", asked_once(side), self.reply_tokens) for side in sides]
            return [*parts, *(looked_at(scope, "", side) for side in sides)]

        half = max(1, scope.batch_size // 2)
        written = [recorded(scope, [n for pair in test[i : i + half] for n in pair]) for i in range(0, len(test), half)]
        kept = scope.lengths(scope.prompts.validation.harmful[: self.activation_pairs])
        written += [recorded(scope, kept), looked_at(scope, "", kept)]
        tails = range(1, scope.positions + 1) if scope.positions > 1 else ()
        along = [exchanged("", test[: self.position_pairs], scope.entries(1), tail) for tail in tails]
        return [
            compared(scope, test),
            together("own replies", own_replies(test) + own_replies(held_out)),
            exchanged("every component", test, everything),
            together("what heads write, activations", written),
            exchanged("gaps of validation pairs", held_out, np.zeros(0)),
            exchanged("critical heads together", held_out, np.zeros(1 + self.random_sets), least=0.0),
            together("the first heads together", [exchanged("", group, orders) for group in groups]),
            exchanged("two heads at a time", held_out[: self.knock_out_pairs], doubled),
            together("residual stream at every position", along),
        ]

    def run(self, study: Study) -> Generator[Result, None, ReportedEffects]:
        """Maps, rankings and the critical components; nothing is patched in a model that does not refuse."""
        model, prompts, seed = study.model, study.prompts, study.seed
        found = study[RefusalDirection]
        stopped = nothing_refused(study, "patching/outcome", "There is no refusing to localise.")
        if stopped is not None:
            yield stopped
            return ReportedEffects()
        asked = Pairs.of(model, prompts.test, prompts.paired).first(self.pairs)
        engine = engine_for(model, asked.tokens, seed)
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
        pairs = self._measurable(model, asked, found)
        if self.metric == "replies":
            yield _count("pairs_with_short_replies", "left out: short reply", len(asked) - len(pairs))
        if not len(pairs):
            why = f"In no pair are both replies as long as reply_tokens, {self.reply_tokens}."
            yield Outcome("patching/outcome", NO_GAP, why, complete=False, words=WORDS)
            return ReportedEffects()

        components = engine.shape.components(COMPONENT_KINDS)
        patches = Rows.concat(
            [Rows.each(COMPONENT_KINDS, engine.shape), Rows.identity(engine.shape), Rows.full(engine.shape)]
        )
        exchanged = self._exchanged(engine, found, pairs, patches, "every component")
        yield _noise_floor(exchanged, engine)
        effects = Effects.of(exchanged.rows(range(len(components))), components, self.min_gap, seed, pairs.categories)
        yield from _gap(exchanged, effects, pairs)
        if not effects.with_gap.any():
            why = f"In no pair does the metric differ by {self.min_gap:g} or more."
            yield Outcome("patching/outcome", NO_GAP, why, complete=False, words=WORDS)
            return ReportedEffects()
        gapped = pairs.some(np.flatnonzero(effects.with_gap).tolist())
        yield from _whole_last_token(exchanged.where(torch.from_numpy(effects.with_gap)), gapped)
        yield from _maps(effects, engine, self.min_share, pairs)
        yield _residual_curve(effects, engine)
        # On prompts that do not choose the critical heads: these are put to the test elsewhere by what is kept here.
        kept_prompts = texts(prompts.validation.harmful[: self.activation_pairs])
        yield kept_activations(model, kept_prompts, found.refusal_tokens)

        written = written_shares(model, gapped.tokens, found.vector, found.layer, found.position)
        direct = estimate(written.double().flatten(1).numpy(), np.full(written[0].numel(), np.nan), gapped.categories)
        yield from map(found.marked, _agreement(effects, direct))
        yield from _stability(effects, seed)
        critical = effects.critical(self.min_share)
        yield heads_table(effects, direct, self.min_share)
        yield layers_table(effects, self.min_share)
        chosen = [cell for cell in effects.of_kind("head") if critical[cell]]
        heads = [components[cell] for cell in chosen if effects.share[cell] > 0]
        yield from _critical_heads(len(heads), len(chosen) - len(heads), len(effects.of_kind("head")))

        held_out = self._with_gap(engine, found, prompts.validation, prompts.paired)
        judged = None
        if heads and len(held_out):
            judged, *ways = self._together(engine, held_out, heads, found, seed)
            yield judged
            yield from ways
        yield concluded(effects, self.min_share, judged, pairs.paired)
        if len(held_out):
            yield from self._concentration(engine, held_out, effects, found, seed)
            leading = _leading(effects, direct, self.leading_heads)
            yield self._knock_out(engine, held_out.first(self.knock_out_pairs), leading, found)
        if len(found.positions) > 1:  # the last one alone is in the curve
            yield from self._positions_maps(engine, pairs.first(self.position_pairs), found, seed)
        gap = exchanged.gap[torch.from_numpy(effects.with_gap)].abs().mean().item()
        return ReportedEffects.of(effects, self.min_share, gap)

    def _measurable(self, model: LoadedModel, pairs: Pairs, found: RefusalDirection) -> Pairs:
        """Those that the metric of the settings has a value for."""
        if self.metric == "log_odds":
            return pairs
        return pairs.with_replies(model, found.refusal_tokens, self.reply_tokens)

    def _with_gap(self, engine: Engine, found: RefusalDirection, part: Part, paired: bool) -> Pairs:
        """Pairs of a part that have a gap, whichever prompt is refused more."""
        pairs = self._measurable(engine.model, Pairs.of(engine.model, part, paired), found)
        if not len(pairs):
            return pairs
        study = self._exchanged(engine, found, pairs, Rows.of([], engine.shape), "gaps")
        return pairs.some(torch.nonzero(study.gap.abs() >= self.min_gap)[:, 0].tolist())

    def _exchanged(
        self,
        engine: Engine,
        found: RefusalDirection,
        pairs: Pairs,
        patches: Rows,
        label: str,
        position: int = -1,
    ) -> Interchange:
        """Patch pairs both ways at one position, by the metric that the settings name."""
        label = f"patching: {label}"
        if pairs.replies is None:
            return interchange(engine, pairs.tokens, patches, LogOdds(found.refusal_tokens), -position, label)
        return interchange_of_replies(engine, pairs.tokens, patches, *pairs.replies, position, label)

    def _together(
        self, engine: Engine, pairs: Pairs, heads: Sequence[Component], found: RefusalDirection, seed: int
    ) -> Iterator[Scalar]:
        """The critical heads as one set beside random sets: both ways together, which decides, and each way."""
        exchange = partial(self._exchanged, engine, found, label="critical heads")
        ours, others = beside_random(
            exchange,
            pairs,
            Rows.of([heads], engine.shape),
            lambda n, seed: Rows.random_heads(n, heads, engine.shape, seed),
            self.random_sets,
            len(pairs),
            seed,
        )
        both = np.concatenate([ours.mean(0, keepdims=True), ours])[..., 0]
        random = np.concatenate([others.mean(0, keepdims=True), others])[..., 0]
        names = ("share", *WAYS)
        for name, mine, theirs in zip(names, both, random, strict=True):
            does = (
                "mean of the two ways" if name == "share" else f"refusal {LOST[name]} with {pairs.other(OTHER[name])}"
            )
            yield Scalar(
                f"patching/critical_heads_{name}",
                float(mine.mean()),
                mean_interval(mine, pairs.categories),
                len(mine),
                Null.of_draws(theirs, SAME_LAYERS, figure=float(mine.mean())),
                counts="pairs",
                unit="share",
                label="both ways" if name == "share" else name,
                row="critical heads together",
                hint=f"{does}, share of the gap; on validation pairs, which had no part in choosing the heads",
                good="high",
                absent="No head is critical for refusing, or no validation pair has a gap.",
            )

    def _concentration(
        self, engine: Engine, pairs: Pairs, effects: Effects, found: RefusalDirection, seed: int
    ) -> Iterator[Result]:
        """What the first heads do together, in an order that test pairs decided on, beside random orders."""
        cells = effects.of_kind("head")
        order = [effects.components[cells[place]] for place in np.argsort(-effects.share[cells], kind="stable")]
        sizes = sizes_up_to(len(order))

        def random(n: int, seed: int) -> Rows:
            return Rows.concat([first_of(one, sizes, engine.shape) for one in random_orders(n, order, seed)])

        exchange = partial(self._exchanged, engine, found, label="the first heads together")
        ours, others = beside_random(
            exchange, pairs, first_of(order, sizes, engine.shape), random, self.random_sets, PAIRS_PER_ORDER, seed
        )
        shares, draws = estimate(ours.mean(0), np.full(len(sizes), np.nan), pairs.categories), others.mean(0)
        yield Curve(
            "patching/concentration",
            [float(size) for size in sizes],
            [
                Line("strongest heads first", *(column.tolist() for column in (shares.share, shares.low, shares.high))),
                Line(
                    "random heads of the same layers",
                    np.median(draws, axis=0).tolist(),
                    *([_reached(draws[:, size], high) for size in range(len(sizes))] for high in (False, True)),
                ),
            ],
            "heads put in together",
            SHARE,
            "how few heads do most",
            "Mean of necessity and sufficiency on validation pairs; the order is that of the test pairs. Bands: 95 % "
            "interval; what 95 % of random sets stay above and below.",
        )
        if not shares.low[-1] > self.min_share:
            return
        for part in PARTS:
            needed = int(heads_needed(shares.share[None], sizes, part)[0])
            yield Scalar(
                f"patching/heads_for_{part * 100:.0f}",
                needed,
                n=len(order),
                null=Null.of_draws(heads_needed(draws, sizes, part), SAME_LAYERS, "low", float(needed)),
                unit="count",
                counts="heads",
                label=f"{part:.0%} of it",
                row="heads that do what all heads do",
                hint="strongest first, on validation pairs; few: concentrated",
                good="low",
                absent="All heads together do not certainly do more than min_share.",
            )

    def _knock_out(self, engine: Engine, pairs: Pairs, heads: Sequence[Component], found: RefusalDirection) -> Heatmap:
        """Necessity of two heads together less that of each alone: above zero, one stands in for the other."""
        both = [(a, b) for i, a in enumerate(heads) for b in heads[:i]]
        patches = Rows.of([*([head] for head in heads), *both], engine.shape)
        shares = self._exchanged(engine, found, pairs, patches, "two heads at a time").shares[0].mean(0).numpy()
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
            hint="Diagonal: necessity of one head, on validation pairs. Elsewhere: of two together, less that of each "
            "alone. Red: one stands in for the other; blue: one works through the other.",
        )

    def _positions_maps(self, engine: Engine, pairs: Pairs, found: RefusalDirection, seed: int) -> Iterator[Heatmap]:
        """The residual stream at every end-of-instruction token, which all prompts have in common."""
        model, positions = engine.model, found.positions
        patches = Rows.each(["residual"], engine.shape)
        studies = [self._exchanged(engine, found, pairs, patches, f"position {p}", p) for p in positions]
        components = engine.shape.components(["residual"]) * len(positions)
        effects = Effects.of(Interchange.beside(studies), components, self.min_gap, seed, pairs.categories)
        labels = [f"{position} {model.template.end_of_instruction_text[position]}" for position in positions]
        layers = [str(layer) for layer in range(engine.shape.layers)]
        for way in WAYS:
            estimates: ShareEstimates = getattr(effects, way)
            values, critical = (
                figure.reshape(len(positions), -1).T for figure in (estimates.share, estimates.critical(self.min_share))
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
                label=f"positions: refusal {LOST[way]} when the residual stream is taken from the "
                f"{pairs.other(OTHER[way])}",
                hint=f"{way.capitalize()} at each token that all prompts end in. {OUTLINED}",
            )


def _marked(critical: Bool[np.ndarray, "row column"]) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in np.argwhere(critical)]


def _reached(draws: Float[np.ndarray, " draw"], high: bool) -> float:
    found = reached(draws, high)
    return math.nan if found is None else found.value


def _count(name: str, label: str, value: int) -> Scalar:
    hint = (
        "used: with a gap; reversed, of those: the harmless prompt is refused more; left out: with a gap below min_gap"
    )
    return Scalar(f"patching/{name}", value, unit="count", label=label, row="pairs", hint=hint)


def _noise_floor(study: Interchange, engine: Engine) -> Scalar:
    """What replacing a layer by itself changes, which must be nothing."""
    layers = engine.shape.layers
    own = torch.stack([study.necessity, study.sufficiency])[..., -1 - layers : -1]
    return Scalar(
        "patching/noise_floor",
        own.abs().max().item(),
        n=own.numel(),
        counts="replacements",
        unit="log-odds",
        label="noise floor",
        hint="the most that a layer changes, replaced by itself",
        good="low",
    )


def _whole_last_token(study: Interchange, pairs: Pairs) -> Iterator[Scalar]:
    """What replacing everything does, in pairs with a gap."""
    for way, shares in zip(WAYS, study.shares[..., -1].numpy(), strict=True):
        yield Scalar(
            f"patching/last_token_{way}",
            float(shares.mean()),
            mean_interval(shares, pairs.categories),
            len(shares),
            counts="pairs",
            unit="share",
            label=way,
            row="whole last token",
            hint="a control: everything there replaced, share of the gap; what a component can have at most",
        )


def _gap(study: Interchange, effects: Effects, pairs: Pairs) -> Iterator[Scalar]:
    gap = study.gap.numpy()
    matching = "" if pairs.paired else "; unmatched: no twins, but prompts of like length"
    yield Scalar(
        "patching/gap",
        float(gap.mean()),
        mean_interval(gap, pairs.categories),
        len(gap),
        counts="pairs",
        unit="nats",
        label="gap",
        hint=f"by which a harmful prompt is refused rather than the {pairs.other('harmless')}{matching}",
    )
    yield _count("pairs", "used", int(effects.with_gap.sum()))
    yield _count(
        "pairs_reversed",
        "reversed",
        int((effects.with_gap & (gap < 0)).sum()),
    )
    yield _count("pairs_without_gap", "left out", int((~effects.with_gap).sum()))


def _maps(effects: Effects, engine: Engine, min_share: float, pairs: Pairs) -> Iterator[Heatmap]:
    """Shares of the gap; the marked cells are critical. The residual stream has a curve of its own."""
    layers, heads = engine.shape
    outputs = list(np.stack([effects.of_kind("attention"), effects.of_kind("mlp")], 1).flat)
    grids = {
        "heads": (effects.of_kind("head"), [str(head) for head in range(heads)], "head", "one"),
        "layers": (outputs, ["attention", "MLP"], "component", "a part"),
    }
    for name, (cells, columns, label, one) in grids.items():
        for way in WAYS:
            estimates: ShareEstimates = getattr(effects, way)
            values, critical = (
                figure[cells].reshape(layers, -1) for figure in (estimates.share, estimates.critical(min_share))
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
                label=f"{name}: refusal {LOST[way]} when {one} is taken from the {pairs.other(OTHER[way])}",
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


def _agreement(effects: Effects, direct: ShareEstimates) -> Iterator[Scalar]:
    """Spearman's rho between the two rankings of the heads that can write the direction."""
    patched = effects.share[effects.of_kind("head")]
    writing = ~np.isnan(direct.share)
    if writing.sum() < FEWEST:
        return
    yield Scalar(
        "patching/rank_correlation",
        float(spearmanr(direct.share[writing], patched[writing]).statistic),
        n=int(writing.sum()),
        counts="heads",
        label="heads ranked alike",
        hint="Spearman's rho of patching and of writing along the direction, over heads before the layer that reads it",
        absent=f"Fewer than {FEWEST} heads come before the layer where the direction is read.",
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


def _critical_heads(towards: int, against: int, heads: int) -> Iterator[Scalar]:
    for name, label, value in (
        ("critical_heads", "for refusing", towards),
        ("critical_heads_against", "against it", against),
    ):
        yield Scalar(
            f"patching/{name}",
            value,
            n=heads,
            counts="heads",
            unit="count",
            label=label,
            row="critical heads",
            hint="significant over all components (max-T), and share certainly above min_share; on test pairs",
        )


def _leading(effects: Effects, direct: ShareEstimates, n: int) -> list[Component]:
    """The first heads of each ranking, by layer."""
    cells = effects.of_kind("head")
    able = [int(place) for place in np.argsort(-direct.share) if not math.isnan(direct.share[place])]  # NaN comes last
    first = {int(place) for place in np.argsort(-effects.share[cells])[:n]} | set(able[:n])
    return [effects.components[cells[place]] for place in sorted(first)]


def _name(head: Component) -> str:
    return f"{head.layer}.{head.number}"
