"""What a model replies with nodes ablated at the last token of the prompt, and every other token as it comes.

The patch is made while the prompt is read. What the reply goes on from is the model's own: it sees the prompt, its
ablated last token, and what it has said. So a circuit that only chooses the first word shows as one whose reply turns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rcm.circuits.ablation import Ablation, Masks
from rcm.execution.batches import in_batches, rows_at_once
from rcm.execution.components import Shape
from rcm.execution.decoding import replies
from rcm.execution.interventions import Edit, Site, by_row
from rcm.execution.recording import cache_components, of_width
from rcm.models import LoadedModel
from rcm.models.points import Points
from rcm.patching import Pairs


@dataclass(frozen=True)
class AblateAtPromptEnd:
    """An intervention: at the last token of a prompt that is read, each row's nodes put out the donor's values. `row`
    is the row's number, by which no two rows are one."""

    row: Int[Tensor, " row"]
    heads: Bool[Tensor, "row layer head"]
    mlps: Bool[Tensor, "row layer"]
    z: Float[Tensor, "row layer head d_head"]
    mlp: Float[Tensor, "row layer d_model"]

    def rows(self, index: Sequence[int]) -> "AblateAtPromptEnd":
        chosen = list(index)
        return AblateAtPromptEnd(*(part[chosen] for part in (self.row, self.heads, self.mlps, self.z, self.mlp)))

    def sites(self, points: Points) -> Iterator[Site]:
        for layer, module in enumerate(points.head_out):
            yield module, "input", self._heads(layer)
        for layer, module in enumerate(points.mlp_out):
            yield module, "output", self._mlp(layer)

    def _heads(self, layer: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            tokens = by_row(x, len(self.row))
            if tokens.shape[1] == 1:  # of a reply, which is read token by token
                return x
            changed = tokens.clone()
            new = of_width(self.z[:, layer].to(x), x.shape[-1])
            last = changed[:, -1].unflatten(-1, new.shape[1:])
            changed[:, -1] = torch.where(self.heads[:, layer, :, None].to(x.device), new, last).flatten(1)
            return changed.view_as(x)

        return edit

    def _mlp(self, layer: int) -> Edit:
        def edit(x: Tensor) -> Tensor:
            tokens = by_row(x, len(self.row))
            if tokens.shape[1] == 1:
                return x
            changed = tokens.clone()
            mask = self.mlps[:, layer, None].to(x.device)
            changed[:, -1] = torch.where(mask, self.mlp[:, layer].to(x), changed[:, -1])
            return changed.view_as(x)

        return edit


def ablated_replies(
    model: LoadedModel, pairs: Pairs, ablated: Masks, ablation: Ablation, max_new_tokens: int, label: str
) -> list[str]:
    """What each harmful prompt is answered under its own mask."""
    prompts = [harmless for _, harmless in pairs.tokens]
    read = in_batches(
        model, prompts, rows_at_once(model), lambda some: ablation.donor(cache_components(model, some)), "prompts"
    )
    donors = [donor for _, donor in read]
    z, mlp = (torch.cat([getattr(one, kind) for one in donors], dim=1).transpose(0, 1) for kind in ("head", "mlp"))
    shape = Shape(*z.shape[1:3])
    heads, mlps = torch.from_numpy(ablated).to(z.device).split([shape.layers * shape.heads, shape.layers], dim=1)
    patch = AblateAtPromptEnd(torch.arange(len(pairs), device=z.device), heads.unflatten(1, shape), mlps, z, mlp)
    return replies(model, [harmful for harmful, _ in pairs.texts], max_new_tokens, [patch], label)
