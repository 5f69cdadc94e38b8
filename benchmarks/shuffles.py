"""How often do labels without meaning stand out? python -m benchmarks.shuffles [--model NAME] [--shuffles 1000]

The activations of a real model on our prompts are recorded once. Then labels are drawn anew in training, validation and
test prompts, as often as asked, and every time the methods' own functions pick the most separable layer and say whether
what is readable there lies above its null. That should be so in 5 % of shuffles. *readable* besides needs to be above
what words and length tell.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import rcm.running.identity  # noqa: F401 (registers the resolver that the config names its directory with)
from rcm.directions.confounds import Readers
from rcm.directions.fit import correct, mean_difference, probe
from rcm.directions.held_out import Place, clusters, held_out_auroc, held_out_separation, probe_accuracies_of_null
from rcm.execution.passes import read_residuals
from rcm.prompts import Part, texts
from rcm.record.results import SHUFFLED_LABELS, Null
from rcm.stats import wilson
from rcm.stats.separability import separation

OVERRIDES = ["dataset.train=96", "dataset.validation=48", "dataset.test=96"]
Sides = tuple[np.ndarray, np.ndarray]  # activations [prompt, layer, d_model] of both classes


def recorded(name: str) -> tuple[list[Part], list[Sides]]:
    """The prompts of every part, and their activations at the last token."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[f"model={name}", *OVERRIDES])
    split = instantiate(cfg.dataset, _convert_="all").load()
    model = instantiate(cfg.model, _convert_="all").load(torch.device("cpu"), split.template, 32)
    parts = [split.train, split.validation, split.test]
    seen = [[read_residuals(model, texts(side), [-1], "activations") for side in part] for part in parts]
    return parts, [(harmful.residuals[:, 0].numpy(), harmless.residuals[:, 0].numpy()) for harmful, harmless in seen]


def shuffled(part: Part, sides: Sides, draw: np.random.Generator) -> tuple[Part, Sides]:
    """The same prompts and activations under labels that tell nothing."""
    prompts, pooled, n = [*part.harmful, *part.harmless], np.concatenate(sides), len(part.harmful)
    order = draw.permutation(len(prompts))
    return (
        Part(*(tuple(prompts[i] for i in side) for side in (order[:n], order[n:]))),
        (pooled[order[:n]], pooled[order[n:]]),
    )


def said(parts: list[Part], sides: list[Sides], draws: int, seed: int) -> dict[str, bool]:
    """What stands out at the most separable layer."""
    train, validation, test = sides
    apart = []
    for layer in range(train[0].shape[1]):
        vector = mean_difference(train[0][:, layer], train[1][:, layer])
        apart.append(separation(*(side[:, layer].astype(float) @ vector for side in validation)) if vector.any() else 0)
    layer = int(np.argmax(apart))
    place = Place(*((one[0][:, layer], one[1][:, layer]) for one in (train, test)))
    categories = clusters(parts[2])
    above = {}
    for name, figure in (
        ("separation", held_out_separation(place, categories, draws, seed)),
        ("AUROC", held_out_auroc(place, categories, draws, seed)),
    ):
        above[name] = figure.null is not None and figure.value > figure.null.value
    accuracy = float(correct(probe(*place.train), *place.test).mean())
    null = Null.of_draws(probe_accuracies_of_null(place, draws, seed), SHUFFLED_LABELS, figure=accuracy)
    above["probe accuracy"] = null is not None and accuracy > null.value
    above["readable"] = above["probe accuracy"] and (
        Readers.of(place, parts[0], parts[2], categories).conclusion(null).value == "readable"
    )
    return above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-refusal")
    parser.add_argument("--shuffles", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=100, help="behind each null")
    given = parser.parse_args()
    parts, sides = recorded(given.model)
    print("true labels:", said(parts, sides, given.draws, 0), flush=True)
    started, found = time.perf_counter(), Counter[str]()
    for seed in range(given.shuffles):
        draw = np.random.default_rng(seed)
        drawn = [shuffled(part, of, draw) for part, of in zip(parts, sides, strict=True)]
        above = said([part for part, _ in drawn], [of for _, of in drawn], given.draws, seed)
        found.update(name for name, one in above.items() if one)
        found.update(dict.fromkeys(above, 0))
    for name, n in found.items():
        low, high = wilson(n, given.shuffles)
        print(f"{given.model}: {name} above its null in {n / given.shuffles:.1%} [{low:.1%}, {high:.1%}]")
    print(f"{given.shuffles} shuffles, {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
