"""What else tells harmful from harmless prompts: their words and their length, learned from the same training prompts.

    words            logistic regression on counts of words and signs
    pairs of words   the same, with pairs of neighbours as well
    naive Bayes      multinomial, on counts of words: the better one on few texts (Wang and Manning 2012)
    length           logistic regression on the number of characters

A probe at a place reads the model, and not merely the prompts, where it beats each of these: on the same test prompts
the share that it gets right exceeds theirs, and the interval of the difference (by category, where there are
categories) lies above zero. As it must beat every one, the error rate is that of a single comparison, however many
there are (Berger 1982, intersection-union). The more training prompts, the more do words tell: their number stands
beside every figure.

A reader that knows categories instead of harm fails in one that it was not trained on. So each is also fitted anew
without a category, and measured on the test prompts of that category alone, for every category in turn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from rcm.directions.fit import on_one_thread, probe_model
from rcm.directions.held_out import Place
from rcm.directions.refusal_direction import TOO_FEW
from rcm.prompts import Part, texts
from rcm.record.results import Column, Null, Outcome, Scalar, Table, Word, Words
from rcm.record.units import percent
from rcm.stats import Estimate, mean_interval, rate_interval
from rcm.stats.separability import auroc, separation

READABLE, NOT_READABLE, CONFOUNDED = "readable", "not_readable", "confounded"
OUTCOMES: Words = {
    READABLE: Word(
        "a probe of the activations tells harmful from harmless prompts certainly better than any reader of their "
        "words and length does",
        "The model holds more than the prompts show; whether refusing uses it only interventions tell.",
    ),
    CONFOUNDED: Word(
        "a reader of words or length alone does about as well as the probe: the model may hold no more than the words",
        "Use prompts that do not give their class away, such as matched twins (dataset=pairs).",
    ),
    NOT_READABLE: Word(
        "a probe does no better than after shuffled labels",
        "Look at other layers and positions, or use more prompts.",
    ),
    TOO_FEW: Word("there are too few prompts to fit or to test a probe", "Use more training and test prompts."),
}
WORDS = r"(?u)\w+|[^\w\s]"  # also of one letter, and signs: a question mark may tell the classes apart

Inputs = np.ndarray  # texts, or activations [prompt, d_model]
Harmful = Bool[np.ndarray, " _"]  # of training or of test prompts
Scores = Float[np.ndarray, " _"]  # of the inputs asked about; above zero is harmful
Reader = Callable[[Inputs, Harmful, Inputs], Scores]


def logistic(model: Pipeline) -> Reader:
    """Scores are log-odds."""
    return lambda inputs, harmful, asked: clone(model).fit(inputs, harmful).decision_function(asked)


def bayes(model: Pipeline) -> Reader:
    """Scores are log-odds."""

    def read(inputs: Inputs, harmful: Harmful, asked: Inputs) -> Scores:
        log_p = clone(model).fit(inputs, harmful).predict_log_proba(asked)
        return log_p[:, 1] - log_p[:, 0]

    return read


def mean_difference(inputs: Inputs, harmful: Harmful, asked: Inputs) -> Scores:
    """Projections, from the middle between the classes on."""
    means = [inputs[harmful == kind].mean(0, dtype=np.float64) for kind in (True, False)]
    return (asked - sum(means) / 2) @ (means[0] - means[1])


def _lengths(prompts: Inputs) -> Float[np.ndarray, "_ 1"]:
    return np.array([[float(len(prompt))] for prompt in prompts])


def _counts(longest: int) -> CountVectorizer:
    return CountVectorizer(ngram_range=(1, longest), token_pattern=WORDS)


PROBE, DIFFERENCE = "probe", "mean difference"
OF_ACTIVATIONS: Mapping[str, Reader] = {PROBE: logistic(probe_model()), DIFFERENCE: mean_difference}
OF_TEXTS: Mapping[str, Reader] = {
    "words": logistic(make_pipeline(_counts(1), LogisticRegression(max_iter=1000))),
    "pairs of words": logistic(make_pipeline(_counts(2), LogisticRegression(max_iter=1000))),
    "naive Bayes": bayes(make_pipeline(_counts(1), MultinomialNB())),
    "length": logistic(make_pipeline(FunctionTransformer(_lengths), StandardScaler(), LogisticRegression())),
}


class Read(NamedTuple):
    """What one reader makes of the test prompts, harmful ones first; `new_category`: of prompts whose category was left
    out of its training, None where there is but one."""

    reader: str
    scores: Scores
    correct: Harmful
    new_category: Harmful | None


class Readers(NamedTuple):
    """All of them on the same test prompts, after the same `training` prompts. `clusters`: of the test prompts."""

    reads: Sequence[Read]
    training: int
    harmful: Harmful
    clusters: Sequence[str]

    @classmethod
    def of(cls, place: Place, train: Part, test: Part, clusters: Sequence[str]) -> "Readers":
        """Of activations at a place, and of the texts that they are of."""
        labels = _labels(train), _labels(test)
        asked = [np.array([*texts(part.harmful), *texts(part.harmless)], dtype=object) for part in (train, test)]
        activations = [np.concatenate(classes) for classes in place]
        categories = [np.array([one.category for side in part for one in side], dtype=object) for part in (train, test)]
        readers = [(name, reader, activations) for name, reader in OF_ACTIVATIONS.items()]
        readers += [(name, reader, asked) for name, reader in OF_TEXTS.items()]
        with on_one_thread():
            reads = [_read(name, reader, inputs, labels, categories) for name, reader, inputs in readers]
        return cls(reads, len(labels[0]), labels[1], clusters)

    @property
    def by_name(self) -> dict[str, Read]:
        return {one.reader: one for one in self.reads}

    @property
    def hardest(self) -> tuple[str, Estimate]:
        """The reader of texts that is hardest to beat, and by how much of the test prompts the probe does: the best of
        those that it does not certainly exceed, or else the best of all."""
        margins = {name: self.margin(name) for name in OF_TEXTS}
        return min(margins.items(), key=lambda one: (one[1].low > 0, one[1].value, one[1].low))

    def margin(self, reader: str) -> Estimate:
        """The share of test prompts that the probe gets right less that of this reader, prompt by prompt."""
        named = self.by_name
        difference = named[PROBE].correct.astype(float) - named[reader].correct
        ends = mean_interval(difference, self.clusters) or (float("nan"), float("nan"))
        return Estimate(float(difference.mean()), *ends)

    def conclusion(self, null: Null | None) -> Outcome:
        """Whether the model holds more than its prompts show; `null`: probes of shuffled labels."""
        probe, (name, margin) = float(self.by_name[PROBE].correct.mean()), self.hardest
        right = f"A probe is right on {percent(probe)} of {len(self.harmful)} test prompts"
        if null is None or probe <= null.value:
            return _outcome(NOT_READABLE, f"{right}, no more than after shuffled labels.")
        behind = (
            f"{right}; of the prompts' texts alone {name} is on {percent(probe - margin.value)}, learned from the same "
            f"{self.training} prompts: a difference of {percent(margin.value)} "
            f"(95 %: {percent(margin.low)} to {percent(margin.high)})."
        )
        return _outcome(READABLE if margin.low > 0 else CONFOUNDED, behind)

    def scalars(self) -> list[Scalar]:
        """What stands beside the probe's accuracy."""
        _, margin = self.hardest
        beyond = Scalar(
            "direction/above_texts",
            margin.value,
            (margin.low, margin.high),
            len(self.harmful),
            label="probe above words and length",
            unit="share",
            hint="accuracy less that of the best reader of texts, after the same training prompts, on test prompts",
            good="high",
        )
        found = [beyond]
        for reader, key in ((PROBE, "probe"), (DIFFERENCE, "mean_difference")):
            hits = self.by_name[reader].new_category
            found.append(
                Scalar(
                    f"direction/{key}_accuracy_new_category",
                    float("nan") if hits is None else float(hits.mean()),
                    None if hits is None else rate_interval(hits, self.clusters),
                    None if hits is None else len(hits),
                    label=reader,
                    unit="share",
                    hint="fitted without the category that it is measured on, every category in turn",
                    good="high",
                    row="accuracy in a new category",
                    absent="The prompts have fewer than two categories.",
                )
            )
        return found

    def table(self) -> Table:
        """Every reader: accuracy, AUROC, separation, accuracy in a new category, and how far the probe is above it."""
        return Table(
            "direction/readers",
            [
                *("reader", "reads", "accuracy", "accuracy_low", "accuracy_high", "auroc", "separation"),
                *("training_prompts", "new_category", "new_category_low", "new_category_high"),
                *("probe_above", "probe_above_low", "probe_above_high"),
            ],
            [self._row(one) for one in self.reads],
            "probe beside words and length",
            "Of activations at the place and of the prompts' texts; all learned from the same "
            f"{self.training} training prompts and read the same test prompts. Intervals of 95 %, by category.",
            [
                Column("reader", "reader"),
                Column("reads", "reads"),
                Column("accuracy", "accuracy", "share"),
                Column("auroc", "AUROC"),
                Column("separation", "separation", "sigma"),
                Column("training_prompts", "training prompts", "count"),
                Column("new_category", "in a new category", "share", "accuracy, fitted without that category"),
                Column("probe_above", "probe above it", "share", "difference of accuracies"),
            ],
        )

    def _row(self, one: Read) -> tuple[Any, ...]:
        sides = one.scores[self.harmful], one.scores[~self.harmful]
        return (
            one.reader,
            "activations" if one.reader in OF_ACTIVATIONS else "texts",
            *(float(one.correct.mean()), *rate_interval(one.correct, self.clusters)),
            *(auroc(*sides), separation(*sides), self.training),
            *_rate(one.new_category, self.clusters),
            *((float("nan"),) * 3 if one.reader == PROBE else self.margin(one.reader)),
        )


def too_few(why: str) -> Outcome:
    return _outcome(TOO_FEW, why)


def _read(
    name: str, reader: Reader, inputs: Sequence[Inputs], labels: Sequence[Harmful], categories: Sequence[np.ndarray]
) -> Read:
    scores = reader(inputs[0], labels[0], inputs[1])
    return Read(name, scores, (scores > 0) == labels[1], _new_category(reader, inputs, labels, categories))


def _new_category(
    reader: Reader, inputs: Sequence[Inputs], labels: Sequence[Harmful], categories: Sequence[np.ndarray]
) -> Harmful | None:
    """Which test prompts a reader gets right that never saw their category; None where the rest has but one class."""
    names = sorted(set(categories[1]))
    if len(names) < 2 or not all(names):
        return None
    correct = np.zeros(len(labels[1]), dtype=bool)
    for name in names:
        rest, own = categories[0] != name, categories[1] == name
        if len(set(labels[0][rest])) < 2:
            return None
        correct[own] = (reader(inputs[0][rest], labels[0][rest], inputs[1][own]) > 0) == labels[1][own]
    return correct


def _labels(part: Part) -> Harmful:
    return np.repeat([True, False], [len(part.harmful), len(part.harmless)])


def _rate(hits: Harmful | None, clusters: Sequence[str]) -> tuple[float, float, float]:
    return (float("nan"),) * 3 if hits is None else (float(hits.mean()), *rate_interval(hits, clusters))


def _outcome(value: str, because: str) -> Outcome:
    return Outcome(
        "direction/readable",
        value,
        because,
        complete=value != TOO_FEW,
        label="readable",
        hint="whether a probe tells harmful from harmless prompts better than their words and length do",
        words=OUTCOMES,
    )
