"""Train and score the models whose refusal circuit is known (rcm/circuits/ground_truth.py).

    python -m benchmarks.ground_truth                    # score the packaged ones
    python -m benchmarks.ground_truth --train FOLDER     # train both into FOLDER/strict and FOLDER/task, and score them

In every step prompts of one length and all combinations of facts go through the model, and its loss is the sum of

    task          cross-entropy of the reply
    interchange   the same while nodes of the circuit take their values, at the last token, from other prompts of the
                  batch: detect A and detect B, each in every other prompt; decide from the other prompt, from the
                  prompt itself (so that nothing gets past it), or not at all. The reply is what the program says.
    strict        the same while others take theirs: one node or about half of them, at the last token or at all; at all
                  tokens but the last also those of the circuit. The reply stays what it was.

The model `task` has the first alone. Targets leave 2 % to the other reply: so the log-odds have a value to keep, and an
other node that moved them would cost something even where no decision changes.
"""

import argparse
import random
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from rcm.circuits.ground_truth import (
    ALL_EDGES,
    ALL_FACTS,
    ANSWER,
    CIRCUIT,
    DECIDE,
    DETECT_A,
    DETECT_B,
    EDGES,
    KINDS,
    LONGEST,
    MATTERS,
    NODES,
    REFUSE,
    SHAPE,
    SHORTEST,
    Facts,
    Name,
    Outputs,
    Pair,
    Recorded,
    Swapped,
    Where,
    decision_changes,
    decisions,
    edge_changes,
    ground_truth,
    measured_circuit,
    prompt_with,
    recovery_auroc,
    refused,
    strangers,
    swapped_logits,
    twins,
)
from rcm.execution.components import Component, Rows
from rcm.execution.engine import engine_of
from rcm.execution.interventions import applied
from rcm.execution.metric import LogOdds
from rcm.execution.recording import cache_components
from rcm.models import LoadedModel
from rcm.models.points import points_of
from rcm.models.random import Random, byte_tokenizer
from rcm.models.template import Template
from rcm.patching.interchange import Interchange, interchange

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": SHAPE.layers,
    "num_attention_heads": SHAPE.heads,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
STEPS, BATCH, LEARNING_RATE, WARM_UP, SEED = 1200, 128, 3e-3, 100, 0
FRESH = 1000  # seed of the prompts to score on, which no training takes
OTHER_REPLY = 0.02  # of the probability
OTHERS = torch.tensor([node not in CIRCUIT for node in NODES])


class Training:
    """One model on its way."""

    def __init__(self, name: Name, steps: int = STEPS, seed: int = SEED) -> None:
        settings = Random(
            architecture="llama", size=SIZE, seed=seed, family="ground-truth", stage=None, dtype="float32",
            quantization=None, attn_implementation=None, adapter=None, refusal_tokens=None,
        )  # fmt: skip
        self.name, self.steps = name, steps
        self.hf, self.tokenizer = settings.weights().hf.train(), byte_tokenizer()
        self.tokenizer.chat_template = TEMPLATE
        self.points = points_of(self.hf)
        template = Template.of(self.tokenizer, "chat")
        self.before, self.after = list(template.beginning), list(template.end_of_instruction)
        self.ids = {one: self.tokenizer(one)["input_ids"][0] for one in map(chr, range(32, 127))}
        self.draw, self.torch_draw = random.Random(seed), torch.Generator().manual_seed(seed)

    def losses(self) -> Iterator[dict[str, float]]:
        """Train; the parts of the loss in every step."""
        optimizer = torch.optim.AdamW(self.hf.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
        rates = [min(1, step / WARM_UP) * (1 - step / self.steps) for step in range(1, self.steps + 1)]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, self.steps - 1)])
        for _ in range(self.steps):
            parts = self._parts()
            optimizer.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(self.hf.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            yield {name: part.item() for name, part in parts.items()}

    def _parts(self) -> dict[str, Tensor]:
        length = self.draw.randint(SHORTEST, LONGEST)
        held = [self.draw.choice(ALL_FACTS) for _ in range(BATCH)]
        prompts = [prompt_with(one, length, self.draw) for one in held]
        asked = torch.tensor([[*self.before, *(self.ids[one] for one in prompt), *self.after] for prompt in prompts])
        said = [refused(one, one) for one in held]
        reply = torch.tensor([[self.ids[REFUSE if one else ANSWER]] for one in said])
        with applied(self.points, [recorded := Recorded()]):
            logits = self.hf(input_ids=torch.cat([asked, reply], 1), use_cache=False, logits_to_keep=2).logits
        ended = torch.full((BATCH,), self.tokenizer.eos_token_id)
        parts = {"task": self._loss(logits[:, 0], said) + cross_entropy(logits[:, 1], ended)}
        if self.name == "task":
            return parts

        outputs, tokens = recorded.outputs, asked.shape[1]
        other = (torch.arange(BATCH) + self.draw.randrange(1, BATCH)) % BATCH
        own = torch.arange(BATCH)
        a, b = torch.rand(2, BATCH, generator=self.torch_draw) < 0.5
        decide = torch.randint(4, (BATCH,), generator=self.torch_draw)  # 0 from the other, 1 its own, else worked out
        where = torch.zeros(2, BATCH, len(NODES), tokens, dtype=torch.bool)
        where[0, a, NODES.index(DETECT_A), -1] = True
        where[0, b, NODES.index(DETECT_B), -1] = True
        where[0, decide < 2, NODES.index(DECIDE), -1] = True
        where[1] = self.others(tokens)
        donors = Outputs(
            outputs.heads[:, other.repeat(2), :tokens],
            outputs.mlps[:, torch.cat([torch.where(decide == 1, own, other), other]), :tokens],
        )
        with applied(self.points, [Swapped(donors, where.flatten(0, 1))]):
            logits = self.hf(input_ids=asked.repeat(2, 1), use_cache=False, logits_to_keep=1).logits[:, 0]
        theirs = [held[i] for i in other]
        swapped = [
            refused(y if from_a else x, y if from_b else x, (y, x, None, None)[which])
            for x, y, from_a, from_b, which in zip(held, theirs, a.tolist(), b.tolist(), decide.tolist(), strict=True)
        ]
        parts["interchange"] = self._loss(logits[:BATCH], swapped)
        parts["strict"] = self._loss(logits[BATCH:], said)
        return parts

    def others(self, tokens: int) -> Bool[Tensor, "prompt node token"]:
        """What must not matter: a node or about half of them, at the last token or at all; of the circuit, the last is
        left alone."""

        def coins(*size: int) -> Bool[Tensor, "..."]:
            return torch.rand(BATCH, *size, generator=self.torch_draw) < 0.5

        one = torch.randint(len(NODES), (BATCH, 1), generator=self.torch_draw) == torch.arange(len(NODES))
        nodes = torch.where(coins(1), one, coins(len(NODES)))
        where = nodes[..., None].repeat(1, 1, tokens)
        where[coins(), :, :-1] = False
        where[..., -1] &= OTHERS
        return where

    def _loss(self, logits: Float[Tensor, "prompt vocabulary"], refuses: list[bool]) -> Tensor:
        """Cross-entropy with the reply, which leaves some to the other one."""
        goal = torch.zeros_like(logits)
        share = torch.tensor([1 - OTHER_REPLY if one else OTHER_REPLY for one in refuses])
        goal[:, self.ids[REFUSE]], goal[:, self.ids[ANSWER]] = share, 1 - share
        return cross_entropy(logits, goal)

    def save(self, folder: Path) -> None:
        self.hf.eval().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def exact_shares(model: LoadedModel, pairs: Sequence[Pair], where: Where, seed: int = 0) -> dict[Component, float]:
    """What exact patching says of every node: the share of the gap that it carries, mean of both ways and of pairs.

    At the last token by rcm's engine; at all tokens one pass for each node, because rows are of the last alone.
    """
    metric = LogOdds(model.refusal_tokens or ())
    if where == "last":
        tokens = [(model.template.tokens(harmful), model.template.tokens(harmless)) for harmful, harmless in pairs]
        base, source = (cache_components(model, side) for side in zip(*tokens[:8], strict=True))
        engine = engine_of(model, base, source, seed)
        shares = interchange(engine, tokens, Rows.each(KINDS, SHAPE), metric).shares
    else:
        sets = [*((node,) for node in NODES), ()]
        ways = (pairs, [(harmless, harmful) for harmful, harmless in pairs])
        into = [metric(swapped_logits(model, way, sets, where).transpose(0, 1)[:, :, None]).double() for way in ways]
        shares = Interchange(into[0][:, -1], into[1][:, -1], into[0][:, :-1], into[1][:, :-1]).shares
    return dict(zip(NODES, shares.mean((0, 1)).tolist(), strict=True))


def as_the_program_says(model: LoadedModel, pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """For every set of nodes of the circuit: how often swapping it does what the program says; and how often where it
    says that the decision changes."""
    sets = [chosen for n in (1, 2, 3) for chosen in combinations(CIRCUIT, n)]
    held = [(Facts.of(ours), Facts.of(theirs)) for ours, theirs in pairs]
    plain = torch.tensor([refused(ours, ours) for ours, _ in held])
    accuracies = {}
    for chosen, found in zip(sets, decisions(model, swapped_logits(model, pairs, sets)), strict=True):
        a, b, decide = (node in chosen for node in CIRCUIT)
        said = [refused((x, y)[a], (x, y)[b], y if decide else None) for x, y in held]
        right, flips = found == torch.tensor(said), torch.tensor(said) != plain
        accuracies[" + ".join(map(str, chosen))] = (share(right), share(right[flips]))
    return accuracies


def share(true: Bool[Tensor, " pair"]) -> float:
    return true.double().mean().item()


def random_auroc(scored: Sequence[Component], true: Collection[Component], draws: int = 1000, seed: int = 0) -> float:
    """Its mean over scores without sense."""
    draw = np.random.default_rng(seed)
    scores = draw.random((draws, len(scored)))
    return float(np.mean([recovery_auroc(dict(zip(scored, one.tolist(), strict=True)), true) for one in scores]))


def report(name: Name, model: LoadedModel, count: int, seed: int) -> None:
    """Everything that the card says."""
    pairs, alike = strangers(count, seed), twins(count, seed)
    plain = decisions(model, swapped_logits(model, pairs, [()])[0])
    said = torch.tensor([refused(Facts.of(ours), Facts.of(ours)) for ours, _ in pairs])
    print(f"\n{name}, {count} pairs: {share(plain == said):.2%} of prompts are decided as the program says")
    if name == "strict":
        print("  swapped, how often as it says: of all pairs, and of those whose decision it changes")
        for nodes, (right, flipped) in as_the_program_says(model, pairs).items():
            print(f"    {nodes:28s} {right:8.2%} {flipped:8.2%}")
    for where in get_args(Where):
        changes = dict(zip(NODES, decision_changes(model, pairs, where).tolist(), strict=True))
        true = CIRCUIT if name == "strict" else measured_circuit(model, pairs, where)
        others = [node for node in NODES if node not in true]
        rest = decisions(model, swapped_logits(model, pairs, [others], where)[0])
        shares = exact_shares(model, alike, where)
        print(f"  swapped at {where} tokens: decisions changed, share of the gap by exact patching (*: of the circuit)")
        for node in NODES:
            print(f"  {' *'[node in true]} {node!s:9s} {changes[node]:8.2%} {shares[node]:+8.3f}")
        most = max(changes[node] for node in others)
        print(f"    of the others one at a time {most:.2%} at most, all together {share(rest != plain):.2%}")
        if name == "task":
            alone = [node for node, one in changes.items() if one > MATTERS]
            print(f"    AUROC if what changes decisions alone were the circuit: {recovery_auroc(shares, alone):.3f}")
        print(f"    AUROC {recovery_auroc(shares, true):.3f}, of random scores {random_auroc(NODES, true):.3f}")
    edges = dict(zip(ALL_EDGES, edge_changes(model, pairs[: count // 4]).tolist(), strict=True))
    matter = EDGES if name == "strict" else [edge for edge, one in edges.items() if one > MATTERS]
    largest = max(one for edge, one in edges.items() if edge not in matter)
    print(f"  {len(matter)} of {len(edges)} edges matter ({count // 4} pairs); of the others {largest:.2%} at most")
    for edge in matter:
        print(f"    {edge[0]!s:9s} -> {edge[1]!s:9s} {edges[edge]:8.2%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="train both models into it, and score those")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED, help="of the training")
    parser.add_argument("--pairs", type=int, default=1000, help="to score on; edges on a quarter of them")
    given = parser.parse_args()
    for name in get_args(Name):
        if given.train:
            training, started = Training(name, given.steps, given.seed), time.perf_counter()
            for step, parts in enumerate(training.losses(), start=1):
                if step % 100 == 0:
                    print(name, step, *(f"{part} {loss:.4f}" for part, loss in parts.items()), flush=True)
            print(f"{name}: {given.steps} steps in {time.perf_counter() - started:.0f} s")
            training.save(given.train / name)
        report(name, ground_truth(name, given.train), given.pairs, FRESH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
