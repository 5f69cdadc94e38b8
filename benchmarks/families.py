"""Whole runs on tiny families whose truth we planted: is what the page says of them what was done to them?

    python -m benchmarks.families [--seeds 40] [--first 0] [--only NAME ...]

A base and a model tuned from it, six layers each. One attention head writes how much of a trigger a prompt holds along
axes of the residual stream, and what letters it is made of along all of them: so prompts scatter in every direction,
and a direction of shuffled labels is no zero. The models of a family differ in along which axes harmful prompts move,
and from which of these refusing is read. Every seed draws other letters, prompts, and noise on all weights. Runs go
through the methods, the disk and the comparison that real ones go through; only steering is cut to what the verdict
needs.

*Wrong* is a word other than the family's and other than `open`. Of the tuned models it is told besides what `patching`
says: its word, in how many all planted heads were critical (a suppressor against refusing), and in how many a head was
that is none.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rcm.comparison import compare
from rcm.comparison.rule import BEHAVIOUR, COUPLING, MIXED, OPEN, REPRESENTATION, UNCHANGED
from rcm.comparison.verdict import Verdict
from rcm.methods import run_in_turn
from rcm.models import LoadedModel
from rcm.prompts import Part, Prompt, Split, texts
from rcm.record.run import Run
from rcm.record.storage import Store
from rcm.record.stored import stored_runs
from rcm.stats import wilson
from tests.planted import (
    ANSWER,
    CONSTANT_AXIS,
    MAP,
    REFUSAL_AXIS,
    REFUSE,
    TRIGGER,
    TRIGGER_AXIS,
    UNUSED_AXIS,
    composed,
    planted_model,
    study_of,
)

ALPHABET, INNOCENT = "bcdefghij klmno", "z"
OLD, NEW = REFUSAL_AXIS, UNUSED_AXIS
LAYER, WIDTH, HEADS, CATEGORIES = 3, 128, 8, 6
SECOND = (LAYER + 1, 0)  # layer and number of the second head
CONTENT = 4.0  # how strongly the head writes which letters there are
ANSWERS = 19.0  # how much answering weighs what every prompt has; at 15 some harmless prompts are hardly answered
NOISE = 0.002  # on all weights
SIZES = (96, 24, 48)
QUICK = {
    "prompts": 24,
    "max_new_tokens": 3,
    "control_tokens": 3,
    "kl_prompts": 2,
    "compared_prompts": 2,
    "plain_texts": 1,
}


@dataclass(frozen=True)
class Circuit:
    """`written`: how far harmful prompts move along each axis; `read`: how much refusing weighs each; `always`: how
    much it weighs what every prompt has; `second`: how much of the trigger another head writes, two layers on, in
    weights of the first, which sees less normalised input: at 2.5 as much, below zero a suppressor."""

    written: Mapping[int, float] = field(default_factory=dict[int, float])
    read: Mapping[int, float] = field(default_factory=dict[int, float])
    always: float = 0.0
    second: float = 0.0

    @property
    def heads(self) -> dict[tuple[int, int], int]:
        """The planted ones, by layer and number, and whether they write for refusing or against it; none where nothing
        is read of what they write."""
        if not self.read:
            return {}
        return {(LAYER - 1, 0): 1} | ({SECOND: int(np.sign(self.second))} if self.second else {})

    def model(self, name: str, seed: int) -> LoadedModel:
        """Letters and content are those of the seed's family; the noise on weights is that of the name, too."""
        model = planted_model(LAYER, batch_size=64, width=WIDTH, heads=HEADS)
        of_family = torch.Generator().manual_seed(seed)
        of_model = torch.Generator().manual_seed(1000 * seed + sum(map(ord, name)))
        tokenizer = model.template.tokenizer
        token = {text: tokenizer(text)["input_ids"][0] for text in (TRIGGER, INNOCENT, REFUSE, ANSWER)}
        block = model.hf.model.layers[LAYER - 1].self_attn
        values, out = block.v_proj.weight, block.o_proj.weight
        embedding, unembedding = model.hf.get_input_embeddings().weight, model.hf.get_output_embeddings().weight
        content = slice(CONSTANT_AXIS + 2, WIDTH)
        with torch.no_grad():
            embedding[:, content] = torch.randn(embedding[:, content].shape, generator=of_family)
            embedding[token[TRIGGER], content] = embedding[token[INNOCENT], content]
            if not self.written:  # else layers before the head, where all is small, could tell by it
                embedding[token[TRIGGER], TRIGGER_AXIS] = 0.0
            values[1:, content] = torch.randn(WIDTH - 1, WIDTH - content.start, generator=of_family) / WIDTH**0.5
            out[:, 1:] = CONTENT * torch.randn(WIDTH, WIDTH - 1, generator=of_family) / WIDTH**0.5
            out[[TRIGGER_AXIS, CONSTANT_AXIS]] = 0.0
            harmless = texts(prompts_of(seed).train.harmless)
            usual = values[1:] @ _normed(embedding[[one for text in harmless for one in model.template.tokens(text)]])
            for axis in (OLD, NEW):
                # No prompt lies along an axis by itself.
                out[axis, 1:] -= out[axis, 1:] @ usual * usual / usual.square().sum()
                out[axis, 0] = self.written.get(axis, 0.0)
                unembedding[token[REFUSE], axis] = self.read.get(axis, 0.0)
            if self.second:
                other = model.hf.model.layers[SECOND[0]].self_attn
                for projection in (other.q_proj, other.k_proj):
                    projection.weight.zero_()  # it looks everywhere, as the first does
                other.v_proj.weight[0], other.o_proj.weight[:, 0] = values[0], self.second * out[:, 0]
            unembedding[token[REFUSE], CONSTANT_AXIS] = self.always
            unembedding[token[ANSWER], CONSTANT_AXIS] = ANSWERS
            for weight in model.hf.parameters():
                weight.add_(NOISE * torch.randn(weight.shape, generator=of_model))
        return replace(model, identity={"name": name})


def _normed(embeddings: Tensor) -> Tensor:
    """What attention sees on average: after RMSNorm."""
    return (embeddings / embeddings.square().mean(-1, keepdim=True).sqrt()).mean(0)


@dataclass(frozen=True)
class Planted:
    """A family, and the word that should be said of it."""

    name: str
    word: str
    base: Circuit
    tuned: Circuit


FAMILIES = (
    Planted("same direction, rewired", COUPLING, Circuit({OLD: 16}), Circuit({OLD: 16}, {OLD: 8})),
    Planted(
        "a new direction beside the old", REPRESENTATION, Circuit({OLD: 16}), Circuit({OLD: 16, NEW: 16}, {NEW: 8})
    ),
    Planted("a new direction in its place", REPRESENTATION, Circuit({OLD: 16}), Circuit({NEW: 16}, {NEW: 8})),
    Planted("half of each", MIXED, Circuit({OLD: 16}), Circuit({OLD: 16, NEW: 16}, {OLD: 5, NEW: 5})),
    Planted(
        "two heads, either enough", COUPLING, Circuit({OLD: 16}, second=2.5), Circuit({OLD: 16}, {OLD: 8}, second=2.5)
    ),
    Planted("a suppressor", COUPLING, Circuit({OLD: 16}), Circuit({OLD: 16}, {OLD: 8}, second=-0.4)),
    Planted("the base cannot tell", BEHAVIOUR, Circuit(), Circuit({OLD: 16}, {OLD: 8})),
    Planted("nothing changed, both refuse", UNCHANGED, Circuit({OLD: 16}, {OLD: 8}), Circuit({OLD: 16}, {OLD: 8})),
    Planted("benign change, neither refuses", UNCHANGED, Circuit({OLD: 16}), Circuit({OLD: 13, NEW: 6})),
    Planted("tuned refuses everything", OPEN, Circuit({OLD: 16}), Circuit({OLD: 16}, {}, always=30.0)),
)


def prompts_of(seed: int) -> Split:
    """Words of random letters, a third of them triggers in the harmful ones, and in the harmless ones as many of a
    letter that is as a trigger in all but what makes it one. In six categories, as ours come in twelve."""
    draw = Random(seed)

    def prompt(i: int, third: str) -> Prompt:
        letters = draw.choices(ALPHABET, k=draw.randint(9, 15))
        text = "b" + "".join(third if k % 3 == 0 else letter for k, letter in enumerate(letters)) + "b"
        return Prompt(text, str(i % CATEGORIES))

    def part(n: int) -> Part:
        return Part(*(tuple(prompt(i, third) for i in range(n)) for third in (TRIGGER, INNOCENT)))

    return Split(*map(part, SIZES), template="chat", paired=False)


class Said(NamedTuple):
    """What is concluded of a family, and of the heads of its tuned model: in a word, whether all planted ones are
    critical, and whether another one is."""

    verdict: Verdict
    heads: str
    found: bool
    others: bool


def said_of(family: Planted, seed: int) -> Said:
    """What is concluded of the family from finished runs."""
    models = {"base": (family.base, "base"), "tuned": (family.tuned, "safety")}
    with TemporaryDirectory() as folder:
        for jobs, names in ((MAP, ("base", "tuned")), (("transplant",), ("tuned",))):
            for name in names:
                circuit, stage = models[name]
                _run(Path(folder), name, stage, circuit.model(name, seed), jobs, seed)
        (tuning,) = compare(stored_runs(Path(folder))).tunings
        critical = {
            (row["layer"], row["head"]): int(np.sign(row["share"]))
            for row in tuning.after.rows("patching/heads")
            if row["critical"]
        }
        outcome = tuning.after.outcome("patching/outcome")
        planted = family.tuned.heads
        return Said(
            tuning.verdict,
            outcome.value if outcome else "",
            planted.items() <= critical.items(),
            not critical.keys() <= planted.keys(),
        )


def _run(folder: Path, name: str, stage: str, model: LoadedModel, jobs: Sequence[str], seed: int) -> None:
    steered: dict[str, Any] = QUICK | {"strengths": [1.0], "curve_controls": 1, "random_sets": 40, "effect_prompts": 8}
    brought: dict[str, Any] = {"max_new_tokens": 3, "prompts": 8, "source": str(folder)}
    methods = composed(*jobs, null_directions=19, **(brought if "transplant" in jobs else steered))
    config = {"model": {"name": name, "family": "planted", "stage": stage}, "method": dict.fromkeys(jobs)}
    identity = f"{name}-{'-'.join(jobs)}"
    started = {"started": f"2026-01-0{1 + len(jobs) % 3}"}
    run = Run(identity, folder / identity, {"model": name, "method": ",".join(jobs)}, config, started)
    run.directory.mkdir()
    with Store(run) as store:
        for result in run_in_turn(methods, study_of(model, prompts_of(seed), seed)):
            store.save(result)


def _counted(words: Counter[str]) -> str:
    return ", ".join(f"{word} {n}" for word, n in words.most_common())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="families of each kind")
    parser.add_argument("--only", nargs="+", default=[one.name for one in FAMILIES], help="names of families")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for family in (one for one in FAMILIES if one.name in given.only):
        started = time.perf_counter()
        said = [said_of(family, seed) for seed in range(given.first, given.first + given.seeds)]
        verdicts = [one.verdict for one in said]
        words = Counter(one.value for one in verdicts)
        wrong = given.seeds - words[family.word] - words[OPEN] * (family.word != OPEN)
        low, high = wilson(wrong, given.seeds)
        seconds = time.perf_counter() - started
        print(
            f"{family.name:36}{family.word:16}{_counted(words):40} wrong {wrong / given.seeds:.1%} "
            f"[{low:.1%}, {high:.1%}], {seconds:.0f} s",
            flush=True,
        )
        heads = Counter(one.heads for one in said)
        found, others = sum(one.found for one in said), sum(one.others for one in said)
        print(f"    heads: {_counted(heads)}; all planted ones critical {found}, others {others}", flush=True)
        why = Counter(one.evidence[0] for one in verdicts if one.value != family.word)
        for sentence, n in why.most_common(3):
            print(f"    {n} x {sentence}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
