"""The refusal direction: where harmful and harmless prompts part, and which of these places causes refusal.

After Arditi et al. 2024 ("Refusal in Language Models Is Mediated by a Single Direction", section 2, appendix C):

1. Record the residual stream at the input of every block, at every end-of-instruction token.
2. Find the tokens that open refusals. Keep the training and validation prompts that the model treats as labelled:
   harmful ones that it is about to refuse, harmless ones that it is about to answer.
3. At every position and layer: mean difference, principal direction, logistic probe.
4. Score the mean differences on validation prompts by intervening: bypass, induce, KL; select, or say none.
5. Measure the chosen one on test prompts, which nothing has seen: separation, probe accuracy, AUROC; each beside what
   shuffled labels and random directions reach.

Without `exhaustive`, step 4 skips what can no longer change the choice. Where the model does not refuse, step 4 has
nothing to measure: the outcome is `no_refusal_behaviour`, and step 5 reports on the most separable place instead.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from sklearn.pipeline import Pipeline

from rcm.directions.causal import Scorer, Scores, Search
from rcm.directions.fit import correct, random_directions, shuffled_controls, shuffled_differences, unit
from rcm.directions.readability import (
    Fits,
    Place,
    Readability,
    Recorded,
    held_out_auroc,
    held_out_separation,
    probe_accuracies_of_null,
    readability,
)
from rcm.directions.refusal_direction import NONE, SELECTED, RefusalDirection
from rcm.directions.refusal_tokens import Opening, refusal_openings
from rcm.directions.selection import Selection, select
from rcm.errors import InputError
from rcm.execution.passes import Residuals, read_residuals
from rcm.judges.behaviour import NO_REFUSAL, RefusalBehaviour
from rcm.judges.rates import rate
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.prompts import Part, texts
from rcm.record.identity import prompt_digest
from rcm.record.results import (
    RANDOM_DIRECTIONS,
    SHUFFLED_LABELS,
    Column,
    Curve,
    Heatmap,
    Line,
    Null,
    Outcome,
    Result,
    Scalar,
    Table,
    Tensors,
)
from rcm.stats.metrics import refusal_log_odds

CAUSAL: Mapping[str, Mapping[str, Any]] = {
    "bypass": {"label": "bypass", "unit": "log-odds", "hint": "of refusing harmful prompts, ablated", "good": "low"},
    "induce": {"label": "induce", "unit": "log-odds", "hint": "of refusing harmless prompts, added", "good": "high"},
    "kl": {"label": "KL", "unit": "nats", "hint": "on harmless prompts, ablated: the harm done", "good": "low"},
}
# Name, title, what the colours mean, the white point, and how to read it.
MAPS = (
    ("bypass", "bypass", "log-odds", 0.0, "Of refusing harmful ones, the direction ablated. Blue: no longer refused."),
    ("induce", "induce", "log-odds", 0.0, "Of refusing harmless ones, the direction added. Red: refused now."),
    ("kl", "KL", "nats", None, "Harmless ones, the direction ablated: the harm done. Low is good."),
    ("separation", "separation", "standard deviations", None, "How far apart the classes lie along the direction."),
    ("auroc", "AUROC", "AUROC", 0.5, "Of the projection; one half is chance."),
    ("probe_accuracy", "probe accuracy", "accuracy", 0.5, "Of a logistic probe; one half is chance."),
)
OUTLINED = "Outlined: the chosen place, or without a selected direction the most separable one."
DRAWN = 20  # mean differences of shuffled labels that are kept for every place
FEWEST = 4  # prompts of a class, below which a mean difference or a mean score is an anecdote


class Direction(Method):
    """`positions`: negative; null is every end-of-instruction token. `filter`: drop training and validation prompts
    that the model treats otherwise than their label says. `exhaustive`: score every candidate. `max_kl` in nats,
    `min_induce` in log-odds, `max_depth` as a share of the layers. `null_draws`: how many shuffled labels and random
    directions stand behind the nulls of test figures. `null_directions`: how many random ones, and of shuffled labels,
    stand beside it where it is intervened with, here and in `steering`.
    """

    uses: ClassVar = (RefusalBehaviour,)
    gives: ClassVar = RefusalDirection

    positions: tuple[int, ...] | None
    filter: bool
    exhaustive: bool
    max_kl: NonNegativeFloat
    min_induce: float
    max_depth: NonNegativeFloat
    null_draws: PositiveInt
    null_directions: NonNegativeInt

    def run(self, study: Study) -> Generator[Result, None, RefusalDirection]:
        model, prompts, seed = study.model, study.prompts, study.seed
        behaviour = study.get(RefusalBehaviour)
        positions = self._positions(model)
        train, validation, test = (
            _recorded(model, part, positions, f"direction: {name} prompts")
            for name, part in (("train", prompts.train), ("validation", prompts.validation), ("test", prompts.test))
        )
        openings = refusal_openings(train.harmful.logits, train.harmless.logits)
        yield _openings_table(model, openings)
        tokens = model.refusal_tokens or tuple(opening.token for opening in openings)

        stop = None if behaviour is None or behaviour.refuses else behaviour.outcome
        stop = stop or self._nothing_to_score(train, validation, tokens)
        if self.filter and stop is None:
            train, validation = _agreeing(train, tokens), _agreeing(validation, tokens)
        fits = Fits.of(train)
        yield _tensors(model, positions, train, fits, seed)

        scores, choice = Scores.unknown(fits.mean_difference.shape[:2]), None
        scorer = Scorer(model, validation.harmful, validation.harmless, tokens)
        if stop is None:
            scores = self._scores(scorer, fits)
            choice = select(
                *(scores.bypass, scores.induce, scores.kl),
                max_kl=self.max_kl,
                min_induce=self.min_induce,
                max_depth=self.max_depth,
            )
        outcome = _outcome(stop, choice)
        yield outcome

        readable = readability(fits, validation)
        row, layer = _place(choice, readable, len(positions))
        yield Scalar(
            "direction/position", positions[row], unit="index", label="position", hint="from the end of the prompt, -1"
        )
        yield Scalar("direction/layer", layer, unit="index", label="layer", hint="the input of this block, from 0")
        yield from _maps(model, positions, scores, readable, (row, layer))
        yield _candidates(positions, fits, scores, readable)
        yield from self._intervened(scorer, fits, scores, (row, layer), outcome, seed)
        place = Place(train.at(row, layer), test.at(row, layer))
        yield from self._held_out(place, fits, (row, layer), seed)
        yield _held_out_table(place, test, fits.probes[row][layer])
        yield _by_layer(fits, test, row)
        yield _harmless(model, train.harmless, row, positions[row], layer)
        shuffled = shuffled_controls(*train.at(row, layer), self.null_directions, seed)
        return _found(fits, train, positions, (row, layer), shuffled, tokens, outcome)

    def _positions(self, model: LoadedModel) -> tuple[int, ...]:
        available = len(model.template.end_of_instruction)
        positions = self.positions or tuple(range(-available, 0))
        if not all(-available <= position < 0 for position in positions):
            raise InputError(
                f"method.direction.positions={list(positions)} reaches beyond the {available} end-of-instruction "
                f"tokens of the {model.template.kind} template; use positions from {-available} to -1."
            )
        return tuple(sorted(positions))

    def _nothing_to_score(self, train: Recorded, validation: Recorded, tokens: tuple[int, ...]) -> Outcome | None:
        """Why refusal cannot be scored, or None if it can."""
        if not tokens:
            why = "The model opens its replies to harmful prompts as it does those to harmless ones."
            return Outcome("direction/outcome", NO_REFUSAL, why)
        for name, part in (("training", train), ("validation", validation)) if self.filter else ():
            for kind, side in zip(("harmful", "harmless"), _agreeing(part, tokens), strict=True):
                if len(side.prompts) < FEWEST:
                    why = (
                        f"Only {len(side.prompts)} {kind} {name} prompts are about to be "
                        f"{'refused' if kind == 'harmful' else 'answered'} (method.direction.filter=false keeps all)."
                    )
                    return Outcome("direction/outcome", NO_REFUSAL, why)
        return None

    def _scores(self, scorer: Scorer, fits: Fits) -> Scores:
        vectors = torch.from_numpy(fits.mean_difference).float()
        search = Search(scorer, vectors, self.max_kl, self.min_induce, self.max_depth)
        return search.all() if self.exhaustive else search.enough()

    def _intervened(
        self, scorer: Scorer, fits: Fits, scores: Scores, cell: tuple[int, int], outcome: Outcome, seed: int
    ) -> Iterator[Scalar]:
        """Bypass, induce and KL of the selected direction beside random ones of its length, at its layer."""
        grids = {"bypass": scores.bypass, "induce": scores.induce, "kl": scores.kl}
        if outcome.value != SELECTED:
            yield from (Scalar(f"direction/{name}", float("nan"), **CAUSAL[name]) for name in grids)
            return
        vector = fits.mean_difference[cell]
        drawn = random_directions(self.null_directions, len(vector), seed) * np.linalg.norm(vector)
        randoms = torch.from_numpy(drawn).float()
        nulls = {
            "bypass": (0.05, list(scorer.bypass(randoms))),
            "induce": (0.95, scorer.induce(randoms, [cell[1]] * len(randoms))),
            "kl": (0.95, list(scorer.kl(randoms))),
        }
        sizes = {"bypass": scorer.harmful, "induce": scorer.harmless, "kl": scorer.harmless}
        for name, (level, values) in nulls.items():
            null = Null(float(np.quantile(values, level)), RANDOM_DIRECTIONS, len(values), level) if values else None
            n = len(sizes[name].prompts)
            yield Scalar(f"direction/{name}", float(grids[name][cell]), n=n, null=null, **CAUSAL[name])

    def _held_out(self, place: Place, fits: Fits, cell: tuple[int, int], seed: int) -> Iterator[Scalar]:
        """Each beside what shuffled labels reach, or random directions, whichever is more."""
        n = sum(map(len, place.test))
        either = f"{SHUFFLED_LABELS} or {RANDOM_DIRECTIONS}"
        value, interval, reached = held_out_separation(place, self.null_draws, seed)
        yield Scalar(
            "direction/separation",
            value,
            interval,
            n,
            Null(reached, either, self.null_draws),
            target=2.0,
            label="separation",
            unit="sigma",
            hint="distance of the classes along the direction, on test prompts",
            good="high",
        )
        hits = correct(fits.probes[cell[0]][cell[1]], *place.test)
        accuracies = list(probe_accuracies_of_null(place, seed))
        yield rate(
            "direction/probe_accuracy",
            hits,
            Null(float(np.quantile(accuracies, 0.95)), SHUFFLED_LABELS, len(accuracies)),
            target=0.9,
            label="probe accuracy",
            hint="of a logistic probe at the place, on test prompts",
            good="high",
        )
        value, interval, reached = held_out_auroc(place, self.null_draws, seed)
        yield Scalar(
            "direction/auroc",
            value,
            interval,
            n,
            Null(reached, either, self.null_draws),
            label="AUROC",
            hint="of the projection on test prompts; one half is chance",
            good="high",
        )


def _recorded(model: LoadedModel, part: Part, positions: Sequence[int], label: str) -> Recorded:
    return Recorded(*(read_residuals(model, texts(prompts), positions, label) for prompts in part))


def _agreeing(part: Recorded, tokens: tuple[int, ...]) -> Recorded:
    """The prompts that the model treats as labelled: refusal log-odds above zero on harmful, below on harmless."""
    return Recorded(
        part.harmful.where(refusal_log_odds(part.harmful.logits, tokens) > 0),
        part.harmless.where(refusal_log_odds(part.harmless.logits, tokens) < 0),
    )


def _outcome(stop: Outcome | None, choice: Selection | None) -> Outcome:
    if stop is not None or choice is None:
        return Outcome("direction/outcome", stop.value if stop else NONE, stop.because if stop else "", complete=False)
    if choice.survivors:
        best = choice.ranked[0]
        because = (
            f"Position {best.position}, layer {best.layer}: bypass {best.bypass:.2f}, induce {best.induce:.2f}, "
            f"KL {best.kl:.3f}; {choice.survivors} of the scored candidates pass every filter."
        )
        return Outcome("direction/outcome", SELECTED, because)
    misses = "; ".join(
        f"position {miss.position}, layer {miss.layer} (bypass {miss.bypass:.2f}, induce {miss.induce:.2f}, "
        f"KL {miss.kl:.3f}) fails {' and '.join(miss.failed)}"
        for miss in choice.ranked[:3]
    )
    return Outcome(
        "direction/outcome",
        NONE,
        f"No candidate passes every filter; the nearest: {misses or 'none scored'}.",
        complete=False,
    )


def _place(choice: Selection | None, readable: Readability, n_positions: int) -> tuple[int, int]:
    """Row and layer of the choice; without one, of the greatest separation on validation prompts."""
    if choice is not None and choice.position is not None and choice.layer is not None:
        return choice.position + n_positions, choice.layer
    row, layer = np.unravel_index(readable.separation.argmax(), readable.separation.shape)
    return int(row), int(layer)


def _found(
    fits: Fits,
    train: Recorded,
    positions: tuple[int, ...],
    cell: tuple[int, int],
    shuffled: Float[np.ndarray, "control d_model"],
    tokens: tuple[int, ...],
    outcome: Outcome,
) -> RefusalDirection:
    vector = fits.mean_difference[cell]
    harmful, harmless = (side.residuals[:, cell[0]].double().mean(0).float() for side in train)
    controls = torch.from_numpy(unit(shuffled) * np.linalg.norm(vector)).float()
    return RefusalDirection(
        positions[cell[0]],
        cell[1],
        torch.from_numpy(vector).float(),
        harmful,
        harmless,
        controls,
        tokens,
        outcome,
        positions,
    )


def _openings_table(model: LoadedModel, openings: Sequence[Opening]) -> Table:
    rows = [(o.token, model.template.tokenizer.decode([o.token]), o.harmful, o.harmless) for o in openings]
    shown = [
        Column("text", "token"),
        Column("probability_harmful", "opens replies to harmful prompts", "share"),
        Column("probability_harmless", "to harmless ones", "share"),
    ]
    return Table(
        "direction/refusal_tokens",
        ("token", "text", "probability_harmful", "probability_harmless"),
        rows,
        "refusal tokens",
        "That open replies to harmful prompts rather than to harmless ones.",
        shown,
    )


def _tensors(model: LoadedModel, positions: Sequence[int], train: Recorded, fits: Fits, seed: int) -> Tensors:
    means = {f"{name}_mean": side.residuals.double().mean(0) for name, side in train._asdict().items()}
    arrays = {
        "mean_difference": fits.mean_difference,
        "principal": fits.principal,
        "probe": fits.probe_directions,
        "shuffled": _shuffled(train, seed),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()} | means
    metadata = {
        "shape": "position, layer, d_model; shuffled: position, layer, draw, d_model",
        "positions": str(list(positions)),
        "hook_point": "resid_pre",
        "layer_convention": "layer l is the input of block l, counted from 0",
        "dtype": model.identity.get("dtype", ""),
        "template": model.template.kind,
        "template_hash": model.template.digest,
        "end_of_instruction": str(model.template.end_of_instruction_text),
        "model": model.identity.get("name", ""),
        "model_revision": model.identity.get("revision", ""),
        "adapter": model.identity.get("adapter", ""),
    }
    return Tensors(
        "direction/directions", {name: tensor.float() for name, tensor in tensors.items()}, metadata, "directions"
    )


def _shuffled(train: Recorded, seed: int) -> Float[np.ndarray, "position layer draw d_model"]:
    """Mean differences of labels that tell nothing, the same labels everywhere: the null of cosines between models."""
    rows, layers = train.harmful.residuals.shape[1:3]
    return np.stack(
        [[shuffled_differences(*train.at(row, layer), DRAWN, seed) for layer in range(layers)] for row in range(rows)]
    )


def _held_out_table(place: Place, test: Recorded, probe: Pipeline) -> Table:
    """What stands behind the held-out figures, prompt by prompt: runs are compared on the prompts that both had."""
    prompts = [(kind, prompt_digest(prompt)) for kind, side in test._asdict().items() for prompt in side.prompts]
    projected = np.concatenate(place.test) @ unit(place.direction)
    rows = [
        (*one, float(p), bool(hit)) for one, p, hit in zip(prompts, projected, correct(probe, *place.test), strict=True)
    ]
    return Table(
        "direction/held_out",
        ("kind", "prompt", "projection", "probe_correct"),
        rows,
        "test prompts along the direction",
        "By the digest of the prompt; what runs are compared on.",
    )


def _harmless(model: LoadedModel, harmless: Residuals, row: int, position: int, layer: int) -> Tensors:
    """Activations on harmless training prompts at the place: what a map to a model of another shape is fitted on."""
    metadata = {
        "shape": "prompt, d_model",
        "position": str(position),
        "layer": str(layer),
        "prompts": json.dumps([prompt_digest(prompt) for prompt in harmless.prompts]),
        "template_hash": model.template.digest,
    }
    activations = harmless.residuals[:, row, layer].float()
    return Tensors("direction/harmless", {"activations": activations}, metadata, "activations on harmless prompts")


def _maps(
    model: LoadedModel, positions: Sequence[int], scores: Scores, readable: Readability, cell: tuple[int, int]
) -> Iterator[Heatmap]:
    """One heatmap for each figure, layers down and positions across, the place marked."""
    grids = {"bypass": scores.bypass, "induce": scores.induce, "kl": scores.kl, **readable._asdict()}
    texts_of = model.template.end_of_instruction_text
    columns = [f"{position} {texts_of[position]}" for position in positions]
    layers = [str(layer) for layer in range(model.n_layers)]
    marked = [(cell[1], cell[0])]
    for name, label, value_label, center, hint in MAPS:
        if not np.isnan(grids[name]).all():
            yield Heatmap(
                f"direction/map_{name}",
                grids[name].T,
                layers,
                columns,
                "layer",
                "position",
                marked,
                center,
                value_label,
                label,
                f"On validation prompts. {hint} {OUTLINED}",
            )


def _candidates(positions: Sequence[int], fits: Fits, scores: Scores, readable: Readability) -> Table:
    columns = ("position", "layer", "bypass", "induce", "kl", "separation", "auroc", "norm")
    norms = np.linalg.norm(fits.mean_difference, axis=-1)
    grids = (scores.bypass, scores.induce, scores.kl, readable.separation, readable.auroc, norms)
    rows = [
        (positions[row], layer, *(float(grid[row, layer]) for grid in grids)) for row, layer in np.ndindex(*norms.shape)
    ]
    shown = [
        Column("position", "position", "index"),
        Column("layer", "layer", "index"),
        *(Column(name, meaning["label"], meaning["unit"], meaning["hint"]) for name, meaning in CAUSAL.items()),
        Column("separation", "separation", "sigma"),
        Column("auroc", "AUROC"),
        Column("norm", "length"),
    ]
    return Table("direction/candidates", columns, rows, "candidates", "Scored on validation prompts.", shown)


def _by_layer(fits: Fits, test: Recorded, row: int) -> Curve:
    """Probe accuracy and AUROC of the mean difference on the test prompts, layer by layer, at the chosen position."""
    layers = range(fits.mean_difference.shape[1])
    read = readability(fits, test)
    lines = [Line("probe accuracy", read.probe_accuracy[row].tolist()), Line("AUROC", read.auroc[row].tolist())]
    return Curve(
        "direction/by_layer",
        [float(layer) for layer in layers],
        lines,
        "layer",
        "on test prompts",
        "readable at which layer?",
        "Probe accuracy, and AUROC of the mean difference, at the chosen position. One half is chance.",
    )
