"""What rcm relies on, checked on the real model before it is measured: a prompt's figures depend on the prompt alone.

Prompts of a batch are padded on the left, and what the template begins with is read once for all of them, so that the
padding lies between the beginning and the rest. That is exact where distances come from position ids; not where they
come from places in the cache (ALiBi), nor beyond a local window or a chunk, whatever its config calls them. So the
shortest and the longest prompt that are asked about are run together and alone: where the two differ, the beginning is
not shared; where they differ all the same, the model is not measured.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from rcm.errors import InputError, first_sentence
from rcm.models import LoadedModel

log = logging.getLogger(__name__)

# Largest error of a logit, as a share of the largest one: rounding stays well below.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
BROKEN = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)  # what a way raises that is none


@dataclass(frozen=True)
class _Checked:
    """Between these lengths of prompts the beginning may be shared, or may not."""

    shortest: int
    longest: int
    shares: bool


_CHECKED: WeakKeyDictionary[LoadedModel, _Checked] = WeakKeyDictionary()


def shares_beginning(model: LoadedModel, lengths: Sequence[int]) -> bool:
    """Whether prompts of these lengths, in tokens, may share the template's beginning; raises InputError where they
    must not even share a batch."""
    shortest, longest = min(lengths), max(lengths)
    known = _CHECKED.get(model)
    if known is None or shortest < known.shortest or (longest > known.longest and known.shares):
        spans = [(shortest, longest)] if known is None else [(known.shortest, known.longest), (shortest, longest)]
        shortest, longest = min(low for low, _ in spans), max(high for _, high in spans)
        known = _CHECKED[model] = _Checked(shortest, longest, _found_out(model, shortest, longest))
    return known.shares


@torch.inference_mode()
def _found_out(model: LoadedModel, shortest: int, longest: int) -> bool:
    rows = [_row(model, length) for length in dict.fromkeys((shortest, longest))]
    alone = torch.cat([model.hf(input_ids=torch.tensor([row], device=model.device)).logits[:, -1] for row in rows])
    errors: list[str] = []
    for shared in dict.fromkeys((len(model.template.beginning), 0)):
        try:
            off, scale = _error(_together(model, rows, shared), alone)
        except BROKEN as broken:
            errors.append(f"{type(broken).__name__}: {first_sentence(broken)}")
            continue
        if off <= TOLERANCE[model.hf.dtype] * scale:
            if errors:
                log.warning(
                    "What every prompt begins with is read anew for each, since read once for all it changes what "
                    "follows (%s)",
                    errors[0],
                )
            return bool(shared)
        errors.append(f"logits off by {off:.2g} where they reach {scale:.2g}")
    raise InputError(
        f"The logits of a prompt depend on what else is in its batch ({errors[-1]}), so nothing measured would be its "
        f"own; choose another model than {model.identity.get('name') or type(model.hf).__name__}."
    )


def _row(model: LoadedModel, length: int) -> list[int]:
    """A prompt of that many tokens, or as few more as the template takes."""
    template = model.template
    begin, end = list(template.beginning), list(template.end_of_instruction)
    inner = template.tokens("Which rivers of the north are long, and which of them are cold?")[len(begin) : -len(end)]
    missing = max(1, length - len(begin) - len(end))
    return [*begin, *(inner * (missing // len(inner) + 1))[:missing], *end]


def _together(model: LoadedModel, rows: Sequence[Sequence[int]], shared: int) -> Float[Tensor, "row vocabulary"]:
    """Last logits in one batch; the first `shared` tokens are read once."""
    batch = model.template.padded([row[shared:] for row in rows], model.device)
    cache, mask, positions = DynamicCache(config=model.hf.config), batch.attention_mask, batch.position_ids
    if shared:
        begin = torch.tensor([rows[0][:shared]], device=model.device)
        model.hf(input_ids=begin, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
        mask, positions = torch.cat([mask.new_ones(len(mask), shared), mask], dim=1), shared + positions
    output = model.hf(
        input_ids=batch.input_ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    if cache.get_seq_length() != mask.shape[1]:
        raise ValueError("it keeps no keys and values")
    return output.logits[:, -1]


def _error(found: Float[Tensor, "row vocabulary"], wanted: Float[Tensor, "row vocabulary"]) -> tuple[float, float]:
    """The largest difference of a logit, and the largest logit."""
    return (found.float() - wanted.float()).abs().max().item(), wanted.float().abs().max().item()
