"""At which tokens refusing is decided, and by what: exact interchange at every token of twins of equal length.

1. Take test pairs whose two prompts have equal lengths, so that their tokens are aligned, and which have a gap.
2. At each token from the first that differs on, one at a time, replace the residual stream at every layer and what
   attention and MLP of every layer write, harmless into harmful (necessity) and harmful into harmless (sufficiency);
   then every head of the layers whose attention does most, chosen without labels (`rcm.circuits.positions`).
3. Tokens of different pairs meet in their role: words that differ, words after them that do not, each token of the
   template behind the instruction. The figure of a cell, a component and a role, is the sum over the role's tokens, as
   a share of the pair's gap.
4. A cell is critical by the rule of `patching`: max-T over all cells and both ways, and certainly above `min_share`.
   Do any outputs before the last token decide, or those at the last token alone?
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt

from rcm.circuits.positions import (
    Roles,
    TokenEffects,
    acting_layers,
    engine_at_tokens,
    exchange_at_tokens,
    reach,
    roles_of,
)
from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.components import OWN, SOURCE, Component, DenseKind, Rows
from rcm.execution.engine import Engine
from rcm.execution.metric import LogOdds
from rcm.execution.work import MIDDLE, Entries, Scope, Work, compared, interchanged, together
from rcm.judges.behaviour import RefusalBehaviour
from rcm.methods import Method, Study
from rcm.methods.obstacles import nothing_refused
from rcm.models import LoadedModel
from rcm.models.template import Template
from rcm.patching import Effects, Pairs, ShareEstimates, interchange
from rcm.patching.conclusion import NO_GAP, NONE
from rcm.patching.effects import LOST, WAYS
from rcm.prompts import Part
from rcm.record.results import Column, Heatmap, Outcome, Result, Scalar, Table, Word, Words
from rcm.stats import FEWEST, mean_interval

EARLIER, LAST, NOT_ALIGNED = "earlier", "last", "not_aligned"
WORDS: Words = {
    EARLIER: Word(
        "outputs of attention, MLPs or heads are critical for refusing before the last token, too",
        "What is measured at the last token alone misses these; see at which words they lie.",
    ),
    LAST: Word(
        "outputs are critical for refusing at the last token alone",
        "What is measured at the last token misses none of them.",
    ),
    NONE: Word("no output is critical, at any token", "Use more pairs; see the residual stream."),
    NO_GAP: Word(
        "in no pair do the harmful and the harmless prompt differ enough in refusing for anything to be restored",
        "Use pairs that the model treats differently.",
    ),
    NOT_ALIGNED: Word(
        "there are too few twins of one length, and tokens of other pairs do not stand for each other",
        "Use a dataset of twins that differ in single words, such as dataset=pairs.",
    ),
}
KINDS: tuple[DenseKind, ...] = ("attention", "mlp", "residual")
TITLES = {"residual": "residual stream", "attention": "attention", "mlp": "MLP"}
DIFFERING, SHARED = "differing words", "shared words"
SHARE = "share of the gap"
SUM = (
    "Tokens are exchanged one at a time, and the shares of a role's tokens are added up, which is not what exchanging "
    "them together does: what several tokens hold alike necessity misses and sufficiency counts once for each; where "
    "it takes several together it is the other way about."
)
ROLES = f"{DIFFERING}: those that differ between the twins; {SHARED}: those after the first of these that do not."
SHOWN = 20  # cells of the table that pages show


class Positions(Method):
    """`pairs`: how many test pairs of equal length with a gap, in their order. `head_layers`: of how many layers the
    heads are exchanged, too. `min_gap` in nats; `min_share` of the gap, which a critical cell certainly exceeds."""

    pairs: Annotated[int, Field(ge=FEWEST)]
    head_layers: PositiveInt
    min_gap: NonNegativeFloat
    min_share: NonNegativeFloat

    needs: ClassVar = (RefusalDirection,)
    uses: ClassVar = (RefusalBehaviour,)
    judged: ClassVar = False

    def work(self, scope: Scope) -> list[Work]:
        """At every token from the first that differs on, of the first pairs of equal length, as if all had a gap."""
        test = scope.prompts.test if scope.prompts.paired else Part((), ())
        every = [(scope.tokens(a), scope.tokens(b)) for a, b in zip(*test, strict=False)]
        aligned = [(a, b) for a, b in every if len(a) == len(b) and a != b]
        if not aligned:
            return []
        lengths, reaches = [(len(a), len(b)) for a, b in aligned], list(map(reach, aligned))
        outputs = np.append(scope.entries(len(KINDS)), 0.0)
        heads = np.full(self.head_layers * scope.heads, MIDDLE)

        def at_tokens(name: str, entries: Entries) -> Work:
            pairs = list(zip(lengths, reaches, strict=True))[: self.pairs]
            tails = range(1, max(reaches[: self.pairs]) + 1)
            some = ([length for length, reached in pairs if reached >= tail] for tail in tails)
            parts = [
                interchanged(scope, "", chosen, entries, tail=tail) for tail, chosen in zip(tails, some, strict=True)
            ]
            return together(name, parts)

        gaps = interchanged(scope, "gaps", lengths, np.zeros(0))
        return [compared(scope, lengths), gaps, at_tokens("layers", outputs), at_tokens("heads", heads)]

    def run(self, study: Study) -> Generator[Result, None, None]:
        """Maps over layers and roles, the strongest cells, and one pair in full."""
        model, prompts, seed = study.model, study.prompts, study.seed
        found = study[RefusalDirection]
        stopped = nothing_refused(study, "positions/outcome", "There is no refusing to locate.")
        if stopped is not None:
            yield stopped
            return
        asked = Pairs.of(model, prompts.test, prompts.paired)
        aligned = asked.some([i for i, (a, b) in enumerate(asked.tokens) if len(a) == len(b) and a != b])
        yield _count("pairs_unequal", "left out: unequal lengths", len(asked) - len(aligned))
        if not asked.paired or not len(aligned):
            yield Outcome("positions/outcome", NOT_ALIGNED, _not_aligned(asked.paired), complete=False, words=WORDS)
            return
        engine = engine_at_tokens(model, aligned.tokens, seed)
        yield from _engine(engine)
        metric = LogOdds(found.refusal_tokens)
        none = Rows.of([], engine.shape)
        gaps = interchange(engine, aligned.tokens, none, metric, label="positions: gaps").gap.abs().numpy()
        with_gap = np.flatnonzero((gaps >= self.min_gap) & (gaps > 0))
        yield _count("pairs_without_gap", "left out: without a gap", len(aligned) - len(with_gap))
        pairs = aligned.some(with_gap[: self.pairs].tolist())
        yield _count("pairs", "used", len(pairs))
        if not len(pairs):
            why = f"In no pair of equal length does the metric differ by {self.min_gap:g} or more."
            yield Outcome("positions/outcome", NO_GAP, why, complete=False, words=WORDS)
            return

        roles = roles_of(pairs.tokens, len(model.template.end_of_instruction))
        names = _role_names(model.template)
        yield from _tokens_per_role(roles, pairs)
        outputs = engine.shape.components(KINDS)
        patches = Rows.concat([Rows.each(KINDS, engine.shape), Rows.of([engine.shape.components()], engine.shape, OWN)])
        whole = exchange_at_tokens(engine, pairs.tokens, patches, metric, "positions: layers")
        yield _noise_floor(whole)
        yield _gap(whole, pairs)
        at_tokens = whole.rows(range(len(outputs)))
        heads = _heads_of(self._head_layers(at_tokens, outputs, roles), engine)
        of_heads = Rows.of([[head] for head in heads], engine.shape, SOURCE)
        at_tokens = at_tokens.beside(
            exchange_at_tokens(engine, pairs.tokens, of_heads, metric, "positions: heads of the strongest layers")
        )

        components = [*outputs, *heads]
        exchanged = at_tokens.by_role(roles)
        effects = Effects.of(exchanged, components * len(names), 0.0, seed, pairs.categories)
        yield from _maps(effects, names, engine, self.min_share, pairs)
        yield _table(effects, names, self.min_share, heads)
        yield _in_full(at_tokens, outputs, pairs, model)
        yield _concluded(effects, names, self.min_share)

    def _head_layers(self, at_tokens: TokenEffects, outputs: Sequence[Component], roles: Roles) -> list[int]:
        """Of which layers to exchange the heads."""
        attention = [cell for cell, one in enumerate(outputs) if one.kind == "attention"]
        shares = at_tokens.rows(attention).by_role(roles).shares
        by_layer = shares.unflatten(-1, (roles.shape[2], -1)).numpy()
        return acting_layers(by_layer, self.head_layers).tolist()


def _not_aligned(paired: bool) -> str:
    if not paired:
        return "The prompts of this data set are no twins, so no two of them are aligned token by token."
    return "No test pair has two prompts of equal length, so none is aligned token by token."


def _role_names(template: Template) -> list[str]:
    """In the order of `roles_of`."""
    ending = template.end_of_instruction_text
    return [DIFFERING, SHARED, *(f"{place - len(ending)} {text}" for place, text in enumerate(ending))]


def _heads_of(layers: Sequence[int], engine: Engine) -> list[Component]:
    return [Component("head", layer, number) for layer in layers for number in range(engine.shape.heads)]


def _engine(engine: Engine) -> Iterator[Result]:
    reason = f"{engine.reason[0].upper()}{engine.reason[1:]}."
    hint = "rows: all in one pass; loop: one pass for each"
    yield Outcome("positions/engine", engine.path, reason, label="engine", hint=hint)
    if engine.error is not None:
        yield Scalar(
            "positions/engine_error",
            engine.error,
            label="error of the engine",
            hint="largest difference of a logit from the slow loop's",
            good="low",
        )


def _count(name: str, label: str, value: int) -> Scalar:
    hint = "test pairs; used: the first of equal length whose gap is min_gap or more"
    return Scalar(f"positions/{name}", value, unit="count", label=label, row="pairs", hint=hint, counts="pairs")


def _tokens_per_role(roles: Roles, pairs: Pairs) -> Iterator[Scalar]:
    for name, label, role in (("tokens_differing", DIFFERING, 0), ("tokens_shared", SHARED, 1)):
        counts = roles[:, :, role].sum(1).astype(float)
        yield Scalar(
            f"positions/{name}",
            float(counts.mean()),
            mean_interval(counts, pairs.categories),
            len(counts),
            counts="pairs",
            unit="tokens",
            label=label,
            row="tokens of a role",
            hint="in a pair, from the first that differs on, before the template's own",
        )


def _noise_floor(whole: TokenEffects) -> Scalar:
    """The last row replaces everything at a token by itself, which must change nothing."""
    own = np.concatenate([way[..., -1].numpy().ravel() for way in (whole.necessity, whole.sufficiency)])
    own = own[~np.isnan(own)]
    return Scalar(
        "positions/noise_floor",
        float(np.abs(own).max()),
        n=len(own),
        counts="replacements",
        unit="log-odds",
        label="noise floor",
        hint="the most that a token changes, everything there replaced by itself",
        good="low",
    )


def _gap(whole: TokenEffects, pairs: Pairs) -> Scalar:
    gap = (whole.harmful - whole.harmless).numpy()
    return Scalar(
        "positions/gap",
        float(gap.mean()),
        mean_interval(gap, pairs.categories),
        len(gap),
        counts="pairs",
        unit="nats",
        label="gap",
        hint=f"by which a harmful prompt is refused rather than the {pairs.other('harmless')}",
    )


def _by_role(cells: Sequence[int], names: Sequence[str], column: np.ndarray) -> np.ndarray:
    """Cells of one kind of component, which come role by role: layers down, roles across."""
    return column[list(cells)].reshape(len(names), -1).T


def _maps(effects: Effects, names: Sequence[str], engine: Engine, min_share: float, pairs: Pairs) -> Iterator[Heatmap]:
    layers = [str(layer) for layer in range(engine.shape.layers)]
    for kind in ("residual", "attention", "mlp"):
        cells = effects.of_kind(kind)
        for way in WAYS:
            estimates: ShareEstimates = getattr(effects, way)
            critical = _by_role(cells, names, estimates.critical(min_share))
            other = pairs.other("harmless" if way == "necessity" else "harmful")
            yield Heatmap(
                f"positions/{kind}_{way}",
                _by_role(cells, names, estimates.share),
                layers,
                names,
                "layer",
                "tokens",
                [(int(row), int(column)) for row, column in np.argwhere(critical)],
                value_label=f"{SHARE}, summed over tokens",
                label=f"{TITLES[kind]} by token: refusal {LOST[way]} when it is taken from the {other}",
                hint=f"{way.capitalize()}. {ROLES} {SUM} Outlined: significant over all cells (max-T), and certainly "
                "above min_share.",
            )


def _outputs(effects: Effects) -> list[int]:
    """All cells but those of the residual stream, which adds up what the others do."""
    return [cell for cell, one in enumerate(effects.components) if one.kind != "residual"]


def _role_of(cell: int, effects: Effects, names: Sequence[str]) -> str:
    return names[cell // (len(effects.components) // len(names))]


def _table(effects: Effects, names: Sequence[str], min_share: float, heads: Sequence[Component]) -> Table:
    """One row for each cell, the strongest first; those of the residual stream, which have maps, come last."""
    outputs, stream = _outputs(effects), effects.of_kind("residual")
    order = [*effects.strongest_first(outputs), *effects.strongest_first(stream)]
    critical = effects.critical(min_share)
    rows = []
    for place, cell in enumerate(order):
        one = effects.components[cell]
        figures = [
            float(figure[cell])
            for way in (effects.necessity, effects.sufficiency)
            for figure in (way.share, way.low, way.high, way.p)
        ]
        verdict = effects.lacking(cell, min_share) or "critical"
        number = one.number if one.kind == "head" else None
        last = (verdict, place < min(SHOWN, len(outputs)), bool(critical[cell]))
        rows.append(
            (one.kind, one.layer, number, _role_of(cell, effects, names), float(effects.share[cell]), *figures, *last)
        )
    columns = [f"{way}{figure}" for way in WAYS for figure in ("", "_low", "_high", "_p")]
    layers = ", ".join(map(str, sorted({head.layer for head in heads})))
    return Table(
        "positions/cells",
        ("component", "layer", "head", "tokens", "share", *columns, "verdict", "listed", "critical"),
        rows,
        "strongest outputs by token",
        f"By share, for refusing or against it, the residual stream aside. Heads of layers {layers}, whose attention "
        f"does most. {SUM}",
        [
            Column("component"),
            Column("layer", "layer", "index"),
            Column("head", "head", "index"),
            Column("tokens", "tokens", "", ROLES),
            Column("share", "share", "share", "of the gap, mean of the two ways"),
            *(Column(way, way, "share", f"refusal {LOST[way]}, share of the gap") for way in WAYS),
            Column("verdict", "critical?", "", "or what it lacks"),
        ],
        only="listed",
    )


def _in_full(at_tokens: TokenEffects, outputs: Sequence[Component], pairs: Pairs, model: LoadedModel) -> Heatmap:
    """The residual stream of the first pair at every token, which nothing chose."""
    stream = [cell for cell, one in enumerate(outputs) if one.kind == "residual"]
    length = reach(pairs.tokens[0])
    shares = at_tokens.rows(stream).shares.mean(0)[0, :length].flip(0).T.numpy()
    harmful, harmless = (tokens[-length:] for tokens in pairs.tokens[0])
    text, other = ([_word(token, model.template) for token in tokens] for tokens in (harmful, harmless))
    columns = [a if a == b else f"{a}/{b}" for a, b in zip(text, other, strict=True)]
    return Heatmap(
        "positions/example",
        shares,
        [str(layer) for layer in range(len(stream))],
        columns,
        "layer",
        "token (harmful/harmless)",
        value_label=SHARE,
        label="one pair in full: the residual stream at every token",
        hint="The first pair that was used, from its first differing token on; mean of necessity and sufficiency, of "
        "each token by itself.",
    )


def _word(token: int, template: Template) -> str:
    """A token as readable text, without the space that many begin with."""
    text = repr(template.tokenizer.decode([token]))[1:-1]
    return text.strip() or text


def _concluded(effects: Effects, names: Sequence[str], min_share: float) -> Outcome:
    """Where outputs are critical for refusing; where the residual stream is."""
    critical = effects.critical(min_share) & (effects.share > 0)
    leading = [cell for cell in effects.strongest_first(_outputs(effects)) if critical[cell]]
    before = [cell for cell in leading if _role_of(cell, effects, names) != names[-1]]
    if not leading:
        word = NONE
        why = "No attention, MLP or head output for refusing exceeds both what swapped labels reach and min_share."
    elif before:
        word = EARLIER
        why = (
            f"Outputs that are critical for refusing: {len(before)} before the last token, "
            f"{len(leading) - len(before)} at it. The strongest before it: {_named(before, effects, names)}."
        )
    else:
        word, why = LAST, f"Outputs that are critical for refusing: {len(leading)} at the last token, none before it."
    stream = _by_role(effects.of_kind("residual"), names, critical)
    held = [
        f"{name}: {_ranges(np.flatnonzero(stream[:, role]).tolist())}"
        for role, name in enumerate(names)
        if stream[:, role].any()
    ]
    if held:
        why += f" The residual stream is critical in layers {'; '.join(held)}."
    return Outcome("positions/outcome", word, why, words=WORDS)


def _named(cells: Sequence[int], effects: Effects, names: Sequence[str]) -> str:
    return ", ".join(
        f"{effects.components[cell]} at {_role_of(cell, effects, names)} ({effects.share[cell]:+.0%})"
        for cell in cells[:4]
    )


def _ranges(layers: Sequence[int]) -> str:
    """0 to 4, 7"""
    runs = np.split(np.asarray(layers), np.flatnonzero(np.diff(layers) > 1) + 1)
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
