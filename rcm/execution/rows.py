"""Exact patching of any number of component sets in one pass: the fast path of `rcm.execution.loop`.

A patch at the last token of a prompt changes nothing before that token. So all variants of the token share the keys and
values of the unpatched prompt, and each is one *row* that attends to them and to itself:

1. An ordinary pass over the prompt keeps every layer's keys and values, and the residual stream of the last token.
2. The last token goes through the model again, once for every row, side by side in the token dimension. Attention is
   replaced by softmax over (shared prompt | the row itself), which is what the patched prompt would have computed.
3. A row is the unpatched run until the first layer that it changes, so it enters there, from the recorded stream.
4. Where its layer says so, a row's component takes the donor's value.

The logits are those of one forward pass for each row, up to rounding. With a tail of several tokens a row is that many
tokens: patched at the first of them, they attend to the prompt before them and causally to each other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rcm.execution.components import DenseKind, PerNeuron, Rows, neurons_of, places
from rcm.execution.interventions import Edit, Site, applied, by_row
from rcm.execution.recording import ComponentCache, Values, of_width
from rcm.models import LoadedModel
from rcm.models.points import Points, device_of

ATTENTION = "rcm_rows"


@torch.inference_mode()
def patched_logits(
    model: LoadedModel, base: ComponentCache, donors: Sequence[Values], rows: Rows, tail: int = 1, keep: int = 1
) -> Float[Tensor, "prompt row keep vocabulary"]:
    """Logits at the last `keep` tokens, each row's components replaced at the first of the last `tail` tokens.

    Rows must be in the order of their first layers.
    """
    run = _Run(base, donors, rows, tail)
    head = model.hf.get_output_embeddings()
    with (
        attention(model.hf, run.attend),
        run.entering(model.points.layers),
        applied(model.points, [run]),
        hooked(head.register_forward_pre_hook(run.only_last(keep))),
    ):
        ids, positions = base.batch.input_ids[:, -tail:], base.batch.position_ids[:, -tail:]
        output = model.hf(input_ids=ids, position_ids=positions, use_cache=False)
    return output.logits.float()


@contextmanager
def attention(
    hf: PreTrainedModel, function: Callable[..., tuple[Tensor, None]], name: str = ATTENTION
) -> Iterator[None]:
    """Let a function do the model's attention inside the block.

    transformers makes no mask for an attention whose name it does not know.
    """
    before = hf.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[name] = function
    hf.config._attn_implementation = name
    try:
        yield
    finally:
        hf.config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[name]


@contextmanager
def hooked(hook: RemovableHandle) -> Iterator[None]:
    """Take the hook off at the end, whatever happens."""
    try:
        yield
    finally:
        hook.remove()


class _Run:
    """One pass: which rows enter where, what they attend to, and what is replaced in them."""

    def __init__(self, base: ComponentCache, donors: Sequence[Values], rows: Rows, tail: int) -> None:
        self.base, self.donors, self.patches, self.tail = base, donors, rows, tail
        self.prefix = base.batch.input_ids.shape[1] - tail
        entry = rows.first_layer.clone()
        entry[0] = 0  # too early is only more work, and no model passes on no token at all
        self.entries = entry.bincount(minlength=base.shape.layers).tolist()
        self.visible: dict[tuple[int | None, torch.device], Bool[Tensor, "prompt 1 1 1 tail key"]] = {}

    @contextmanager
    def entering(self, layers: Sequence[nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, module in enumerate(layers):
                enter = self._enter(layer, device_of(module))
                stack.enter_context(hooked(module.register_forward_pre_hook(enter, with_kwargs=True)))
            yield

    def only_last(self, keep: int) -> Callable[..., Any]:
        """A hook that lets only the last tokens of each row be unembedded, a large part of a small model's work.

        Here, because GPT-2 takes the rows for prompts by then.
        """

        def hook(module: nn.Module, args: tuple[Tensor]) -> Float[Tensor, "prompt row keep d_model"]:
            return args[0].reshape(len(self.base), -1, self.tail, args[0].shape[-1])[:, :, self.tail - keep :]

        return hook

    def _enter(self, layer: int, device: torch.device) -> Callable[..., Any]:
        """Append the rows that enter at a layer; at the first one, in place of the embedded tokens."""
        stream = self.base.tail["residual"][layer][:, -self.tail :].to(device)
        new = stream[:, None].expand(-1, self.entries[layer], -1, -1).flatten(1, 2)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = torch.cat([hidden.to(device), new], dim=1) if layer else new
            if self.tail > 1 and "position_embeddings" in kwargs:
                # Of one tail; a single token's would have been broadcast over the rows.
                rows = hidden.shape[1] // self.tail
                kwargs = kwargs | {"position_embeddings": [x.repeat(1, rows, 1) for x in kwargs["position_embeddings"]]}
            return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

        return hook

    def attend(
        self,
        module: nn.Module,
        query: Float[Tensor, "prompt head token d_head"],
        key: Float[Tensor, "prompt kv_head token d_head"],
        value: Float[Tensor, "prompt kv_head token d_head"],
        attention_mask: None,  # some name it
        scaling: float | None = None,
        softcap: float | None = None,
        sliding_window: int | None = None,
        **_: Any,
    ) -> tuple[Float[Tensor, "prompt token head d_head"], None]:
        """Softmax over the prompt before the tail, which all rows share, and over the row's own tokens."""
        prompts, heads, tokens, width = query.shape
        groups, rows = key.shape[1], tokens // self.tail
        by_group = (prompts, groups, heads // groups * tokens)
        by_tail = (prompts, groups, heads // groups, rows, self.tail)
        keys, values = (x[:, :, : self.prefix] for x in self.base.cache[cast(int, module.layer_idx)])
        own_keys, own_values = (x.reshape(prompts, groups, 1, rows, self.tail, width) for x in (key, value))

        before = query.reshape(*by_group, width) @ keys.transpose(-1, -2)
        among = query.reshape(*by_tail, width) @ own_keys.transpose(-1, -2)
        scores = torch.cat([before.view(*by_tail, self.prefix), among], dim=-1).float()
        scores *= width**-0.5 if scaling is None else scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        hidden = ~self._visible(sliding_window, query.device)
        weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1).to(query.dtype)

        out = (weights[..., : self.prefix].reshape(*by_group, self.prefix) @ values).view(*by_tail, width)
        out = out + weights[..., self.prefix :] @ own_values
        return out.reshape(prompts, heads, tokens, width).transpose(1, 2).contiguous(), None

    def _visible(self, window: int | None, device: torch.device) -> Bool[Tensor, "prompt 1 1 1 tail key"]:
        """Which tokens those of the tail may look at: not padding, not later ones, none outside the layer's window."""
        key = window, device
        if key not in self.visible:
            token = torch.arange(self.prefix + self.tail, device=device)
            distance = token[self.prefix :, None] - token
            near = (distance >= 0) & (distance < (window or len(token)))
            given = self.base.batch.attention_mask.to(device).bool()
            self.visible[key] = (near & given[:, None])[:, None, None, None]
        return self.visible[key]

    def rows(self, index: Sequence[int]) -> "_Run":
        raise NotImplementedError("a pass is for all of its prompts")

    def sites(self, points: Points) -> Iterator[Site]:
        for kind, (modules, side) in places(points).items():
            masks = getattr(self.patches, kind)
            changed = masks.any(-1) if kind == "head" else masks
            for layer, module in enumerate(modules):
                if changed[:, layer].any():
                    rows = changed[:, layer].nonzero()[:, 0]
                    yield module, side, self._replace(kind, layer, rows, device_of(module))
        for layer, module, row, number in neurons_of(self.patches, points):
            yield module, "input", self._replace_neurons(layer, row, number, device_of(module))

    def _replace(self, kind: DenseKind, layer: int, rows: Int[Tensor, " changed"], device: torch.device) -> Edit:
        donor = self.patches.donor[rows]
        values = torch.stack([getattr(donor, kind)[layer].to(device) for donor in self.donors])
        new = values[donor.to(device)].transpose(0, 1)
        heads = self.patches.head[rows, layer].to(new.device)[..., None] if kind == "head" else None

        def edit(x: Tensor) -> Tensor:
            changed = x.clone(memory_format=torch.contiguous_format)
            tokens = by_row(changed, len(self.base)).unflatten(1, (-1, self.tail))
            if heads is None:
                tokens[:, rows, 0] = new.to(x)
            else:
                own = of_width(new.to(x), tokens.shape[-1])
                by_head = tokens.unflatten(-1, own.shape[2:])
                by_head[:, rows, 0] = torch.where(heads, own, by_head[:, rows, 0])
            return changed

        return edit

    def _replace_neurons(self, layer: int, rows: PerNeuron, number: PerNeuron, device: torch.device) -> Edit:
        values = torch.stack([donor.of_neurons(layer, number).to(device) for donor in self.donors])
        donor = self.patches.donor[rows].to(device)
        new = values.gather(0, donor.expand(1, *values.shape[1:]))[0]

        def edit(x: Tensor) -> Tensor:
            changed = x.clone(memory_format=torch.contiguous_format)
            tokens = by_row(changed, len(self.base)).unflatten(1, (-1, self.tail))
            tokens[:, rows, 0, number] = new.to(x)
            return changed

        return edit
