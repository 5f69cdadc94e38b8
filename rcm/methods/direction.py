"""The refusal direction: where harmful and harmless prompts part, and which of these places causes refusal.

After Arditi et al. 2024 ("Refusal in Language Models Is Mediated by a Single Direction", section 2, appendix C):

1. Find the tokens that open refusals on training prompts.
2. In the same passes record the residual stream at the input of every block, at every end-of-instruction token, some
   layers at a time (`rcm.directions.streams`). Keep the prompts that the model treats as labelled: harmful ones that it
   is about to refuse, harmless ones that it is about to answer. They are what step 4 fits to and intervenes on.
3. At every position and layer, from all training prompts, so that models are read alike: mean difference, principal
   direction, logistic probe; and how they read validation and test prompts.
4. Score the mean differences of the kept training prompts on kept validation prompts by intervening: bypass, induce,
   KL; select. Where none passes every filter, go on with the nearest miss, marked as one (`strict`: say none).
5. Measure on test prompts, which nothing has seen. What the chosen one causes: bypass, induce, KL, beside random
   directions. What is readable at its place: separation, probe accuracy, AUROC, beside shuffled labels, random
   directions, and what the prompts' words and length tell (`rcm.directions.confounds`).

Without `exhaustive`, step 4 skips what can no longer change the choice. Where the model does not refuse, step 4 has
nothing to measure: the outcome is `no_refusal_behaviour`, and step 5 reports on the most separable place instead. Of
fewer prompts of a class than an interval needs (`rcm.stats.FEWEST`) nothing is concluded: `too_few`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from sklearn.pipeline import Pipeline

from rcm.directions.causal import Scorer, Scores, Search, beside_random
from rcm.directions.confounds import Readers, too_few
from rcm.directions.fit import correct, shuffled_controls, unit
from rcm.directions.held_out import (
    Figure,
    Place,
    clusters,
    held_out_auroc,
    held_out_separation,
    probe_accuracies_of_null,
)
from rcm.directions.places import CAUSAL, by_layer, candidates, frontier, maps, other_limits, separability_table
from rcm.directions.readability import DRAWN, Everywhere, Means, Readability, everywhere
from rcm.directions.refusal_direction import (
    CHOSEN,
    NEAREST_MISS,
    NO_REFUSAL,
    NONE,
    SELECTED,
    TOO_FEW,
    WORDS,
    RefusalDirection,
)
from rcm.directions.refusal_tokens import Opening, refusal_openings
from rcm.directions.selection import Candidate, Selection, select
from rcm.directions.stored import directions, harmless_activations
from rcm.directions.streams import LOGITS, Streams, read_together
from rcm.directions.treated import Treated, kept
from rcm.errors import InputError
from rcm.execution.work import MIDDLE, Scope, Work, ablated, added, looked_at, together
from rcm.judges.behaviour import RefusalBehaviour
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.prompts import Split
from rcm.record.identity import prompt_digest
from rcm.record.results import SHUFFLED_LABELS, Column, Null, Outcome, Result, Scalar, Table
from rcm.stats import FEWEST, rate_interval

TREATED = {"harmful": "refused", "harmless": "answered"}
ON_TEST = "on all test prompts"
READ: Mapping[str, Mapping[str, Any]] = {
    "direction/separation": {
        "target": 2.0,
        "label": "separation",
        "unit": "sigma",
        "hint": f"distance of the classes along the mean difference of all training prompts, {ON_TEST}",
        "good": "high",
    },
    "direction/probe_accuracy": {
        "target": 0.9,
        "label": "probe accuracy",
        "unit": "share",
        "hint": f"of a logistic probe at the place, {ON_TEST}",
        "good": "high",
    },
    "direction/auroc": {
        "label": "AUROC",
        "hint": f"of the projection, {ON_TEST}; one half is chance",
        "good": "high",
    },
}


class Direction(Method):
    """`positions`: negative; null is every end-of-instruction token. `filter`: intervene only on prompts that the model
    treats as their label says. `exhaustive`: score every candidate. `max_kl` in nats, `min_induce` in log-odds,
    `max_depth` as a share of the layers. `strict`: select nothing where no candidate passes these; else the nearest
    miss (`rcm.directions.selection`) is measured and steered by, too, and marked wherever it is shown. `null_draws`:
    how many shuffled labels and random directions stand behind the nulls of what is readable. `null_directions`: how
    many random ones stand beside it where it is intervened with, here and in `steering`, and there as many of shuffled
    labels; fewer than 19 are exceeded by chance more often than once in twenty (`rcm.stats.draws`). `effect_prompts`:
    how many test prompts of each class that is done on; null is all.
    """

    uses: ClassVar = (RefusalBehaviour,)
    gives: ClassVar = RefusalDirection
    judged: ClassVar = False

    positions: tuple[int, ...] | None
    filter: bool
    exhaustive: bool
    max_kl: NonNegativeFloat
    min_induce: float
    max_depth: NonNegativeFloat
    strict: bool
    null_draws: PositiveInt
    null_directions: NonNegativeInt
    effect_prompts: PositiveInt | None

    def work(self, scope: Scope) -> list[Work]:
        """Recording and fits are certain; how many candidates are ablated depends on how many induce refusing."""
        prompts, layers, width = scope.prompts, scope.layers, scope.d_model
        positions = scope.positions
        parts = [prompts.train, prompts.validation, prompts.test]
        of_layer = [sum(map(len, part)) * positions * width * 4 for part in parts]
        chunks = read_together(of_layer, layers)
        held = min(layers, len(chunks[0])) * (max(of_layer) if len(chunks) > 1 else sum(of_layer))
        sides = [[looked_at(scope, "", scope.lengths(side)) for side in part] for part in parts]
        reads = [side for part in sides for side in part] * len(chunks)
        reads += [side for part in (sides[0], sides[2]) for side in part] if len(chunks) > 1 else []
        if len(prompts.train.harmful) * scope.vocabulary * 4 > LOGITS:
            reads.append(sides[0][0])  # once more, for the tokens that open refusals
        else:
            held += len(prompts.train.harmful) * scope.vocabulary * 4
        fits = positions * layers * width * (7 * 8 + 4 * DRAWN)  # means, kept means, principal ones, probes; shuffled
        fitted = positions * layers * sum(map(len, prompts.train)) * width

        harmful, harmless = map(scope.lengths, prompts.validation)
        deepest = layers if self.exhaustive else int(self.max_depth * layers)
        # At the input of the first block the template's tokens are the same in every prompt: no candidate.
        candidates = np.repeat(np.arange(1, deepest) / layers, positions)
        least = 1.0 if self.exhaustive else 0.05
        few = prompts.test.first(self.effect_prompts)
        tested, directions = [scope.lengths(side) for side in few], 1 + self.null_directions
        beside = [
            looked_at(scope, "", tested[1]),
            ablated(scope, "", tested[0], directions),
            added(scope, "", tested[1], np.full(directions, MIDDLE)),
            ablated(scope, "", tested[1], directions),
        ]
        return [
            together("residual streams", reads, held=held + fits),
            Work("probes", fitted=fitted, held=held + fits),
            looked_at(scope, "harmless prompts as they are", harmless),
            added(scope, "candidates added", harmless, candidates),
            ablated(scope, "candidates ablated, bypass", harmful, len(candidates), least),
            ablated(scope, "candidates ablated, KL", harmless, len(candidates), least),
            together("beside random directions", beside),
        ]

    def run(self, study: Study) -> Generator[Result, None, RefusalDirection]:
        model, prompts, seed = study.model, study.prompts, study.seed
        behaviour = study.get(RefusalBehaviour)
        positions = self._positions(model)
        parts = {"training": prompts.train, "validation": prompts.validation, "test": prompts.test}
        streams = Streams(model, parts, positions, "direction", model.refusal_tokens or ())
        streams.read("training", next(streams.layers()))
        harmful, harmless = streams.first_tokens["training"]
        openings = refusal_openings(harmful.these.mean(0), harmless.these.mean(0), harmful.tokens)
        yield _openings_table(model, openings)
        tokens = model.refusal_tokens or tuple(opening.token for opening in openings)

        def treated(part: str) -> Treated:
            return Treated.of(parts[part], [side.log_odds(tokens) for side in streams.first_tokens[part]])

        places = everywhere(streams, treated("training").labelled(), clusters(prompts.test), seed)
        every = {part: treated(part) for part in parts}
        as_labelled = {name: part.as_labelled() for name, part in every.items()}
        stop = None if behaviour is None or behaviour.refuses else behaviour.outcome
        stop = stop or self._nothing_to_score(every, as_labelled, tokens)
        filtered = self.filter and stop is None
        yield kept(every, filtered)
        scored, fits = as_labelled if filtered else every, places.fits
        means = fits.kept if filtered else fits.means
        mean_difference = means.difference
        yield directions(model, positions, means, fits)

        scores, choice = Scores.unknown(mean_difference.shape[:2]), None
        if stop is None:
            validation = scored["validation"]
            scorer = Scorer(model, validation.harmful.prompts, validation.harmless.prompts, tokens)
            scores = self._scores(scorer, mean_difference)
            choice = select(
                *(scores.bypass, scores.induce, scores.kl),
                max_kl=self.max_kl,
                min_induce=self.min_induce,
                max_depth=self.max_depth,
            )
        outcome = _outcome(stop, choice, self.strict)
        yield outcome

        readable = places.validation
        chosen = choice.best if choice is not None and outcome.value in CHOSEN else None
        row, layer = cell = _place(chosen, readable, len(positions))
        yield Scalar(
            "direction/position", positions[row], unit="index", label="position", hint="from the end of the prompt, -1"
        )
        yield Scalar("direction/layer", layer, unit="index", label="layer", hint="the input of this block, from 0")
        yield from maps(model, positions, scores, readable, cell)
        yield candidates(positions, mean_difference, scores, readable)
        if stop is None:
            yield frontier(positions, scores, cell, self.max_kl)
            yield other_limits(positions, scores, self.max_depth, self.min_induce)
        categories = {prompt.text: prompt.category for side in prompts.test for prompt in side}
        place = Place(streams.at("training", row, layer), streams.at("test", row, layer))
        fitted = place.train
        if filtered:
            harmful_mask, harmless_mask = (mask.numpy() for mask in every["training"].labelled())
            fitted = fitted[0][harmful_mask], fitted[1][harmless_mask]
        shuffled = shuffled_controls(*fitted, self.null_directions, seed)
        found = _found(means, positions, cell, shuffled, tokens, outcome)
        effects = self._intervened(model, scored["test"], found, categories, seed)
        yield from map(found.marked, effects)
        yield from map(found.marked, self._held_out(every, place, prompts, places, cell, seed))
        yield separability_table(positions, places.separability, sum(map(len, prompts.test)))
        yield harmless_activations(model, scored["training"].harmless.prompts, fitted[1], positions[row], layer)
        return found

    def _positions(self, model: LoadedModel) -> tuple[int, ...]:
        available = len(model.template.end_of_instruction)
        positions = self.positions or tuple(range(-available, 0))
        if not all(-available <= position < 0 for position in positions):
            raise InputError(
                f"method.direction.positions={list(positions)} reaches beyond the {available} end-of-instruction "
                f"tokens of the {model.template.kind} template; use positions from {-available} to -1."
            )
        return tuple(sorted(positions))

    def _nothing_to_score(
        self, every: Mapping[str, Treated], as_labelled: Mapping[str, Treated], tokens: tuple[int, ...]
    ) -> Outcome | None:
        """Why refusal cannot be scored, or None if it can."""
        choosing = {name: part for name, part in every.items() if name != "test"}
        for name, part in choosing.items():
            if few := part.too_few(name):
                return Outcome("direction/outcome", TOO_FEW, few, words=WORDS)
        if not tokens:
            why = "The model opens its replies to harmful prompts as it does those to harmless ones."
            return Outcome("direction/outcome", NO_REFUSAL, why, words=WORDS)
        for name, part in choosing.items() if self.filter else ():
            for (kind, side), agreeing in zip(part._asdict().items(), as_labelled[name], strict=True):
                n, of = len(agreeing.prompts), len(side.prompts)
                if n >= FEWEST:
                    continue
                told = f"{n} of {of} {kind} {name} prompts are about to be {TREATED[kind]}"
                if 2 * n >= of:  # the model does as labelled, and more prompts would show it
                    why = f"Only {told}; use more, for at least {FEWEST}."
                    return Outcome("direction/outcome", TOO_FEW, why, words=WORDS)
                why = f"Only {told} (method.direction.filter=false keeps all)."
                return Outcome("direction/outcome", NO_REFUSAL, why, words=WORDS)
        return None

    def _scores(self, scorer: Scorer, mean_difference: Float[np.ndarray, "position layer d_model"]) -> Scores:
        vectors = torch.from_numpy(mean_difference).float()
        search = Search(scorer, vectors, self.max_kl, self.min_induce, self.max_depth)
        return search.all() if self.exhaustive else search.enough()

    def _intervened(
        self,
        model: LoadedModel,
        test: Treated,
        found: RefusalDirection,
        categories: Mapping[str, str],
        seed: int,
    ) -> Iterator[Scalar]:
        """Bypass, induce and KL of the chosen direction on test prompts, which had no part in choosing it, beside
        random ones of its length."""
        few = test.too_few("test")
        if not found.chosen or few:
            yield from (Scalar(f"direction/{name}", float("nan"), **CAUSAL[name], absent=few) for name in CAUSAL)
            return
        harmful, harmless = (side.prompts for side in test.first(self.effect_prompts))
        scorer, vector = Scorer(model, harmful, harmless, found.refusal_tokens), found.vector.numpy()
        effects = beside_random(scorer, vector, found.layer, self.null_directions, seed, categories)
        for name, effect in effects.items():
            meaning = {**CAUSAL[name], "hint": f"{CAUSAL[name]['hint']}; on test prompts"}
            yield Scalar(f"direction/{name}", effect.value, effect.interval, effect.n, effect.null, **meaning)

    def _held_out(
        self,
        every: Mapping[str, Treated],
        place: Place,
        prompts: Split,
        places: Everywhere,
        cell: tuple[int, int],
        seed: int,
    ) -> Iterator[Result]:
        """What is readable at the place, beside what chance and the prompts' texts reach."""
        probe, n, categories = places.fits.probes[cell], sum(map(len, place.test)), clusters(prompts.test)
        test = every["test"]
        few = every["training"].too_few("training") or test.too_few("test")
        yield _held_out_table(place, test, probe)
        if few:
            yield from (Scalar(name, float("nan"), **meaning, absent=few) for name, meaning in READ.items())
            yield too_few(few)
            return
        hits = correct(probe, *place.test)
        drawn = probe_accuracies_of_null(place, self.null_draws, seed)
        accuracy = float(hits.mean())
        null = Null.of_draws(drawn, SHUFFLED_LABELS, figure=accuracy)
        figures = {
            "direction/separation": held_out_separation(place, categories, self.null_draws, seed),
            "direction/probe_accuracy": Figure(accuracy, rate_interval(hits, categories), null),
            "direction/auroc": held_out_auroc(place, categories, self.null_draws, seed),
        }
        for name, figure in figures.items():
            yield Scalar(name, figure.value, figure.interval, n, figure.null, **READ[name])
        readers = Readers.of(place, prompts.train, prompts.test, categories)
        yield readers.conclusion(null)
        yield from readers.scalars()
        yield readers.table()
        yield by_layer(places.test, cell[0])


def _outcome(stop: Outcome | None, choice: Selection | None, strict: bool) -> Outcome:
    if stop is not None or choice is None:
        if stop:
            return Outcome("direction/outcome", stop.value, stop.because, complete=False, words=stop.words)
        return Outcome("direction/outcome", NONE, "", complete=False, words=WORDS)
    if choice.survivors:
        best = choice.ranked[0]
        because = (
            f"Position {best.position}, layer {best.layer}: bypass {best.bypass:.2f}, induce {best.induce:.2f}, "
            f"KL {best.kl:.3f}; {choice.survivors} of the scored candidates pass every filter."
        )
        return Outcome("direction/outcome", SELECTED, because, words=WORDS)
    misses = "; ".join(
        f"position {miss.position}, layer {miss.layer} (bypass {miss.bypass:.2f}, induce {miss.induce:.2f}, "
        f"KL {miss.kl:.3f}) fails {' and '.join(miss.failed)}"
        for miss in choice.ranked[:3]
    )
    because = f"No candidate passes every filter. The nearest: {misses or 'none scored'}."
    if strict or not misses:
        return Outcome("direction/outcome", NONE, because, complete=False, words=WORDS)
    because, tag = f"{because} What follows is of the first.", f"selection: {NEAREST_MISS}"
    return Outcome("direction/outcome", NEAREST_MISS, because, tag=tag, words=WORDS)


def _place(chosen: Candidate | None, readable: Readability, n_positions: int) -> tuple[int, int]:
    """Row and layer of the choice; without one, of the greatest separation on validation prompts."""
    if chosen is not None:
        return chosen.position + n_positions, chosen.layer
    row, layer = np.unravel_index(readable.separation.argmax(), readable.separation.shape)
    return int(row), int(layer)


def _found(
    means: Means,
    positions: tuple[int, ...],
    cell: tuple[int, int],
    shuffled: Float[np.ndarray, "control d_model"],
    tokens: tuple[int, ...],
    outcome: Outcome,
) -> RefusalDirection:
    vector = means.difference[cell]
    harmful, harmless = (torch.from_numpy(side[cell[0]]).float() for side in (means.harmful, means.harmless))
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


def _held_out_table(place: Place, test: Treated, probe: Pipeline) -> Table:
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
