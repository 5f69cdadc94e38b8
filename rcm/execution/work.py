"""How much work passes are, counted before there is a model to make them.

What a method will ask of a model is known from its settings, the lengths of the prompts and the model's shape, long
before weights load. Each function here counts what one of this room's does, in the same batches:

    looked_at       rcm.execution.passes: every prompt once
    decoded         rcm.execution.decoding: greedy replies, a row for each prompt and intervention
    added, ablated  rcm.execution.first_token: every prompt under many interventions
    diverged        rcm.execution.likelihood.kl_divergences
    predicted       rcm.execution.likelihood.cross_entropies
    recorded        rcm.execution.recording: one pass that keeps what patching needs
    patched         rcm.execution.rows: every component set in one pass
    compared        rcm.execution.engine: rows beside the slow loop

It is assumed that prompts may share what they begin with, that rows of one prompt are one up to the intervention, and
that patching goes by rows, as it does in nearly every model (`rcm.execution.self_checks` finds out); that replies are
as long as they may be; and that a direction lies in the middle of the layers. So what is counted is more than what is
done where replies end early.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

from rcm.execution.batches import LONGER
from rcm.execution.engine import CHECKED, TOKENS_PER_PROMPT
from rcm.execution.first_token import LIKE, MORE
from rcm.execution.recording import WORTH_SHARING
from rcm.models.points import points_of
from rcm.models.template import Template
from rcm.prompts import Part, Prompt, Split

MIDDLE = 0.5  # of the layers: where a direction that is still to be found is taken to lie
Entries = Float[np.ndarray, " row"]  # the share of the layers below the one at which a row enters
PairLengths = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Work:
    """What one part of a method asks of the model, and of the machine.

    `rows`: prompts under an intervention. `passes`: calls of the model, each of which reads all weights. `tokens`: that
    go forward through all layers, padding among them; one that enters halfway counts half. `generated`: further ones,
    one at a time; `context`: tokens that these look back on. `logits`: tokens of which those are computed, as many
    products as the vocabulary. `gradients`: tokens that go forward and back, with a graph in memory. `fitted`: numbers
    that probes are fitted to, on the CPU. `held`: bytes that lie beside the weights meanwhile. `least`: the share of it
    that a model which refuses certainly asks for; the rest depends on what is found. `largest`: the passes with most
    tokens and with most logits, which memory is needed for.
    """

    name: str
    rows: int = 0
    passes: int = 0
    tokens: float = 0.0
    generated: int = 0
    context: int = 0
    logits: int = 0
    gradients: float = 0.0
    fitted: int = 0
    held: int = 0
    least: float = 1.0
    largest: "tuple[Pass, ...]" = ()

    def times(self, n: int) -> "Work":
        """The same so many times, one after the other."""
        counts = {name: n * getattr(self, name) for name in COUNTS}
        return Work(self.name, **counts, held=self.held, least=self.least, largest=self.largest)


class Pass(NamedTuple):
    """One call of the model: rows of so many tokens, with logits at the last `keep` of each."""

    rows: int
    tokens: int
    keep: int = 1


COUNTS = tuple(one.name for one in fields(Work) if one.name not in ("name", "held", "least", "largest"))


NOTHING = Work("")


def together(name: str, parts: Iterable[Work], *, held: int = 0, least: float = 1.0) -> Work:
    """One after the other: counts add up, of the bytes the most counts."""
    listed = list(parts)
    # From its own zero on, since a sum of no floats is no float.
    counts = {one: sum((getattr(part, one) for part in listed), getattr(NOTHING, one)) for one in COUNTS}
    passes = [one for part in listed for one in part.largest]
    largest = tuple(max(passes, key=size) for size in (_tokens, _logits)) if passes else ()
    return Work(name, **counts, held=max([held, *(part.held for part in listed)]), least=least, largest=largest)


def _tokens(one: Pass) -> int:
    return one.rows * one.tokens


def _logits(one: Pass) -> int:
    return one.rows * one.keep


class Row(NamedTuple):
    """A prompt, by its number and its length in tokens, under one intervention, by its number."""

    length: int
    prompt: int
    variant: int


@dataclass(frozen=True)
class Scope:
    """What is known of a run before weights load. `neurons`: of each layer; `kv_bytes`: of the keys
    and values of a token in all layers; `batch_size`: prompts that go through the
    model at once; `on_cpu`: whether they go through a CPU. `positions`: at how many tokens of the end of the
    instruction directions are sought; `controls`: how many of each kind a direction brings along."""

    layers: int
    heads: int
    d_model: int
    vocabulary: int
    neurons: int
    kv_bytes: int
    prompts: Split
    template: Template
    batch_size: int
    on_cpu: bool
    positions: int
    controls: int
    _tokens: dict[str, list[int]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        hf: PreTrainedModel,
        prompts: Split,
        template: Template,
        *,
        batch_size: int,
        on_cpu: bool,
        positions: int | None = None,
        controls: int = 0,
    ) -> "Scope":
        """`hf`: the model, or its skeleton. `positions`: None is every end-of-instruction token."""
        config, points = hf.config.get_text_config(), points_of(hf)
        heads, width = int(config.num_attention_heads), int(config.hidden_size)
        of_head = int(getattr(config, "head_dim", None) or width // heads)
        kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        return cls(
            layers=len(points.layers),
            heads=heads,
            d_model=width,
            vocabulary=int(config.vocab_size),
            neurons=max(points.neurons, default=0) or 4 * width,  # as in a layer of experts, of which nobody knows
            kv_bytes=2 * len(points.layers) * kv_heads * of_head * hf.dtype.itemsize,
            prompts=prompts,
            template=template,
            batch_size=batch_size,
            on_cpu=on_cpu,
            positions=len(template.end_of_instruction) if positions is None else positions,
            controls=controls,
        )

    @cached_property
    def beginning(self) -> int:
        """Tokens that every prompt begins with."""
        return len(self.template.beginning)

    @cached_property
    def ending(self) -> int:
        """Tokens that every instruction ends in."""
        return len(self.template.end_of_instruction)

    def tokens(self, prompt: Prompt) -> list[int]:
        """Of a prompt, with the template's."""
        if prompt.text not in self._tokens:
            self._tokens[prompt.text] = self.template.tokens(prompt.text)
        return self._tokens[prompt.text]

    def lengths(self, prompts: Iterable[Prompt]) -> list[int]:
        """Of prompts, in tokens, with the template's."""
        return [len(self.tokens(prompt)) for prompt in prompts]

    def pairs(self, part: Part, n: int | None = None) -> list[tuple[int, int]]:
        """Lengths of the two of each pair: of twins where there are some, else of prompts of like length."""
        harmful, harmless = (self.lengths(side) for side in part)
        if not self.prompts.paired:
            harmful, harmless = sorted(harmful), sorted(harmless)
        return list(zip(harmful, harmless, strict=False))[:n]

    def rows_at_once(self, longer: int = LONGER) -> int:
        """As `rcm.execution.passes.rows_at_once`."""
        return self.batch_size * (longer if self.on_cpu else 1)

    def prompts_at_once(self, tokens: int) -> int:
        """As `rcm.execution.engine.Engine.prompts_at_once`."""
        return max(1, TOKENS_PER_PROMPT * self.batch_size // max(1, tokens))

    @property
    def nodes(self) -> int:
        """Heads and MLPs."""
        return self.layers * (self.heads + 1)

    def entries(self, per_layer: int) -> Entries:
        """Of rows that each begin in one layer, as many in each."""
        return np.repeat(np.arange(self.layers) / self.layers, per_layer)


def _read(
    scope: Scope, rows: Sequence[Row], below: float = 0.0, keep: int = 1, share: bool = True, begun: bool = False
) -> Work:
    """One pass of `rcm.execution.shared_prefix.read`. `below`: the share of the layers below the interventions."""
    prompts, variants = len({row.prompt for row in rows}), len({row.variant for row in rows})
    shared = scope.beginning if share and variants < len(rows) else 0
    longest = max(row.length for row in rows) - shared
    tokens = longest * (below * prompts + (1 - below) * len(rows))
    beginning = shared * (below + (1 - below) * variants) if shared and not begun else 0.0
    passes, logits = (2, len(rows) * keep + variants) if beginning else (1, len(rows) * keep)
    largest = (Pass(len(rows), max(row.length for row in rows), keep),)
    return Work("", rows=len(rows), passes=passes, tokens=tokens + beginning, logits=logits, largest=largest)


def _batches(items: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    ordered = sorted(items)
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def asked_once(lengths: Sequence[int]) -> list[Row]:
    """A row for each prompt, under nothing or one intervention for all."""
    return [Row(length, i, 0) for i, length in enumerate(lengths)]


def crossed(lengths: Sequence[int], variants: int) -> list[Row]:
    """A row for each prompt under each of so many interventions."""
    return [Row(length, i, variant) for i, length in enumerate(lengths) for variant in range(variants)]


def looked_at(scope: Scope, name: str, lengths: Sequence[int], held: int = 0) -> Work:
    """Every prompt once, in batches of like length."""
    batches = _batches(asked_once(lengths), scope.batch_size)
    return together(name, (_read(scope, some) for some in batches), held=held)


def decoded(scope: Scope, name: str, rows: Sequence[Row], tokens: int, below: float = 0.0, least: float = 1.0) -> Work:
    """Replies of so many tokens to every row."""
    parts = list[Work]()
    for some in _batches(rows, scope.rows_at_once()):
        n, steps, longest = len(some), tokens - 1, max(row.length for row in some)
        parts.append(_read(scope, some, below))
        context = n * (steps * longest + steps * (steps + 1) // 2)
        held = n * steps * scope.kv_bytes  # beside what the prompts themselves leave
        parts.append(Work("", passes=steps, generated=n * steps, context=context, logits=n * steps, held=held))
    return together(name, parts, least=least)


def added(scope: Scope, name: str, lengths: Sequence[int], entries: Entries) -> Work:
    """A figure of every prompt under each of some vectors, each of which is added at the layer where it enters."""
    ordered, parts = np.sort(entries), list[Work]()
    if not len(lengths) or not len(ordered):
        return Work(name)
    _, counts = np.unique(ordered, return_counts=True)
    at_once = _variants_at_once(scope, lengths, max(4, 2 * int(counts.max())))
    for start in range(0, len(ordered), at_once):
        some = ordered[start : start + at_once]
        parts.append(_variants(scope, lengths, len(some), float(some[0])))
    return together(name, parts)


def ablated(scope: Scope, name: str, lengths: Sequence[int], directions: int, least: float = 1.0) -> Work:
    """A figure of every prompt with each of some directions ablated everywhere."""
    if not len(lengths) or not directions:
        return Work(name)
    at_once = _variants_at_once(scope, lengths, directions)
    parts = [
        _variants(scope, lengths, min(at_once, directions - start), 0.0) for start in range(0, directions, at_once)
    ]
    return together(name, parts, least=least)


def _variants_at_once(scope: Scope, lengths: Sequence[int], of: int) -> int:
    return max(1, min(of, scope.rows_at_once(MORE) // max(1, min(LIKE, len(lengths)))))


def _variants(scope: Scope, lengths: Sequence[int], variants: int, below: float) -> Work:
    """Those that go through the model together, with all prompts; the beginning is read once for them all."""
    at_once = max(1, scope.rows_at_once(MORE) // variants)
    prompts = sorted(lengths)
    parts = [
        _read(scope, crossed(prompts[start : start + at_once], variants), below, begun=True)
        for start in range(0, len(prompts), at_once)
    ]
    shared = scope.beginning * (below + (1 - below) * variants)
    parts.append(Work("", passes=1, tokens=shared, logits=variants))
    return together("", parts)


def diverged(
    scope: Scope, name: str, lengths: Sequence[int], said: int, conditions: int, below: float = 0.0, least: float = 1.0
) -> Work:
    """KL of each condition to the unsteered model, over the `said` tokens that prompts were continued with."""
    of, size, parts = conditions + 1, scope.batch_size, list[Work]()
    at_once = max(1, min(of, size) - 1)
    texts = max(1, size // (at_once + 1))
    for first in range(0, len(lengths), texts):
        some = lengths[first : first + texts]
        for column in range(1, of, at_once):
            columns = min(at_once, of - column)
            rows = crossed([length + said for length in some], columns + 1)
            parts.append(_read(scope, rows, below, keep=said + 1))
    return together(name, parts, least=least)


def predicted(scope: Scope, name: str, lengths: Sequence[int], conditions: int, below: float = 0.0) -> Work:
    """The loss of plain texts under each condition and none."""
    rows, size, parts = crossed(lengths, conditions + 1), scope.batch_size, list[Work]()
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        parts.append(_read(scope, some, below, keep=max(row.length for row in some), share=False))
    return together(name, parts)


def recorded(scope: Scope, lengths: Sequence[int], tail: int = 1) -> Work:
    """One pass over prompts that keeps what patching needs."""
    beginning = min(scope.beginning, min(lengths) - tail)
    beginning = beginning if beginning * (len(lengths) - 1) > WORTH_SHARING else 0
    tokens = beginning + len(lengths) * (max(lengths) - beginning)
    passes, logits = (2, 1 + len(lengths)) if beginning else (1, len(lengths))
    # Keys and values of every token; of the last ones what heads, attention and MLPs put out, and the stream.
    held = len(lengths) * (max(lengths) * scope.kv_bytes + 4 * tail * scope.layers * scope.d_model * 4)
    largest = (Pass(len(lengths), max(lengths)),)
    return Work("", len(lengths), passes, float(tokens), logits=logits, held=held, largest=largest)


def patched(scope: Scope, prompts: int, entries: Entries, tail: int = 1, keep: int = 1) -> Work:
    """Rows of some prompts, patched at the first of the last `tail` tokens."""
    at_once, ordered = scope.prompts_at_once(prompts * tail), np.sort(entries)
    starts = np.arange(0, len(ordered), at_once)
    layers = float(len(ordered) - ordered.sum() + ordered[starts].sum())  # the first of a pass enters at once
    rows = prompts * len(ordered)
    largest = (Pass(prompts * min(at_once, len(ordered)), tail, keep),)
    return Work("", rows, len(starts), layers * prompts * tail, logits=rows * keep, largest=largest)


def interchanged(
    scope: Scope,
    name: str,
    pairs: PairLengths,
    entries: Entries,
    *,
    tail: int = 1,
    keep: int = 1,
    both: bool = True,
    least: float = 1.0,
) -> Work:
    """Every row in every pair: in both of its prompts, or in the harmful one alone (`rcm.circuits.ablation`)."""
    rows = np.append(entries, (scope.layers - 1) / scope.layers) if both else entries
    sides, parts = 2 if both else 1, list[Work]()
    at_once = scope.prompts_at_once(sides * len(rows) * tail)
    ordered = sorted(pairs, key=max)
    for start in range(0, len(ordered), at_once):
        some = ordered[start : start + at_once]
        parts.append(recorded(scope, [length for pair in some for length in pair], tail))
        parts.append(patched(scope, sides * len(some), rows, tail, keep))
    return together(name, parts, least=least)


def compared(scope: Scope, pairs: PairLengths, neurons: bool = False) -> Work:
    """Rows beside the slow loop, on random sets in the pair whose lengths differ most."""
    pair = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    sets = CHECKED * (2 if neurons else 1)
    loops = Work("", rows=2 * sets, passes=sets, tokens=float(2 * sets * max(pair)), logits=2 * sets)
    rows = [patched(scope, 2, np.zeros(sets), tail) for tail in (1, 2)]
    seen = Work("", passes=1, tokens=2.0, logits=2)
    return together("check of the engine", [*[recorded(scope, pair, 2)] * 2, seen, *[loops] * 2, *rows])
