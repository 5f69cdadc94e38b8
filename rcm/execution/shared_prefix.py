"""One pass over rows, each a prompt under its own row of some interventions, without computing anything twice.

    the template's beginning    is read once for each distinct row of the interventions, not once for each prompt
    what lies before the layer  at which the interventions begin is computed once for each prompt, not for each row

Adding a vector at layer 20 of 30 under a hundred strengths and controls so costs a third of a hundred passes. The
logits are those of one pass for each row, up to rounding.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rcm.execution.interventions import Intervention, applied
from rcm.models import LoadedModel
from rcm.models.points import Points

Tokens = tuple[int, ...]


class Read(NamedTuple):
    """What was read: logits at the last tokens, and what reading on needs."""

    logits: Float[Tensor, "row keep vocabulary"]
    cache: DynamicCache
    mask: Int[Tensor, "row token"]


def read(
    model: LoadedModel,
    rows: Sequence[Tokens],
    interventions: Sequence[Intervention],
    shared: int,
    keep: int = 1,
    branch: bool = True,
    watching: Sequence[Intervention] = (),
    begun: DynamicCache | None = None,
) -> Read:
    """Logits at the last `keep` tokens of every row. All rows begin with the same `shared` tokens. `branch`: whether
    rows of one prompt are one up to the interventions (`rcm.execution.self_checks.may_branch`). Gradients flow, unless
    whoever calls it says otherwise. `watching`: interventions that change nothing, and see rows without what they
    share. `begun`: what they share, if it has been read for the distinct rows of these interventions (`beginning`)."""
    prompts = list(dict.fromkeys(rows)) if branch else list(rows)
    number = {prompt: i for i, prompt in enumerate(prompts)}
    parents = torch.tensor([number[row] for row in rows] if branch else range(len(rows)), device=model.device)
    layer = first_layer(model.points, interventions)
    firsts, of_row = distinct(interventions, len(rows))
    # A beginning for each row would be another pass for nothing; rows that share none are read from the start.
    shared = shared if branch and len(firsts) < len(rows) else 0
    batch = model.template.padded([prompt[shared:] for prompt in prompts], model.device)
    mask, positions = batch.attention_mask, batch.position_ids
    cache = DynamicCache(config=model.hf.config)
    if shared:
        if begun is None:
            begun = beginning(model, rows[0][:shared], [one.rows(firsts) for one in interventions])
        cache = copied(begun)
        select(cache, torch.zeros(len(prompts), dtype=torch.long, device=model.device), slice(layer))
        select(cache, torch.tensor(of_row, device=model.device), slice(layer, None))
        mask, positions = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1), shared + positions
    with branching(model.points, layer, parents), applied(model.points, [*interventions, *watching]):
        output = model.hf(
            input_ids=batch.input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
    select(cache, parents, slice(layer))
    return Read(output.logits, cache, mask[parents])


def beginning(model: LoadedModel, tokens: Tokens, interventions: Sequence[Intervention]) -> DynamicCache:
    """Keys and values of what rows begin with: one row in the layers below the interventions, and one for each of
    theirs from there on."""
    cache = DynamicCache(config=model.hf.config)
    ids = torch.tensor([tokens], device=model.device)
    rows = max((len(tensor) for one in interventions for tensor in _tensors(one)), default=1)
    parents = torch.zeros(rows, dtype=torch.long, device=model.device)
    layer = first_layer(model.points, interventions)
    with branching(model.points, layer, parents), applied(model.points, interventions):
        model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def copied(cache: DynamicCache) -> DynamicCache:
    """The same for a pass to select from and append to, which leaves the tensors themselves as they are."""
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    return other


def _tensors(intervention: Intervention) -> list[Tensor]:
    return [value for value in vars(intervention).values() if torch.is_tensor(value)]


def first_layer(points: Points, interventions: Sequence[Intervention]) -> int:
    """The first layer that any of the interventions acts in."""
    layers = {
        id(module): layer
        for modules in (points.layers, points.head_out, points.attention_out, points.mlp_out)
        for layer, module in enumerate(modules)
    }
    touched = (id(module) for intervention in interventions for module, _, _ in intervention.sites(points))
    return min((layers[module] for module in touched), default=0)


def distinct(interventions: Sequence[Intervention], rows: int) -> tuple[list[int], list[int]]:
    """The first of every set of equal rows, and which set each row belongs to."""
    tensors = [tensor for intervention in interventions for tensor in _tensors(intervention)]
    table = [tensor.float().reshape(len(tensor), -1).expand(rows, -1).cpu() for tensor in tensors]
    content = torch.cat(table, dim=1).numpy() if table else torch.zeros(rows, 0).numpy()
    sets: dict[bytes, int] = {}
    of_row = [sets.setdefault(row.tobytes(), len(sets)) for row in content]
    return [of_row.index(kind) for kind in range(len(sets))], of_row


@contextmanager
def branching(points: Points, layer: int, parents: Int[Tensor, " row"]) -> Iterator[None]:
    """At the input of a layer, a batch of prompts becomes rows: row `i` goes on from prompt `parents[i]`."""
    prompts = int(parents.max()) + 1

    def chosen(value: Any) -> Any:
        """Masks and positions of the prompts, as the rows need them; what holds for all prompts stays."""
        if isinstance(value, tuple | list):
            return type(value)(chosen(part) for part in value)
        per_prompt = torch.is_tensor(value) and value.ndim > 1 and value.shape[0] == prompts > 1
        return value[parents.to(value.device)] if per_prompt else value

    def hook(entering: bool) -> Any:
        def turn(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = hidden[parents.to(hidden.device)] if entering else hidden
            rest = {name: chosen(value) for name, value in kwargs.items() if name != "hidden_states"}
            return ((hidden, *chosen(args[1:])), rest) if args else (args, rest | {"hidden_states": hidden})

        return turn

    with ExitStack() as stack:
        if len(parents) > prompts:  # otherwise every row is a prompt of its own
            for place, module in enumerate(points.layers[layer:]):
                stack.callback(module.register_forward_pre_hook(hook(place == 0), with_kwargs=True).remove)
        yield


def select(cache: DynamicCache, index: Int[Tensor, " row"], layers: slice = slice(None)) -> None:
    """Leave these rows, in this order, in some layers of the cache, wherever they lie."""
    for layer in cache.layers[layers]:
        kept = cast(DynamicLayer, layer)
        kept.batch_select_indices(index if kept.keys is None else index.to(kept.keys.device))
