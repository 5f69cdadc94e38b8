"""The slow reference: one ordinary forward pass for each row, with hooks that put in the donor's values.

This is how patching is commonly done. It stands behind the tests, behind the check that every run makes of the fast
engine, and in for it where a model cannot be run by rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rcm.execution.components import DenseKind, PerNeuron, Rows, neurons_of, places
from rcm.execution.interventions import Edit, Site, applied, by_row
from rcm.execution.recording import ComponentCache, Values, of_width
from rcm.models import LoadedModel
from rcm.models.points import Points


@torch.inference_mode()
def patched_logits(
    model: LoadedModel, base: ComponentCache, donors: Sequence[Values], rows: Rows, tail: int = 1, keep: int = 1
) -> Float[Tensor, "prompt row keep vocabulary"]:
    """Logits at the last `keep` tokens, each row's components replaced at the first of the last `tail` tokens."""

    def one(row: Rows) -> Float[Tensor, "prompt keep vocabulary"]:
        with applied(model.points, [Patch(row, donors[int(row.donor)], -tail)]):
            output = model.hf(
                input_ids=base.batch.input_ids,
                attention_mask=base.batch.attention_mask,
                position_ids=base.batch.position_ids,
                use_cache=False,
                logits_to_keep=keep,
            )
        return output.logits.float()

    return torch.stack([one(rows[torch.tensor([i])]) for i in range(len(rows))], dim=1)


@dataclass(frozen=True)
class Patch:
    """An intervention: one row's components take a donor's values at one token, counted from the end."""

    row: Rows
    donor: Values
    position: int

    def rows(self, index: Sequence[int]) -> "Patch":
        return Patch(self.row, Values(*(part[:, list(index)] for part in self.donor)), self.position)

    def sites(self, points: Points) -> Iterator[Site]:
        for kind, (modules, side) in places(points).items():
            for layer, chosen in enumerate(getattr(self.row, kind)[0]):
                if chosen.any():
                    yield modules[layer], side, self._edit(kind, layer)
        for layer, module, _, number in neurons_of(self.row, points):
            yield module, "input", self._edit_neurons(layer, number)

    def _edit(self, kind: DenseKind, layer: int) -> Edit:
        new = getattr(self.donor, kind)[layer]
        chosen = self.row.head[0, layer] if kind == "head" else ...

        def edit(x: Tensor) -> Tensor:
            changed = x.clone()  # what the model handed over may still be needed as it is: the residual stream, for one
            token = by_row(changed, len(new))[:, self.position]
            given = new.to(x.device)
            own = of_width(given, token.shape[-1]) if kind == "head" else given
            target = token.unflatten(-1, own.shape[1:]) if kind == "head" else token
            target[:, chosen] = own[:, chosen]
            return changed

        return edit

    def _edit_neurons(self, layer: int, number: PerNeuron) -> Edit:
        new = self.donor.of_neurons(layer, number)

        def edit(x: Tensor) -> Tensor:
            changed = x.clone()
            by_row(changed, len(new))[:, self.position, number] = new.to(x)
            return changed

        return edit
