r"""Why is no direction selected? What decides on each limit of the selection, taken apart.

    python -m benchmarks.limits model=gguf model.path=FILE --layers 15 16 17 \
        --data dataset=pairs dataset.train=96 dataset.validation=96 dataset.test=48 \
        --data dataset=arditi dataset.path=FOLDER

Directions of every data set, from the kept prompts and from all, are scored on the validation prompts of every one:

    tokens     bypass by the tokens that each data set finds, and by --tokens (the paper's for this family)
    prompts    a direction of the one data set on the prompts of the other
    filter     on kept prompts, and on all; fitted to kept ones, and to all
    number     how often as many prompts, drawn again, would pass
    length     induction at 1, 1.5, 2 and 3 lengths of the mean difference
    nearness   KL by how near to refusing the harmless prompts are by themselves

Prints tables in Markdown. Position -1.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.shared import settings
from rcm.directions.refusal_tokens import refusal_openings
from rcm.execution.first_token import ablated, added
from rcm.execution.passes import last_logits, mean_probabilities, read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Part, texts
from rcm.running.chosen import chosen_settings
from rcm.running.run import prepared
from rcm.stats.metrics import kl_divergence, refusal_log_odds

MAX_KL, MIN_INDUCE = 0.1, 0.0
LENGTHS = (1.0, 1.5, 2.0, 3.0)
NEARNESS = ((-np.inf, -3.0), (-3.0, -2.0), (-2.0, -1.0), (-1.0, 0.0), (0.0, np.inf))  # log-odds of refusing
DRAWS = 2000
Figures = Float[np.ndarray, "direction prompt"]


@dataclass(frozen=True)
class Asked:
    """A data set as the model takes it; `tokens` open its refusals."""

    name: str
    model: LoadedModel
    train: Part
    validation: Part

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        found = refusal_openings(*(mean_probabilities(self.model, texts(side), self.name) for side in self.train))
        return tuple(one.token for one in found)

    @cached_property
    def logits(self) -> tuple[Tensor, Tensor]:
        """Of harmful and harmless validation prompts."""
        harmful, harmless = (last_logits(self.model, texts(side)) for side in self.validation)
        return harmful, harmless

    @cached_property
    def odds(self) -> Float[np.ndarray, " prompt"]:
        """Of refusing harmless validation prompts."""
        return refusal_log_odds(self.logits[1], self.tokens).numpy()

    @property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Which validation prompts are treated as labelled, harmful and harmless."""
        return refusal_log_odds(self.logits[0], self.tokens).numpy() > 0, self.odds < 0

    @cached_property
    def means(self) -> dict[str, Float[Tensor, "layer d_model"]]:
        """Mean differences of the training prompts, of the kept ones and of all."""

        def odds(logits: Tensor, _: Sequence[int]) -> Tensor:
            return refusal_log_odds(logits, self.tokens)[:, None]

        sides = [read_residuals(self.model, texts(side), [-1], self.name, figures=odds) for side in self.train]
        found = {}
        for name in ("kept", "all"):
            means = []
            for side, sign in zip(sides, (1, -1), strict=True):
                chosen = side.residuals[sign * side.figures[:, 0] > 0] if name == "kept" else side.residuals
                means.append(chosen[:, 0].mean(0, dtype=torch.float64))
            found[name] = means[0] - means[1]
        return found

    def directions(self, layers: Sequence[int]) -> Iterator[tuple[tuple[str, str, int], Tensor]]:
        for name, found in self.means.items():
            yield from (((self.name, name, layer), found[layer].float()) for layer in layers)


@dataclass(frozen=True)
class Scored:
    """Directions on the validation prompts of a data set: bypass by each set of tokens, KL, induction by length."""

    bypass: Mapping[str, Figures]
    kl: Figures
    induce: Mapping[float, Figures]


def scored(
    model: LoadedModel, asked: Asked, vectors: Tensor, layers: Sequence[int], tokens: Mapping[str, tuple[int, ...]]
) -> Scored:
    units, before = torch.nn.functional.normalize(vectors, dim=-1), asked.logits[1]
    harmful, harmless = (texts(side) for side in asked.validation)

    def odds(logits: Tensor, index: Sequence[int]) -> Tensor:
        return refusal_log_odds(logits, asked.tokens)

    def kl(logits: Tensor, index: Sequence[int]) -> Tensor:
        return kl_divergence(before[index], logits)

    def by(some: tuple[int, ...]) -> Figures:
        figure = ablated(model, harmful, units, lambda logits, _: refusal_log_odds(logits, some))
        return torch.stack(list(figure)).numpy()

    return Scored(
        {name: by(some) for name, some in tokens.items()},
        torch.stack(list(ablated(model, harmless, units, kl))).numpy(),
        {length: added(model, harmless, vectors * length, layers, odds, asked.name).numpy() for length in LENGTHS},
    )


def passing(values: Float[np.ndarray, " prompt"], least: float, most: float, seed: int = 0) -> float:
    """How often the mean of as many prompts, drawn again, lies between the limits."""
    draw = np.random.default_rng(seed)
    means = draw.choice(values, (DRAWS, len(values))).mean(1)
    return float(((means >= least) & (means <= most)).mean())


def rows(asked: Asked, found: Scored, names: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    harmful, harmless = asked.kept
    heads = ["direction of", "fitted to", "layer", *(f"bypass by {name}" for name in found.bypass), "bypass, all", "KL"]
    heads += ["KL, all", "KL passes", *(f"induce x{length:g}" for length in found.induce), "induce x1 passes"]
    yield f"Validation prompts of {asked.name}: {harmful.sum()} of {len(harmful)} harmful and {harmless.sum()} of "
    yield f"{len(harmless)} harmless kept.\n"
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for i, (of, fitted, layer) in enumerate(names):
        kl, first = found.kl[i], next(iter(found.bypass.values()))
        figures = [of, fitted, layer, *(f"{one[i][harmful].mean():.2f}" for one in found.bypass.values())]
        figures += [f"{first[i].mean():.2f}", f"{kl[harmless].mean():.3f}", f"{kl.mean():.3f}"]
        figures += [f"{passing(kl[harmless], 0, MAX_KL):.2f}"]
        figures += [f"{one[i][harmless].mean():.2f}" for one in found.induce.values()]
        figures += [f"{passing(found.induce[1.0][i][harmless], MIN_INDUCE, np.inf):.2f}"]
        yield f"| {' | '.join(map(str, figures))} |"


def nearness(asked: Asked, found: Scored, names: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    yield "\nKL by the log-odds of refusing the harmless prompt by itself (how many prompts):\n"
    yield f"| direction of | fitted to | layer | {' | '.join(f'{low:g} to {high:g}' for low, high in NEARNESS)} |"
    yield "|---" * (3 + len(NEARNESS)) + "|"
    for i, name in enumerate(names):
        inside = [(asked.odds >= low) & (asked.odds < high) for low, high in NEARNESS]
        figures = [f"{found.kl[i][some].mean():.3f} ({some.sum()})" if some.any() else "" for some in inside]
        yield f"| {' | '.join(map(str, (*name, *figures)))} |"


def main() -> None:
    options = _parsed()
    first, *others = options.data
    study = prepared(*options.model, *first, "method=direction").study
    model = study.model
    splits = [study.prompts, *(chosen_settings(settings(*options.model, *data)).dataset.load() for data in others)]
    names_of = [data[0].partition("=")[2] for data in options.data]
    every = [Asked(name, model, split.train, split.validation) for name, split in zip(names_of, splits, strict=True)]
    named = [pair for one in every for pair in one.directions(options.layers)]
    names, vectors = [name for name, _ in named], torch.stack([vector for _, vector in named])
    paper = tuple(_single(model, token) for token in options.tokens)
    for asked in every:
        tokens = {"own tokens": asked.tokens, "--tokens": paper}
        found = scored(model, asked, vectors, [layer for _, _, layer in names], tokens)
        decoded = [model.template.tokenizer.decode([token]) for token in asked.tokens]
        print(f"\nRefusal tokens of {asked.name}: {decoded}; --tokens: {options.tokens}.")
        print("\n".join([*rows(asked, found, names), *nearness(asked, found, names)]))


def _single(model: LoadedModel, token: str) -> int:
    ids: Any = model.template.tokenizer(token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise SystemExit(f"--tokens {token}: this tokenizer splits it into {len(ids)}; give single tokens.")
    return int(ids[0])


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.limits", description=__doc__)
    parser.add_argument("model", nargs="+", help="overrides of the model, such as model=gguf model.path=FILE")
    parser.add_argument(
        "--data", nargs="+", action="append", default=[], help="overrides of a data set, its name first"
    )
    parser.add_argument("--layers", nargs="+", type=int, required=True)
    parser.add_argument("--tokens", nargs="+", default=["I", "As"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
