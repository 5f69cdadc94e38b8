"""What another checkpoint found, in this model: does its direction steer here, do its components restore refusal?

1. Take the mean difference of each source run, at its own place if it chose one there; else at the place that this
   model's own run chose, brought to the length that this model's has there; else where the source separates best. A
   nearest miss (`rcm.directions.selection`) counts as chosen, and is marked.
2. Tell its cosine to this model's own mean difference there; the null is what shuffled labels give.
3. Add it to harmless test prompts that this model answers, ablate it in harmful ones that it refuses; beside random
   directions and directions of shuffled labels, of its length.
4. Where this model's own run chose a direction: tell what of its effect is the work of its part along the source's
   (`rcm.transplant.decomposition`).
5. Patch what the source's components put out on harmful prompts into this model on the same prompts, one at a time, and
   the source's own critical heads together, beside random sets of heads; on validation prompts, since the source's run
   chose its heads on test prompts.
6. Put the circuit of each source that has one on trial here, and compare it with this model's own
   (`rcm.transplant.circuits`).

A source may also be a direction that somebody else found: is it the one that this model uses? It has the place that it
was found at; a unit vector takes the length that this model's own mean difference has there.

A row for each source; run for several models, the rows make a matrix of sources and targets. No two models are ever in
memory: sources are finished runs.

Between models of unlike shape, step 3 goes through a linear map that was fitted on harmless prompts
(`rcm.transplant.mapping`), and steps 2 and 4 to 6 fall away.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field, NegativeInt, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from rcm.circuits.hypotheses import FEWEST_CIRCUITS
from rcm.circuits.trial import HALVES
from rcm.directions.fit import Activations, Vector, mean_difference, shuffled_controls, shuffled_differences, unit
from rcm.directions.refusal_direction import CAVEAT, RefusalDirection
from rcm.directions.streams import Streams
from rcm.errors import InputError
from rcm.execution.components import Component, Rows, Shape
from rcm.execution.recording import shape_of
from rcm.execution.work import (
    MIDDLE,
    Scope,
    Work,
    ablated,
    added,
    asked_once,
    crossed,
    decoded,
    interchanged,
    looked_at,
    together,
)
from rcm.judges import Judge
from rcm.judges.behaviour import TOO_FEW, UNCLEAR
from rcm.judges.rates import rate
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.patching.effects import Cells
from rcm.prompts import Part, texts
from rcm.record.identity import is_published, prompt_digest
from rcm.record.results import (
    RANDOM_HEADS,
    SHUFFLED_LABELS,
    Column,
    Heatmap,
    Null,
    Outcome,
    Result,
    Scalar,
    Table,
    Transcripts,
    Word,
    Words,
)
from rcm.stats import ENOUGH, FEWEST, mean_interval
from rcm.steering.conditions import Kind
from rcm.steering.gate import Gate
from rcm.steering.headline import Headline, headline
from rcm.steering.measurements import unsteered
from rcm.steering.replies import SteeredReply, categories, flipped, invalid, steered_transcript
from rcm.steering.runner import SteeringRunner
from rcm.transplant import decomposition
from rcm.transplant.activations import NAME, WRITTEN_KINDS, Donor, Patched, everything_written
from rcm.transplant.circuits import transplanted_circuits
from rcm.transplant.mapping import like_depth, mapped
from rcm.transplant.published import published
from rcm.transplant.source import HARMLESS, Source, fitting, rows_of, run_sources

log = logging.getLogger(__name__)
STEERS, FORCES, SUPPRESSES, NOTHING = "steers", "forces", "suppresses", "nothing"
WORDS: Words = {
    STEERS: Word(
        "the other model's direction forces and suppresses here, each more than any control does",
        "See how alike the two directions are, and how this model's own one decomposes along it.",
    ),
    FORCES: Word(
        "it forces refusals here beyond every control, and does not suppress them so",
        "Forcing alone may come of any harm-like direction: do not call the mechanism shared.",
    ),
    SUPPRESSES: Word(
        "it suppresses refusals here beyond every control, and does not force them so",
        "See what ablating it costs harmless prompts.",
    ),
    NOTHING: Word(
        "it does no more here than control directions do",
        "Try the place where this model decides (place=target), and see the cosine of the two directions.",
    ),
    TOO_FEW: Word("there are too few prompts to force or to suppress", f"Use more test prompts: {FEWEST} must count."),
    UNCLEAR: Word("there are too few controls to tell", f"Use method.transplant.null_directions={ENOUGH}."),
}
OWN_PLACE, THIS_PLACE, SEPARABLE, MAPPED = "the source's choice", "this model's choice", "most separable", "mapped"
MISS = f" ({CAVEAT})"
OF_THIS_LENGTH = ", as long as this model's mean difference there"
VERBS: Mapping[Kind, str] = {"harmless": "force", "harmful": "suppress"}
NO_INTERVAL = (float("nan"), float("nan"))
MATRIX_HINT = (
    "The mean difference of one model, brought into another. Null: the most that a random direction or one of shuffled "
    "labels does on the same prompts (from 100 on, the 95th percentile); p: how many of them do as well."
)
DECOMPOSITION_HINT = (
    "What this model's own direction does to the log-odds of refusing, in Shapley shares of its parts along and across "
    "the other's, net of shuffled-label controls; beside what the other's direction does alone, and the least and most "
    "that refits of the own one do, and random vectors with the other's cosine to it."
)
DECOMPOSITION_SHOWN = (
    Column("source", "along the direction of"),
    Column("operation", "operation"),
    Column("own", "both parts", "log-odds", "added: harmless prompts rise; ablated, as a plane: harmful ones fall"),
    Column("along", "share along", "share", "of the part along the other's direction"),
    Column("across", "share across", "share", "of the rest"),
    Column("other", "the other's alone", "log-odds"),
    Column("refits_least", "least of refits", "log-odds"),
    Column("refits_most", "most of refits", "log-odds"),
    Column("alike_least", "least of vectors as close", "log-odds"),
    Column("alike_most", "most of vectors as close", "log-odds"),
    Column("cosine", "cosine"),
    Column("refit_cosine", "least cosine of refits"),
    Column("n", "prompts", "count"),
)
SHARE = "share of the other model's refusing"
FEWEST_TO_MAP = 16  # harmless prompts that both models were asked, below which a map says nothing
COLUMNS = (
    *("source", "run", "position", "layer", "place", "strength"),
    *(f"{rate}{figure}" for rate in ("force", "suppress") for figure in ("", "_low", "_high", "_n", "_null", "_p")),
    *("cosine", "cosine_null", "outcome"),
)


@dataclass(frozen=True)
class Transplanted:
    """A source's direction as this model takes it. `place`: whose choice its place is."""

    source: Source
    found: RefusalDirection
    place: str
    cosine: float
    cosine_null: float


class Transplant(Method):
    """`source`: the directory of a finished run, or a folder of runs, of which each model's latest is taken; or a
    direction that somebody else found (`rcm.transplant.published`), with its `position` and `layer` if it does not say.
    `across_shapes`: whether to map directions between models of unlike shape. `strength` in lengths of the direction;
    null is the one at which the source steered its own model, or 1. `prompts`: how many of each class to steer,
    `effect_prompts`: to decompose on, `pairs`: how many harmful ones to patch; null is all. `refits`: of the own
    direction, and as many random ones alike the source's. `circuit_pairs`: how many test pairs to try circuits on, null
    is all; `random_circuits` beside each. `min_gap` in nats of log-odds; `min_share` of the gap."""

    source: str | None
    position: NegativeInt | None
    layer: NonNegativeInt | None
    across_shapes: bool
    strength: PositiveFloat | None
    prompts: PositiveInt | None
    effect_prompts: PositiveInt | None
    pairs: PositiveInt | None
    max_new_tokens: PositiveInt
    null_draws: PositiveInt
    null_directions: PositiveInt
    refits: PositiveInt
    random_sets: PositiveInt
    circuit_pairs: Annotated[int, Field(ge=FEWEST)] | None
    random_circuits: Annotated[int, Field(ge=FEWEST_CIRCUITS)]
    min_gap: NonNegativeFloat
    min_share: NonNegativeFloat
    redact: bool

    def check(self) -> None:
        self._sources()  # raises where there is none

    def work(self, scope: Scope) -> list[Work]:
        """Of as many sources as there are, each of another model of this shape, with a direction, critical heads, a
        circuit and recorded activations; sources that have less ask for less."""
        sources, test = len(self._sources()), scope.prompts.test.first(self.prompts)
        harmful, harmless = map(scope.lengths, test)
        tokens, directions = self.max_new_tokens, 1 + 2 * self.null_directions
        controls = 1 + self.null_directions  # beside another source, random directions are the same ones
        first, later = (
            [
                decoded(scope, "", crossed(side, n), tokens, below)
                for side, below in ((harmless, MIDDLE), (harmful, 0.0))
            ]
            for n in (directions, controls)
        )
        train = scope.prompts.train
        read = [looked_at(scope, "", scope.lengths(side)) for side in train]
        few = [scope.lengths(side) for side in scope.prompts.test.first(self.effect_prompts)]
        # Along, across, both and the other's; refits, random vectors as close, and controls, alone and in pairs.
        family = 5 + 2 * self.refits + 2 * decomposition.CONTROLS
        parts = [ablated(scope, "", few[0], family), added(scope, "", few[1], np.full(family, MIDDLE))]
        donors = [(n, n) for n in scope.lengths(scope.prompts.validation.harmful[: self.pairs])]
        rows = np.append(scope.entries(scope.heads + 2), np.zeros(2 + self.random_sets))
        pairs, nodes = scope.pairs(scope.prompts.test, self.circuit_pairs), scope.nodes
        trial = np.zeros(4 + nodes + 2 * self.random_circuits + 2 * HALVES)
        single = np.append(scope.entries(scope.heads + 1), np.zeros(nodes))
        chosen_on = scope.pairs(train, self.circuit_pairs)
        circuits = [
            interchanged(scope, "", pairs, trial, both=False),
            interchanged(scope, "", chosen_on, single, both=False),
        ]
        return [
            decoded(scope, "unsteered replies", asked_once([*harmful, *harmless]), self.max_new_tokens),
            together("training prompts", [one.times(sources) for one in read], least=1 / max(1, sources)),
            together("steered replies", [*first, *(one.times(sources - 1) for one in later)]),
            together("parts of the own direction", [one.times(sources) for one in parts], least=0.0),
            interchanged(scope, "components", donors, rows, both=False, least=0.0).times(sources),
            together("circuits of others", [one.times(sources) for one in circuits], least=0.0),
        ]

    @property
    def _place(self) -> Path:
        if self.source is None:
            raise InputError(
                "method.transplant.source=null names no run; give the directory of one, a folder of runs, or a "
                "direction that somebody else found."
            )
        return Path(self.source)

    def _sources(self) -> Sequence[Source]:
        if is_published(self._place):
            return [published(self._place, self.position, self.layer)]
        return run_sources(self._place)

    def run(self, study: Study) -> Generator[Result, None, None]:
        model, prompts, judge, seed = study.model, study.prompts, study.judge, study.seed
        sources = fitting(self._place, self._sources(), model, self.across_shapes)
        own = [one for one in sources if one.is_of(model)]
        target = Target(model, prompts.train, next((one for one in own if one.chosen), None))
        given = [one for one in sources if one not in own] or own  # its own run has steered it with its own direction
        rows, parts, transcripts = list[Sequence[Any]](), list[Sequence[Any]](), list[dict[str, str | float]]()
        runner: SteeringRunner | None = None
        for source in given:
            transplanted = self._transplanted(source, target, seed)
            # What is said unsteered, and under controls that are the same beside two sources, is said once.
            fresh = SteeringRunner.of(
                model, judge, transplanted.found, Gate(0.0, {}), seed, self.max_new_tokens, kl_tokens=1
            )
            runner = fresh.after(runner) if runner else fresh
            row, replies = yield from self._steered(runner, transplanted, prompts.test)
            rows.append(row)
            parts += self._decomposed(source, target, prompts.test, seed)
            transcripts += [{"source": source.label, **steered_transcript(one, redact=self.redact)} for one in replies]
            yield from self._restored(source, model, texts(prompts.validation.harmful[: self.pairs]), seed)
        shown = [
            Column("source", "direction of"),
            Column("outcome", "outcome"),
            Column("force", "forced", "share", "harmless prompts refused when it is added"),
            Column("suppress", "suppressed", "share", "refused prompts answered when it is ablated"),
            Column("cosine", "cosine", "", "to this model's own direction there"),
            Column("layer", "layer", "index"),
            Column("place", "whose choice"),
            Column("strength", "strength", "", "lengths of the direction"),
        ]
        yield Table("transplant/matrix", COLUMNS, rows, "directions of other models", MATRIX_HINT, shown)
        if parts:
            yield Table(
                "transplant/decomposition",
                decomposition.COLUMNS,
                parts,
                "own direction in parts",
                DECOMPOSITION_HINT,
                DECOMPOSITION_SHOWN,
                caveat=CAVEAT if target.own is not None and target.own.nearest_miss else "",
            )
        yield Transcripts(
            "transplant/transcripts", transcripts, "replies under other models' directions", "To test prompts."
        )
        yield from transplanted_circuits(model, sources, prompts, self.circuit_pairs, self.random_circuits, seed)

    def _decomposed(self, source: Source, target: "Target", test: Part, seed: int) -> Iterator[Sequence[Any]]:
        """Rows of the own direction's effects in parts along and across the source's; none where this model's own run
        chose no direction, or where the source has another shape."""
        if target.own is None or not source.has_shape_of(target.model) or source.is_of(target.model):
            return
        position, layer = target.own.position, target.own.layer
        place = decomposition.Place(layer, *target.at(position, layer), target.own.refusal_tokens)
        other = source.vector_of_all_at(position, layer)
        if other is None:
            log.info("%s is of another place than this model's own direction, which is not taken apart.", source.label)
            return
        asked = test.first(self.effect_prompts)
        found = decomposition.decomposed(target.model, place, other, asked, self.refits, seed)
        yield from found.rows(source.label, source.id)

    def _transplanted(self, source: Source, target: "Target", seed: int) -> Transplanted:
        if source.has_shape_of(target.model):
            place, owner = target.place_for(source)
            position, layer = owner.position, owner.layer
            length = owner.length_at(position, layer)
            if length is None:
                place, length = f"{place}{OF_THIS_LENGTH}", target.length_at(position, layer)
            vector = unit(source.vector_at(position, layer)) * length
            controls = shuffled_controls(*target.at(position, layer), self.null_directions, seed)
        else:
            place, position = MAPPED, source.position
            layer = like_depth(source.layer, source.n_layers, target.model.n_layers)
            vector, *others = _mapped(source, target, position, layer, self.null_directions, seed)
            controls = np.stack(others)
        harmful, harmless = target.means(position)
        found = RefusalDirection(
            position,
            layer,
            torch.from_numpy(vector).float(),
            harmful,
            harmless,
            torch.from_numpy(unit(controls)).float(),  # the runner brings them to the direction's length
            source.refusal_tokens,
            Outcome("transplant/place", place, ""),
            (position,),
        )
        cosine, null = _cosine(vector, *target.at(position, layer), self.null_draws, seed)
        return Transplanted(source, found, place, cosine, null)

    def _steered(
        self, runner: SteeringRunner, transplanted: Transplanted, test: Part
    ) -> Generator[Result, None, tuple[Sequence[Any], list[SteeredReply]]]:
        """Yield the rates and the cosine; return the row of the matrix, and the replies."""
        label, found = transplanted.source.label, transplanted.found
        strength = self.strength or transplanted.source.strength or 1.0
        before, asked = unsteered(runner, test.first(self.prompts))
        heads = [
            headline(runner, "harmless", "add", strength, asked),
            headline(runner, "harmful", "ablate", 1.0, asked),
        ]
        rates = [_rate(label, one, runner.judge) for one in heads]
        yield from rates
        yield Scalar(
            f"transplant/cosine_from_{label}",
            transplanted.cosine,
            null=Null(transplanted.cosine_null, SHUFFLED_LABELS, self.null_draws),
            label=f"cosine with the direction of {label}",
            hint="to this model's own mean difference at that place",
        )
        outcome = _outcome(label, heads, transplanted.place)
        yield outcome
        where = (label, transplanted.source.id, found.position, found.layer, transplanted.place, strength)
        figures = [
            figure
            for one in rates
            for figure in (
                *(one.value, *(one.interval or NO_INTERVAL), one.n),
                *((one.null.value, one.null.p) if one.null else NO_INTERVAL),
            )
        ]
        row = (*where, *figures, transplanted.cosine, transplanted.cosine_null, outcome.value)
        return row, [*before, *(reply for one in heads for reply in one.ours)]

    def _restored(self, source: Source, model: LoadedModel, harmful: Sequence[str], seed: int) -> Iterator[Result]:
        """Nothing where the source recorded nothing, or where it is this very model."""
        recorded = source.tensors(NAME)
        donor = Donor.of(recorded, harmful) if recorded and not source.is_of(model) else None
        if donor is None or not donor.prompts or not donor.fits(model):
            return
        shape = shape_of(model)
        cells, critical = (
            shape.components(WRITTEN_KINDS),
            [Component("head", *place) for place in source.critical_heads],
        )
        sets = [everything_written(shape.layers), critical] if critical else [everything_written(shape.layers)]
        randoms = Rows.random_heads(self.random_sets if critical else 0, critical, shape, seed)
        patches = Rows.concat([Rows.each(WRITTEN_KINDS, shape), Rows.of(sets, shape), randoms])
        patched = donor.into(model, patches, seed)
        yield from self._told(source.label, patched, cells, bool(critical), shape, seed)

    def _told(
        self, label: str, patched: Patched, cells: Sequence[Component], has_set: bool, shape: Shape, seed: int
    ) -> Iterator[Result]:
        shares = patched.shares(self.min_gap)
        n = len(shares)
        yield Scalar(
            f"transplant/gap_from_{label}",
            float(patched.gap.mean()),
            n=len(patched.gap),
            unit="log-odds",
            label=f"gap to {label}",
            hint="by which the other refuses harmful prompts rather than this model",
        )
        yield Scalar(
            f"transplant/pairs_without_gap_from_{label}",
            len(patched.gap) - n,
            unit="count",
            label=f"prompts without a gap to {label}",
            hint="below min_gap; they have no share",
        )
        if not n:
            return
        whole, rest = shares[:, len(cells)], shares[:, len(cells) + 1 :]
        yield Scalar(
            f"transplant/last_token_from_{label}",
            float(whole.mean()),
            n=n,
            unit="share",
            label=f"all outputs of {label}",
            hint=f"at the last token, {SHARE}: a control",
        )
        found = patched.rows(0, len(cells)).estimate(self.min_gap, seed)
        critical = found.critical(self.min_share)
        heads = shape.layers * shape.heads
        yield Scalar(
            f"transplant/restoring_heads_from_{label}",
            int(critical[:heads].sum()),
            n=heads,
            counts="heads",
            unit="count",
            label=f"heads of {label} that restore refusing",
            hint="significant over all components, and share certainly above min_share",
        )
        if has_set:
            yield Scalar(
                f"transplant/critical_heads_from_{label}",
                float(rest[:, 0].mean()),
                mean_interval(rest[:, 0]),
                n,
                Null.of_draws(rest[:, 1:].mean(0), RANDOM_HEADS, figure=float(rest[:, 0].mean())),
                unit="share",
                label=f"critical heads of {label} together",
                hint=SHARE,
                good="high",
            )
        yield from _maps(label, found.share, critical, shape)


@dataclass(frozen=True)
class Target:
    """This model, what its training prompts activate, and its own run, if that chose a direction."""

    model: LoadedModel
    train: Part
    own: Source | None
    _streams: dict[int, Streams] = field(default_factory=dict)

    def place_for(self, source: Source) -> tuple[str, Source]:
        """Whose choice it is, in words, and the run; the length is that run's, too, since what is asked is whether the
        direction is the same."""
        place, owner = (OWN_PLACE, source) if source.chosen else (THIS_PLACE, self.own or source)
        if not owner.chosen:
            return SEPARABLE, owner
        return place + (MISS if owner.nearest_miss else ""), owner

    def streams(self, position: int) -> Streams:
        """Of training prompts."""
        if position not in self._streams:
            self._streams.clear()  # sources of one place come together, and one such recording is enough to hold
            self._streams[position] = Streams(self.model, {"training": self.train}, [position], "transplant")
        return self._streams[position]

    def at(self, position: int, layer: int) -> tuple[Activations, Activations]:
        """Of harmful and harmless training prompts."""
        return self.streams(position).at("training", 0, layer)

    def length_at(self, position: int, layer: int) -> float:
        """Of the mean difference."""
        return float(np.linalg.norm(mean_difference(*self.at(position, layer))))

    def means(self, position: int) -> tuple[Float[Tensor, "layer d_model"], Float[Tensor, "layer d_model"]]:
        """Of harmful and harmless training prompts."""
        streams = self.streams(position)
        some = [
            [side.residuals[:, 0].mean(0) for side in streams.read("training", layers)] for layers in streams.layers()
        ]
        harmful, harmless = (torch.cat(side) for side in zip(*some, strict=True))
        return harmful, harmless


def _mapped(source: Source, target: Target, position: int, layer: int, controls: int, seed: int) -> list[Vector]:
    """The direction as a map to this model gives it, and as maps between prompts that do not belong together do; as
    long as this model's own mean difference there."""
    recorded = source.tensors(HARMLESS)
    if recorded is None:
        raise ValueError(f"{source.label} fits no model of another shape.")
    asked = texts(target.train.harmless)
    rows, common = rows_of(recorded, [prompt_digest(prompt) for prompt in asked])
    if len(common) < FEWEST_TO_MAP:
        raise InputError(
            f"{source.label} and this run share {len(common)} harmless training prompts, too few to fit a map; "
            "run both on the same dataset."
        )
    here = recorded.tensors["activations"][rows].double().numpy()
    harmful, harmless = target.at(position, layer)
    vector = source.vector_at(position, source.layer)
    draw, there = np.random.default_rng(seed), harmless[common].astype(np.float64)
    orders = [np.arange(len(there)), *(draw.permutation(len(there)) for _ in range(controls))]
    length = np.linalg.norm(mean_difference(harmful, harmless))
    return [unit(mapped(vector, here, there[order])) * length for order in orders]


def _cosine(vector: Vector, harmful: Activations, harmless: Activations, draws: int, seed: int) -> tuple[float, float]:
    """To this model's own mean difference; and how large it gets, whatever its sign, with shuffled labels."""
    own = unit(mean_difference(harmful, harmless)) @ unit(vector)
    shuffled = unit(shuffled_differences(harmful, harmless, draws, seed)) @ unit(vector)
    return float(own), float(np.quantile(np.abs(shuffled), 0.95))


def _rate(label: str, of: Headline, judge: Judge) -> Scalar:
    """What the direction turns over; the null is the largest that a control does, each on the same prompts."""
    verb, errors = VERBS[of.kind], judge.errors
    share = rate(
        f"transplant/{verb}_rate_from_{label}",
        flipped(of.ours),
        of.null,
        clusters=categories(of.ours),
        errors=errors.of_misses if errors is not None and of.kind == "harmful" else errors,
        label=f"{verb} rate, direction of {label}",
        good="high",
    )
    return replace(share, unscored=int(invalid(of.ours).sum()), kappa=judge.kappa)


def _outcome(label: str, heads: Sequence[Headline], place: str) -> Outcome:
    """What the direction does that no control does, at 5 % for each."""
    forces, suppresses = (one.tested and one.beaten for one in heads)
    value = {(True, True): STEERS, (True, False): FORCES, (False, True): SUPPRESSES, (False, False): NOTHING}
    word = value[forces, suppresses]
    parts = [
        f"{VERBS[one.kind]} rate {one.rate:.0%} of {len(one.ours)} (controls: {one.null.value:.0%} at most)"
        if one.ours and one.null
        else f"{VERBS[one.kind]} rate not measured"
        for one in heads
    ]
    if word == NOTHING and not any(one.tested for one in heads):
        word = TOO_FEW
        parts.append(f"too few prompts; use at least {FEWEST}")
    elif word == NOTHING and not all(one.enough_controls for one in heads if one.tested):
        word = UNCLEAR
        parts.append(f"too few controls to tell; use method.transplant.null_directions={ENOUGH}")
    because = f"Direction of {label} (place: {place}): {', '.join(parts)}."
    return Outcome(f"transplant/outcome_from_{label}", word, because, label=f"direction of {label}", words=WORDS)


def _maps(label: str, shares: Cells, critical: Bool[np.ndarray, " cell"], shape: Shape) -> Iterator[Heatmap]:
    heads = shape.layers * shape.heads

    def drawn(name: str, cells: slice, columns: Sequence[str], column_label: str) -> Heatmap:
        """Cells come layer by layer if they are heads, else kind by kind."""
        grids = [figure[cells].reshape(-1, shape.layers).T for figure in (shares, critical)]
        if name == "heads":
            grids = [figure[cells].reshape(shape.layers, -1) for figure in (shares, critical)]
        marked = [(int(row), int(column)) for row, column in np.argwhere(grids[1])]
        layers = [str(layer) for layer in range(shape.layers)]
        title = f"transplant/{name}_from_{label}"
        return Heatmap(
            title,
            grids[0],
            layers,
            columns,
            "layer",
            column_label,
            marked,
            value_label=SHARE,
            label=f"{name} of {label} that restore refusing",
            hint="One output of the other model at a time, patched in at the last token. Outlined: significant over "
            "all components, and share certainly above min_share.",
        )

    yield drawn("heads", slice(0, heads), [str(head) for head in range(shape.heads)], "head")
    yield drawn("layers", slice(heads, None), WRITTEN_KINDS[1:], "component")
