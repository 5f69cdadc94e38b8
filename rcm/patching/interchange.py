"""Patching both ways between the two prompts of a pair, and what a component's share in refusing is.

    necessity    m(harmful) - m(harmful, component from harmless)    what refusing loses without it
    sufficiency  m(harmless, component from harmful) - m(harmless)   what refusing gains from it

with m the metric, in the metric's units; divided by the size of the pair's gap |m(harmful) - m(harmless)| they are
shares: 0 for a component that does nothing, 1 for one that does all (Zhang and Nanda 2024; Heimersheim and Nanda 2024).
Where the harmless prompt is refused more, a component that does all has -1: it counts against, as the pair does. So a
pair whose labels are swapped has the other way's share with the other sign, and labels without meaning have mean 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rcm.execution.batches import in_batches
from rcm.execution.components import Rows
from rcm.execution.engine import Engine, engine_of
from rcm.execution.metric import Likelihood, Metric
from rcm.execution.recording import Values, cache_components
from rcm.models import LoadedModel

Pair = tuple[list[int], list[int]]  # a harmful prompt and its harmless twin, as tokens
Figures = Float[Tensor, "pair row"]


@dataclass(frozen=True)
class Interchange:
    """The metric of every pair, unpatched and under every row, each way; float64 on the CPU."""

    harmful: Float[Tensor, " pair"]
    harmless: Float[Tensor, " pair"]
    into_harmful: Figures
    into_harmless: Figures

    @property
    def gap(self) -> Float[Tensor, " pair"]:
        return self.harmful - self.harmless

    @property
    def necessity(self) -> Figures:
        return self.harmful[:, None] - self.into_harmful

    @property
    def sufficiency(self) -> Figures:
        return self.into_harmless - self.harmless[:, None]

    @property
    def shares(self) -> Float[Tensor, "2 pair row"]:
        """Necessity and sufficiency, in gaps of each pair."""
        return torch.stack([self.necessity, self.sufficiency]) / self.gap.abs()[:, None]

    def where(self, chosen: Bool[Tensor, " pair"]) -> "Interchange":
        return Interchange(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def rows(self, index: Sequence[int]) -> "Interchange":
        """Only some of the rows."""
        chosen = list(index)
        return Interchange(self.harmful, self.harmless, self.into_harmful[:, chosen], self.into_harmless[:, chosen])

    @classmethod
    def beside(cls, studies: "Sequence[Interchange]") -> "Interchange":
        """The rows of all, which are of the same pairs."""
        into = (torch.cat([getattr(one, name) for one in studies], 1) for name in ("into_harmful", "into_harmless"))
        return cls(studies[0].harmful, studies[0].harmless, *into)

    def __sub__(self, other: "Interchange") -> "Interchange":
        """The same for the difference of two metrics."""
        return Interchange(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


def engine_for(model: LoadedModel, pairs: Sequence[Pair], seed: int) -> Engine:
    """The way to patch these pairs, checked on the one whose lengths differ most, so that padding is checked, too."""
    harmful, harmless = max(pairs, key=lambda pair: abs(len(pair[0]) - len(pair[1])))
    base, source = (cache_components(model, prompts, tail=2) for prompts in ([harmful, harmless], [harmless, harmful]))
    return engine_of(model, base, source, seed)


def interchange(
    engine: Engine, pairs: Sequence[Pair], patches: Rows, metric: Metric, tail: int = 1, label: str = "patching"
) -> Interchange:
    """Patch the first of the last `tail` tokens of every pair, both ways. The two of a pair may differ in length."""
    everything = Rows.concat([patches, Rows.of([[]], engine.shape)])
    figures = torch.empty(len(pairs), 2, len(everything), dtype=torch.float64)

    def both_ways(index: list[int]) -> Float[Tensor, "pair 2 row"]:
        # Each prompt of a pair, side by side, is the other's source.
        prompts = [prompt for i in index for prompt in pairs[i]]
        base = cache_components(engine.model, prompts, tail, neurons=len(patches.neuron) > 0)
        own = base.at(-tail)
        donors = [own, Values(*(part.unflatten(1, (-1, 2)).flip(2).flatten(1, 2) for part in own))]
        of_both = metric.of([i for i in index for _ in range(2)])
        return engine.measure(base, donors, everything, of_both, tail).unflatten(0, (-1, 2))

    at_once = engine.prompts_at_once(2 * len(everything) * tail)
    for index, some in in_batches(engine.model, by_length(pairs), at_once, both_ways, "pairs", label):
        figures[index] = some
    into_harmful, into_harmless = figures.unbind(1)
    return Interchange(into_harmful[:, -1], into_harmless[:, -1], into_harmful[:, :-1], into_harmless[:, :-1])


def interchange_of_replies(
    engine: Engine,
    pairs: Sequence[Pair],
    patches: Rows,
    refusals: Int[Tensor, "pair token"],
    answers: Int[Tensor, "pair token"],
    position: int = -1,
    label: str = "patching",
) -> Interchange:
    """Patch a token of the prompt, -1 being its last; the metric is how much likelier a refusal is than an answer.

    In nats: log p(refusal) - log p(answer), each pair with its own two replies, word for word.
    """

    def of(replies: Int[Tensor, "pair token"]) -> Interchange:
        # The last token of a reply is foretold, and never read.
        read = replies[:, :-1].tolist()
        continued = [([*a, *reply], [*b, *reply]) for (a, b), reply in zip(pairs, read, strict=True)]
        tail = replies.shape[1] - 1 - position
        return interchange(engine, continued, patches, Likelihood(replies), tail, label)

    return of(refusals) - of(answers)


def by_length(pairs: Sequence[Pair]) -> list[int]:
    """Indices of pairs, so that little is spent on padding where neighbours go together."""
    return sorted(range(len(pairs)), key=lambda i: max(map(len, pairs[i])))
