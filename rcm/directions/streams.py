"""Residual streams of both classes of the parts of the prompts: as many layers at a time as memory is set aside for.

At every place a few figures are wanted of all prompts, and of all places at once nothing. A part takes
prompts x positions x layers x d_model x 4 bytes: 4.2 GiB for 2 x 864 training prompts at 5 positions of a model with 32
layers of 4,096, of which `HELD` lets 5 layers lie in memory, so that 7 passes read it. One part lies there at a time;
all of them where together they take no more than `WHOLE`, and then they are read once: of a model that small nothing
else is large. Beside them lie what was found at every place (positions x layers x d_model, some 40 times in 4 bytes:
0.1 GiB there), so that less than 1 GiB is.

What opens the replies is seen in the same passes. Which tokens may open refusals is known when the harmful training
prompts have been read: until then their logits are kept (prompts x vocabulary x 4 bytes, beside one class alone: 0.4
GiB there) where they take no more than `LOGITS`, else those prompts are read once more.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.directions.fit import Activations
from rcm.directions.refusal_tokens import FirstTokens, may_open
from rcm.execution.passes import Residuals, mean_probabilities, mean_probability, read_residuals
from rcm.models import LoadedModel
from rcm.prompts import Part, texts

HELD, WHOLE, LOGITS = 700 * 2**20, 900 * 2**20, 450 * 2**20  # bytes


def read_together(of_layer: Sequence[int], layers: int) -> list[range]:
    """Which layers are read together. `of_layer`: the bytes that each part takes in one layer."""
    whole = layers * sum(of_layer) <= WHOLE
    at_once = layers if whole else max(1, HELD // max(of_layer))
    return [range(start, min(start + at_once, layers)) for start in range(0, layers, at_once)]


class Classes(NamedTuple):
    """Of both classes of a part."""

    harmful: Residuals
    harmless: Residuals

    def at(self, row: int, layer: int) -> tuple[Activations, Activations]:
        return self.harmful.at(row, layer), self.harmless.at(row, layer)


class Streams:
    """Of some parts by name, at some positions. `first_tokens`: those that are known to open refusals; how likely
    replies open with them, or with what may yet be found to, is kept of every prompt. None keeps nothing of it."""

    def __init__(
        self,
        model: LoadedModel,
        parts: Mapping[str, Part],
        positions: Sequence[int],
        label: str,
        first_tokens: Sequence[int] | None = None,
    ) -> None:
        self._model, self._parts, self._positions = model, parts, list(positions)
        self._label, self._known = label, first_tokens
        self._held: dict[str, Classes] = {}
        self._tokens: list[int] | None = None  # of which the probabilities are kept
        self.first_tokens: dict[str, tuple[FirstTokens, FirstTokens]] = {}  # by part, once it has been read

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many positions and layers there are, and the width of the stream."""
        return len(self._positions), self._model.n_layers, self._model.d_model

    @property
    def whole(self) -> bool:
        """Whether every part of every layer fits."""
        return self._model.n_layers * sum(map(self.of_layer, self._parts)) <= WHOLE

    def of_layer(self, part: str) -> int:
        """Bytes that a part takes in one layer."""
        positions, _, d_model = self.shape
        return sum(map(len, self._parts[part])) * positions * d_model * 4

    def layers(self) -> Iterator[range]:
        """Which of them are read together."""
        yield from read_together([*map(self.of_layer, self._parts)], self._model.n_layers)

    def read(self, part: str, layers: range) -> Classes:
        """Of these layers. Where not all fits, what was read before is let go: keep no hold of it."""
        held = self._held.get(part)
        if held is not None and layers[0] in held.harmful.layers and layers[-1] in held.harmful.layers:
            return held
        del held
        if not self.whole:
            self._held.clear()
        label, sides = f"{self._label}: {part} prompts", [texts(side) for side in self._parts[part]]
        if self._known is None or part in self.first_tokens:
            read = [read_residuals(self._model, side, self._positions, label, layers) for side in sides]
        else:
            both = [self._with_first_tokens(side, label, layers) for side in sides]
            read, (harmful, harmless) = [residuals for residuals, _ in both], [tokens for _, tokens in both]
            self.first_tokens[part] = harmful, harmless
        self._held[part] = Classes(*read)
        return self._held[part]

    def _with_first_tokens(self, prompts: list[str], label: str, layers: range) -> tuple[Residuals, FirstTokens]:
        """The first prompts of all decide which tokens these are of."""
        if self._tokens is None and len(prompts) * self._model.config.vocab_size * 4 > LOGITS:
            self._tokens = self._and_known(mean_probabilities(self._model, prompts, f"{self._label}: first tokens"))
        tokens = self._tokens

        def figures(logits: Tensor, _: Sequence[int]) -> Tensor:
            if tokens is None:
                return logits
            seen = FirstTokens.of(logits, tokens)
            return torch.cat([seen.these, seen.others[:, None]], dim=1)

        read = read_residuals(self._model, prompts, self._positions, label, layers, figures)
        found = cast(Tensor, read.figures)
        read = read._replace(figures=None)
        if tokens is not None:
            return read, FirstTokens(tuple(tokens), found[:, :-1], found[:, -1])
        self._tokens = self._and_known(mean_probability(found))
        return read, FirstTokens.of(found, self._tokens)

    def _and_known(self, probabilities: Float[Tensor, " vocabulary"]) -> list[int]:
        return sorted({*may_open(probabilities), *(self._known or ())})

    def at(self, part: str, row: int, layer: int) -> tuple[Activations, Activations]:
        """Activations at one position (by its row) and layer: copies, which hold nothing else in memory."""
        layers = range(self._model.n_layers) if self.whole else range(layer, layer + 1)
        harmful, harmless = self.read(part, layers).at(row, layer)
        return harmful.copy(), harmless.copy()
