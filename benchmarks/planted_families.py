"""Whole runs on tiny families whose truth we planted: does the page say what was done to them?

A base and a model tuned from it, six layers each, differ in which axes harmful prompts move along at the input of layer
3, and from which of these refusing is read. Seeds draw other prompts, and noise on all weights. Every run goes through
the methods, the disk and the comparison that real ones go through.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rcm.comparison import compare
from rcm.comparison.rule import BEHAVIOUR, COUPLING, MIXED, REPRESENTATION, UNCHANGED
from rcm.methods import run_in_turn
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_runs
from tests.planted import REFUSAL_AXIS, REFUSE, UNUSED_AXIS, composed, planted_model, planted_prompts, study_of

OLD, NEW = REFUSAL_AXIS, UNUSED_AXIS
LAYER, CATEGORIES, NOISE = 3, 6, 0.01
QUICK = {"max_new_tokens": 3, "kl_prompts": 2, "compared_prompts": 2, "plain_texts": 1, "strengths": [1.0]}


@dataclass(frozen=True)
class Circuit:
    """`written`: how far harmful prompts move along each axis; `read`: how much refusing weighs each."""

    written: Mapping[int, float] = field(default_factory=dict[int, float])
    read: Mapping[int, float] = field(default_factory=dict[int, float])

    def model(self, name: str, seed: int) -> LoadedModel:
        model = planted_model(LAYER)
        draw = torch.Generator().manual_seed(seed)
        refuse = model.template.tokenizer(REFUSE)["input_ids"][0]
        with torch.no_grad():
            for weight in model.hf.parameters():
                weight.add_(NOISE * torch.randn(weight.shape, generator=draw))
            out = model.hf.model.layers[LAYER - 1].self_attn.o_proj.weight
            unembedding = model.hf.get_output_embeddings().weight
            for axis in (OLD, NEW):
                out[axis, 0] = self.written.get(axis, 0.0)
                unembedding[refuse, axis] = self.read.get(axis, 0.0)
        return replace(model, identity={"name": name})


@dataclass(frozen=True)
class Planted:
    """A family, and the word that should be said of it."""

    name: str
    word: str
    base: Circuit
    tuned: Circuit


FAMILIES = (
    Planted("same direction, rewired", COUPLING, Circuit({OLD: 6}), Circuit({OLD: 6}, {OLD: 5})),
    Planted(
        "a new direction beside the old one", REPRESENTATION, Circuit({OLD: 6}), Circuit({OLD: 6, NEW: 6}, {NEW: 5})
    ),
    Planted("a new direction in its place", REPRESENTATION, Circuit({OLD: 6}), Circuit({NEW: 6}, {NEW: 5})),
    Planted("half of each", MIXED, Circuit({OLD: 6}), Circuit({OLD: 6, NEW: 6}, {OLD: 3, NEW: 3})),
    Planted("the base cannot tell", BEHAVIOUR, Circuit(), Circuit({OLD: 6}, {OLD: 5})),
    Planted("nothing changed, both refuse", UNCHANGED, Circuit({OLD: 6}, {OLD: 5}), Circuit({OLD: 6}, {OLD: 5})),
    Planted("benign change, neither refuses", UNCHANGED, Circuit({OLD: 6}), Circuit({OLD: 5, NEW: 2})),
)


def prompts_of(seed: int) -> Split:
    """In six categories, as ours come in twelve."""
    split = planted_prompts(seed, sizes=(48, 24, 48))

    def named(side: Sequence[Prompt]) -> tuple[Prompt, ...]:
        return tuple(prompt._replace(category=str(i % CATEGORIES)) for i, prompt in enumerate(side))

    parts = {name: Part(*map(named, getattr(split, name))) for name in ("train", "validation", "test")}
    return replace(split, **parts)


def word_of(family: Planted, seed: int) -> str:
    """What is concluded of the family from finished runs."""
    models = {
        "base": (family.base.model("base", 2 * seed), "base"),
        "tuned": (family.tuned.model("tuned", 2 * seed + 1), "safety"),
    }
    with TemporaryDirectory() as folder:
        for jobs in (("behaviour", "direction", "steering"), ("transplant",)):
            for name, (model, stage) in models.items():
                _run(Path(folder), name, stage, model, jobs, seed)
        (tuning,) = compare(stored_runs(Path(folder))).tunings
        return tuning.verdict.value


def _run(folder: Path, name: str, stage: str, model: LoadedModel, jobs: Sequence[str], seed: int) -> None:
    given = {"source": str(folder)} if "transplant" in jobs else {}
    settings = QUICK | given if "transplant" not in jobs else {"max_new_tokens": 3, "prompts": 24, **given}
    methods = composed(*jobs, null_directions=19, **settings)
    config = {"model": {"name": name, "family": "planted", "stage": stage}, "method": dict.fromkeys(jobs)}
    when = f"2026-01-0{1 + len(jobs) % 3}"
    run = Run(
        f"{name}-{'-'.join(jobs)}",
        folder / f"{name}-{'-'.join(jobs)}",
        {"model": name, "method": ",".join(jobs)},
        config,
        {"started": when},
    )
    run.directory.mkdir()
    with Store(run) as store:
        for result in run_in_turn(methods, study_of(model, prompts_of(seed), seed)):
            store.save(result)


def words(family: Planted, seeds: int) -> Counter[str]:
    """How often each word was said."""
    return Counter(word_of(family, seed) for seed in range(seeds))
