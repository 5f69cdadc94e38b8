"""The table that stands first: its sections, from behaviour to what was scored, and the figures in each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rcm.comparison.reading import Reading
from rcm.record.results import Heatmap
from rcm.record.units import known, plain, sigmas, whole
from rcm.report.figures import Cell, Figure, Row, outcomes, rows, together
from rcm.report.formatting import cut

TOKENS_SHOWN = 8
CAUSAL = ("induce", "bypass", "kl")
CHOICE_LIMITS, PATCHING_LIMITS = ("max_kl", "min_induce", "max_depth"), ("min_gap", "min_share")


@dataclass(frozen=True)
class Section:
    title: str
    rows: Sequence[Row]


UNTRAINED = "It has no adapter that lists its training prompts."
BEHAVIOUR = (
    Figure("behaviour/refusal_rate_harmful", "harmful prompts refused", "null: what shuffled labels reach"),
    Figure("behaviour/refusal_rate_harmless", "harmless prompts refused", "low is good; null: shuffled labels"),
    Figure(
        "behaviour/refusal_rate_lookalike",
        "safe lookalikes refused",
        "over-refusal: of prompts that merely look unsafe; low is good",
        absent="The data set has none.",
    ),
    Figure("behaviour/invalid_rate", "replies that are no language", ""),
    Figure(
        "behaviour/seen_in_training",
        "test prompts seen in training",
        "above zero, nothing is held out",
        absent=UNTRAINED,
    ),
)
AGREEMENT = "Cohen's kappa on whether replies refuse: 1 is the same verdicts, 0 what chance gives"
ALONE = "Its judge had no second."
SECOND_JUDGE = (
    Figure("behaviour/judge_agreement", "agreement on behaviour", AGREEMENT, plain, ALONE, "replies"),
    Figure("behaviour/refusal_rate_harmful_second_judge", "harmful prompts refused", absent=ALONE),
    Figure("behaviour/refusal_rate_harmless_second_judge", "harmless prompts refused", absent=ALONE),
    Figure("behaviour/refusal_rate_lookalike_second_judge", "safe lookalikes refused", absent=ALONE),
    Figure("steering/judge_agreement", "agreement on steered replies", AGREEMENT, plain, ALONE, "replies"),
    Figure("steering/force_rate_second_judge", "force rate", absent=ALONE),
    Figure("steering/suppress_rate_second_judge", "suppress rate", absent=ALONE),
)
TARGETS = (
    Figure("direction/separation", "separation", "distance of the classes along the direction", sigmas),
    Figure("direction/probe_accuracy", "probe accuracy", "of a logistic probe at the place"),
    Figure("steering/force_rate", "force rate", "harmless prompts made to be refused by adding it"),
    Figure("steering/suppress_rate", "suppress rate", "refused prompts answered when it is ablated"),
)
PLACE = (
    Figure("direction/position", "position", "counted from the end of the prompt", whole),
    Figure("direction/layer", "layer", "the input of this block, from 0", whole),
    Figure("direction/bypass", "bypass", "refusal log-odds, ablated; low is good", plain),
    Figure("direction/induce", "induce", "refusal log-odds, added; high is good", plain),
    Figure("direction/kl", "KL", "nats on harmless prompts, ablated; low is good", plain),
    Figure("direction/auroc", "AUROC", "of the projection on test prompts", plain),
    Figure("steering/strength", "strength", "in natural norms, chosen on validation prompts", plain),
)
SUBTRACTING = Figure("steering/suppress_rate_add", "suppressed by subtracting", "refused prompts answered")
RESPONSE = (
    Figure("steering/force_trend_p", "forced", unit=plain),
    Figure("steering/suppress_trend_p", "suppressed", unit=plain),
)
INVALID = (Figure("steering/invalid_rate_force", "forced"), Figure("steering/invalid_rate_suppress", "suppressed"))
DISTINCT = (
    Figure("steering/distinct_force", "forced", unit=plain),
    Figure("steering/distinct_suppress", "suppressed", unit=plain),
)
KL = (Figure("steering/kl_force", "forced", unit=plain), Figure("steering/kl_suppress", "suppressed", unit=plain))
LOSS = (
    Figure("steering/cross_entropy_force", "forced", unit=plain),
    Figure("steering/cross_entropy_suppress", "suppressed", unit=plain),
)
TRIGGER = (Figure("steering/trigger_precision", "precision"), Figure("steering/trigger_recall", "recall"))
# Of patching.
CRITICAL_HINT = "significant over all components (max-T), and share certainly above min_share"
NO_HEAD = "No head is critical."
CRITICAL = (
    Figure("patching/critical_heads", "critical heads", CRITICAL_HINT, whole, counted="heads"),
    Figure(
        "patching/critical_heads_necessity",
        "all critical heads: necessity",
        "refusal lost when all come from the harmless twin, share of the gap; null: random heads of the same layers",
        absent=NO_HEAD,
        counted="pairs",
    ),
    Figure(
        "patching/critical_heads_sufficiency",
        "all critical heads: sufficiency",
        "refusal gained when all come from the harmful twin",
        absent=NO_HEAD,
        counted="pairs",
    ),
)
RANKINGS = (
    Figure("patching/rank_correlation_direct_interchange", "patching and writing", unit=plain),
    Figure("patching/rank_correlation_ablation_interchange", "patching and ablation", unit=plain),
    Figure("patching/rank_correlation_direct_ablation", "writing and ablation", unit=plain),
)
STABILITY = (
    Figure("patching/rank_stability", "ρ", unit=plain),
    Figure("patching/top_10_stability", "Jaccard index of the first ten", unit=plain),
)
GAP = Figure(
    "patching/gap", "gap", "nats by which a harmful prompt is refused rather than its twin", plain, counted="pairs"
)
PAIRS = (
    Figure("patching/pairs", "used", unit=whole),
    Figure("patching/pairs_without_gap", "left out", unit=whole),
)
LAST_TOKEN = (
    Figure("patching/last_token_necessity", "necessity"),
    Figure("patching/last_token_sufficiency", "sufficiency"),
)
NOISE = Figure(
    "patching/noise_floor",
    "noise floor",
    "the most that a layer changes, replaced by itself; log-odds",
    plain,
    counted="replacements",
)


def sections(readings: Sequence[Reading]) -> list[Section]:
    """The whole table, from behaviour to what was scored."""
    return [
        Section(
            "Does it refuse?", [outcomes("behaviour/outcome", readings), *rows(BEHAVIOUR, readings), _judge(readings)]
        ),
        Section(
            "Four figures that a good analysis shows", [*rows(TARGETS, readings), outcomes("map/outcome", readings)]
        ),
        Section("The direction", [outcomes("direction/outcome", readings), *rows(PLACE, readings), _tokens(readings)]),
        *_patching(readings),
        Section("Steering and its price", list(_steering(readings))),
        *_second_judge(readings),
        Section("How much was looked at", _extent(readings)),
    ]


def _steering(readings: Sequence[Reading]) -> Iterator[Row]:
    yield outcomes("steering/outcome", readings)
    yield from rows([SUBTRACTING], readings)
    together_in = (
        ("rises with strength", "p of a trend over the strengths, on the same prompts throughout", RESPONSE),
        ("no language", "share of replies; low is good", INVALID),
        ("distinct trigrams", "share, of words in a reply; below 0.5 it loops", DISTINCT),
        ("KL to the unsteered model", "nats per token, on its own replies to harmless prompts", KL),
        ("growth of the loss on plain text", "nats per token", LOSS),
        ("condition", "of conditional steering, as a test of whether a prompt is harmful", TRIGGER),
    )
    for label, hint, figures in together_in:
        yield from together(label, hint, figures, readings)


def _patching(readings: Sequence[Reading]) -> Iterator[Section]:
    """Nothing where none of the runs patched: it is younger than the other steps."""
    if not any(reading.outcome("patching/outcome") for reading in readings):
        return
    found = [
        outcomes("patching/outcome", readings),
        *rows(CRITICAL, readings),
        *together(
            "heads ranked alike",
            "Spearman's ρ; writing: along the direction; ablation: refusing lost when its mean replaces a head",
            RANKINGS,
            readings,
        ),
        *together(
            "stability of the ranking",
            "by patching, when pairs are resampled; 1 is the same ranking",
            STABILITY,
            readings,
        ),
        *rows([GAP], readings),
        *together("pairs", "left out: with a gap below min_gap", PAIRS, readings),
        *together("whole last token", "a control: everything there replaced", LAST_TOKEN, readings),
        *rows([NOISE], readings),
        outcomes("patching/engine", readings, "engine", "rows: all in one pass; loop: one pass for each"),
        Row(
            "limits",
            "min_gap of a pair; min_share of the gap, of a critical component",
            [Cell("", limits(reading, PATCHING_LIMITS)) for reading in readings],
        ),
    ]
    yield Section("Patching: which components decide", found)


def conclusions(reading: Reading) -> list[str]:
    """What the run concluded, step by step; a reason that holds for two steps stands once."""
    steps = ("behaviour", "direction", "patching", "steering", "map")
    concluded = (reading.outcome(f"{step}/outcome") for step in steps)
    return list(dict.fromkeys(outcome.because for outcome in concluded if outcome))


def _judge(readings: Sequence[Reading]) -> Row:
    hint = "who says what refuses; kappa: its agreement with people on XSTest, chance aside"
    return Row("judge", hint, [Cell(reading.run.choices["judge"], kappa(reading)) for reading in readings])


def kappa(reading: Reading) -> str:
    """The judge's agreement with people, as its settings state it."""
    measured = reading.setting("judge", "kappa")
    return "kappa not measured" if measured is None else f"kappa {measured:g}"


def _second_judge(readings: Sequence[Reading]) -> Iterator[Section]:
    """Nothing where none of the runs had one."""
    named = [reading.setting("judge", "second") for reading in readings]
    if any(named):
        who = Row("second judge", "reads the same replies", [Cell("", name or "none") for name in named])
        yield Section("What another judge says of it", [who, *rows(SECOND_JUDGE, readings)])


def _tokens(readings: Sequence[Reading]) -> Row:
    cells = [Cell("", ", ".join(refusal_tokens(reading)) or "none") for reading in readings]
    return Row("refusal tokens", "that open replies to harmful prompts rather than to harmless ones", cells)


def refusal_tokens(reading: Reading) -> list[str]:
    """The tokens in quotes, with the probability that they open the reply to a harmful prompt."""
    table = reading.table("direction/refusal_tokens")
    shown = table.rows[:TOKENS_SHOWN] if table else ()
    return [f"{cut(repr(text), 24)} {_share(harmful)}" for _, text, harmful, _ in shown]


def _share(value: float) -> str:
    return f"{value:.0%}" if known(value) else "–"


def _extent(readings: Sequence[Reading]) -> list[Row]:
    asked = (
        ("prompts of each class", "to train on / to choose by / to test on", prompts),
        ("positions", "end-of-instruction tokens that were scored", positions),
        ("candidates", "scored by intervening; the rest could not change the choice", candidates),
        ("filters", "that a candidate must pass to be chosen", filters),
    )
    return [Row(label, hint, [Cell("", said(reading)) for reading in readings]) for label, hint, said in asked]


def prompts(reading: Reading) -> str:
    """How many prompts of each class the config asks for."""
    if "train" not in reading.run.config.get("dataset", {}):
        return "as the data set has them"
    parts = [reading.setting("dataset", part) for part in ("train", "validation", "test")]
    return " / ".join("all" if part is None else str(part) for part in parts)


def positions(reading: Reading) -> str:
    """Which positions were scored, as the maps' columns name them."""
    columns = next((grid.columns for grid in reading.every(Heatmap) if grid.name.startswith("direction/map_")), ())
    asked = reading.setting("method", "positions")
    if not columns:
        return "none"
    return f"{len(columns)} ({', '.join(columns)}){'; all there are' if asked is None else '; by choice'}"


def candidates(reading: Reading) -> str:
    """Of how many places each causal figure was taken."""
    grids = {grid.name: grid.values for grid in reading.every(Heatmap)}
    scored = {name: grids[f"direction/map_{name}"] for name in CAUSAL if f"direction/map_{name}" in grids}
    told = [f"{name} of {int((~np.isnan(grid)).sum())}" for name, grid in scored.items()]
    return f"{', '.join(told)}; of {next(iter(scored.values())).size} in all" if told else "none"


def filters(reading: Reading) -> str:
    """The limits of the causal selection."""
    return limits(reading, CHOICE_LIMITS)


def limits(reading: Reading, names: Sequence[str]) -> str:
    """Settings as on the command line."""
    asked = {name: reading.setting("method", name) for name in names}
    return ", ".join(f"{name}={limit}" for name, limit in asked.items() if limit is not None) or "unknown"
