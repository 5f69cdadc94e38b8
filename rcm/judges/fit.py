"""Fit the calibrated judge to human labels, and measure every judge on models that it was not fitted to.

    python -m rcm.judges.fit ../shared/data/judge --out judge.json

LABELS holds XSTest's completions with their labels (Röttger et al. 2024, `model_completions/`): one file
`xstest_MODEL.csv` for each model, with `prompt`, `completion` and `final_label`. Prints accuracy and kappa of each
judge, for each model, with that model held out where a judge is fitted: on whether it refuses at all (in full or in
part), and on whether it refuses in full. The file holds the weights fitted to all models, and these figures: its card,
with the counts of refusals and of answers that were taken for what they are (sensitivity and specificity).
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, log_loss

from rcm.errors import InputError
from rcm.judges.base import Judge, Verdict
from rcm.judges.calibrated import CLASSES, RIGHT, Probabilities, decided, probabilities
from rcm.judges.features import NAMES, Features, matrix
from rcm.judges.named import named, names
from rcm.judges.strings import Strings

LABELS = {
    "1_full_compliance": Verdict.COMPLIANCE,
    "2_full_refusal": Verdict.REFUSAL,
    "3_partial_refusal": Verdict.PARTIAL,
}
CUTS = (20, 40, None)  # fitted on completions cut to so many words each; None: on whole ones
TESTED = (None, 18, 48)  # cuts for the card: 18 words are about 24 tokens, 48 about 64
STRENGTHS = (0.1, 0.3, 1.0)  # C of the regression: chosen by a second hold-out within the training models
QUESTIONS: Mapping[str, Callable[[Verdict], bool]] = {
    "refuses": lambda verdict: verdict.refuses,
    "refuses in full": lambda verdict: verdict is Verdict.REFUSAL,
}
Labels = Int[np.ndarray, " completion"]  # indices into CLASSES
Weights = tuple[Float[np.ndarray, "class feature"], Float[np.ndarray, " class"]]


@dataclass(frozen=True)
class Labelled:
    """Completions with people's verdicts; `models` are indices into `names`."""

    prompts: list[str]
    completions: list[str]
    verdicts: list[Verdict]
    models: Int[np.ndarray, " completion"]
    names: list[str]

    @property
    def labels(self) -> Labels:
        return np.array([CLASSES.index(verdict) for verdict in self.verdicts])


def read(folder: Path) -> Labelled:
    """Every `xstest_MODEL.csv` of a folder; raises InputError where there is none."""
    files = sorted(folder.glob("xstest_*.csv"))
    if not files:
        raise InputError(f"{folder} has no xstest_MODEL.csv; give the folder of XSTest's labelled completions.")
    rows: list[tuple[int, dict[str, str]]] = []
    for index, path in enumerate(files):
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows += [(index, row) for row in csv.DictReader(file)]
    return Labelled(
        [row["prompt"] for _, row in rows],
        [row["completion"] for _, row in rows],
        [LABELS[row["final_label"]] for _, row in rows],
        np.array([index for index, _ in rows]),
        [path.stem.removeprefix("xstest_") for path in files],
    )


def fit(views: Sequence[Features], labels: Labels, strength: float) -> Weights:
    """Fit to several views (cuts) of the same completions, which share their labels and one unit of weight each."""
    weight = np.full(len(labels) * len(views), 1 / len(views))
    model = LogisticRegression(C=strength, max_iter=500)
    model.fit(np.vstack(views), np.tile(labels, len(views)), sample_weight=weight)
    return cast(Weights, (model.coef_, model.intercept_))


def chosen_strength(views: Sequence[Features], labels: Labels, models: Int[np.ndarray, " completion"]) -> float:
    """The regularisation with the least log loss on each of the given models when fitted to the others."""

    def loss(strength: float) -> float:
        return float(
            np.mean(
                [
                    log_loss(
                        labels[out],
                        probabilities(views[-1][out], *fit([view[~out] for view in views], labels[~out], strength)),
                        labels=range(len(CLASSES)),
                    )
                    for out in (models == model for model in np.unique(models))
                ]
            )
        )

    return min(STRENGTHS, key=loss)


def held_out(data: Labelled, views: Mapping[int | None, Features]) -> dict[int | None, Probabilities]:
    """For each tested cut, probabilities by judges that were fitted to the other models only."""
    found = {cut: np.zeros((len(data.models), len(CLASSES))) for cut in TESTED}
    for model in range(len(data.names)):
        out = data.models == model
        rest = [views[cut][~out] for cut in CUTS]
        weights = fit(rest, data.labels[~out], chosen_strength(rest, data.labels[~out], data.models[~out]))
        for cut in TESTED:
            found[cut][out] = probabilities(views[cut][out], *weights)
    return found


def agreement(data: Labelled, verdicts: Sequence[Verdict]) -> dict[str, dict[str, tuple[float, float]]]:
    """Accuracy and kappa for each question, by model and pooled."""
    groups = {name: data.models == index for index, name in enumerate(data.names)}
    groups["pooled"] = np.ones_like(data.models, dtype=bool)

    def figures(question: Callable[[Verdict], bool], chosen: Bool[np.ndarray, " completion"]) -> tuple[float, float]:
        people, judge = (
            [question(v) for v, c in zip(of, chosen, strict=True) if c] for of in (data.verdicts, verdicts)
        )
        return float(accuracy_score(people, judge)), float(cohen_kappa_score(people, judge))

    return {
        asked: {name: figures(question, chosen) for name, chosen in groups.items()}
        for asked, question in QUESTIONS.items()
    }


def errors(data: Labelled, verdicts: Sequence[Verdict]) -> dict[str, dict[str, tuple[int, int]]]:
    """On whether a completion refuses at all, by model: of those that people say do (sensitivity) and of those that
    they say do not (specificity), how many the judge takes for that, of how many."""
    people, judge = (np.array([verdict.refuses for verdict in of]) for of in (data.verdicts, verdicts))

    def right(chosen: Bool[np.ndarray, " completion"]) -> dict[str, tuple[int, int]]:
        of_model = {name: chosen & (data.models == index) for index, name in enumerate(data.names)}
        return {name: (int((of & (judge == people)).sum()), int(of.sum())) for name, of in of_model.items()}

    return {"sensitivity": right(people), "specificity": right(~people)}


def string_judges() -> dict[str, Judge]:
    """The judges of the config group that need neither weights nor a fit."""
    return {name: judge for name in names() if isinstance(judge := named(name), Strings)}


def fitted(data: Labelled) -> dict[str, Any]:
    """Weights fitted to all models, and the card: how judges fitted to the other models did on each."""
    views = {cut: matrix(data.completions, cut=cut) for cut in {*CUTS, *TESTED}}
    fitted_on = [views[cut] for cut in CUTS]
    strength = chosen_strength(fitted_on, data.labels, data.models)
    weights, bias = fit(fitted_on, data.labels, strength)
    found = {cut: decided(p) for cut, p in held_out(data, views).items()}
    by_length = {_named(cut): agreement(data, v) for cut, v in found.items()}
    right = {_named(cut): errors(data, v) for cut, v in found.items()}
    confusion = confusion_matrix(data.labels, [CLASSES.index(verdict) for verdict in found[None]])
    return {
        "weights": {name: [round(float(w), 6) for w in column] for name, column in zip(NAMES, weights.T, strict=True)},
        "bias": [round(float(b), 6) for b in bias],
        "card": {
            "classes": list(CLASSES),
            "fitted_to": {"models": data.names, "completions": len(data.completions), "cuts": CUTS, "C": strength},
            "accuracy_and_kappa_with_the_model_held_out": by_length,
            RIGHT: right,
            "confusion_people_by_judge": confusion.tolist(),
        },
    }


def _named(cut: int | None) -> str:
    return "whole" if cut is None else f"first {cut} words"


def table(rows: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]) -> str:
    """Markdown: a row for each judge and question, accuracy and kappa by model."""
    groups = list(next(iter(next(iter(rows.values())).values())))
    lines = [f"| question | judge | {' | '.join(groups)} |", "|" + "---|" * (len(groups) + 2)]
    for question in QUESTIONS:
        for name, figures in rows.items():
            cells = " | ".join("{:.3f} {:.3f}".format(*figures[question][group]) for group in groups)
            lines.append(f"| {question} | {name} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--out", type=Path, help="where to write the fitted judge")
    options = parser.parse_args()
    data = read(options.labels)
    judge = fitted(data)
    rows = {"calibrated": judge["card"]["accuracy_and_kappa_with_the_model_held_out"]["whole"]}
    for name, other in string_judges().items():
        rows[name] = agreement(data, other.verdicts(data.prompts, data.completions))
    sys.stdout.write(f"Accuracy and kappa against people; calibrated: each model held out.\n\n{table(rows)}\n")
    if options.out:
        options.out.write_text(json.dumps(judge, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
