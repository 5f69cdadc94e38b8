"""What rcm relies on, checked on the real model before it is measured: a prompt's figures depend on the prompt alone.

Prompts of a batch are padded on the left, and what the template begins with is read once for all of them, so that the
padding lies between the beginning and the rest. That is exact where distances come from position ids; not where they
come from places in the cache (ALiBi), nor beyond a local window or a chunk, whatever its config calls them. So the
shortest and the longest prompt that are asked about are run together and alone: where the two differ, the beginning is
not shared; where they differ all the same, the model is not measured.

Rows of one prompt under several interventions are one row up to the first of them. That is exact where what a layer is
given has a place for each prompt, and breaks where it has one for each prompt and head (Bloom's ALiBi): then every row
is read from the start.
"""

import logging
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch

from rcm.errors import InputError, first_sentence
from rcm.execution.interventions import Add
from rcm.execution.shared_prefix import Tokens, read
from rcm.models import LoadedModel

log = logging.getLogger(__name__)

# Largest error of a logit, as a share of the largest one: rounding stays well below.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
BROKEN = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)  # what a way raises that is none


WINDOWS = ("sliding_window", "window_size", "attention_chunk_size")
_CHECKED: WeakKeyDictionary[LoadedModel, tuple[int, int, bool]] = WeakKeyDictionary()  # shortest, longest, may share
_BRANCHES: WeakKeyDictionary[LoadedModel, bool] = WeakKeyDictionary()


def shared_tokens(model: LoadedModel, lengths: Iterable[int]) -> int:
    """How many tokens all prompts share: the template's beginning, or none where padding behind it would count.
    `lengths`: of the prompts in tokens, with what is to be said."""
    known = list(lengths)
    return len(model.template.beginning) if known and may_share(model, known) else 0


def may_share(model: LoadedModel, lengths: Sequence[int]) -> bool:
    """Whether prompts of these lengths may have what they begin with read once for all; raises InputError where they
    must not even share a batch."""
    shortest, longest = min(lengths), max(lengths)
    config = model.hf.config.get_text_config()
    windows = (getattr(config, name, None) for name in WINDOWS)
    if any(isinstance(window, int) and 0 < window < longest for window in windows):
        return False
    low, high, may = _CHECKED.get(model, (shortest, longest, None))
    if may is None or shortest < low or longest > high:
        low, high = min(low, shortest), max(high, longest)
        may = _found_out(model, low, high)
        _CHECKED[model] = low, high, may
    return may


@torch.inference_mode()
def _found_out(model: LoadedModel, shortest: int, longest: int) -> bool:
    rows = list(dict.fromkeys(_row(model, length) for length in (shortest, longest)))
    alone = torch.cat(
        [model.hf(input_ids=torch.tensor([row], device=model.device), logits_to_keep=1).logits[:, -1] for row in rows]
    )
    errors: list[str] = []
    for shared in (len(model.template.beginning) or 1, 0):  # as rows begin alike, whatever the template
        try:
            together = read(model, rows, [], shared)
        except BROKEN as broken:
            errors.append(f"{type(broken).__name__}: {first_sentence(broken)}")
            continue
        if together.cache.get_seq_length() != together.mask.shape[1]:
            errors.append("it keeps no keys and values")
            continue
        off = (together.logits[:, -1].float() - alone.float()).abs().max().item()
        scale = alone.float().abs().max().item()
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


def may_branch(model: LoadedModel) -> bool:
    """Whether rows of one prompt may be one row up to the layer at which interventions begin."""
    if model not in _BRANCHES:
        _BRANCHES[model] = _branches(model)
    return _BRANCHES[model]


@torch.inference_mode()
def _branches(model: LoadedModel) -> bool:
    """Two prompts, each under two vectors added halfway: one row each up to there, or two."""
    short = len(model.template.beginning) + len(model.template.end_of_instruction) + 1
    rows = [row for length in (short, short + 4) for row in [_row(model, length)] * 2]
    vectors = torch.linspace(-1, 1, len(rows) * model.d_model).view(len(rows), -1)
    pushed = [Add(model.n_layers // 2, vectors)]
    slow = read(model, rows, pushed, 0, branch=False).logits.float()
    try:
        off = (read(model, rows, pushed, 0).logits.float() - slow).abs().max().item()
    except BROKEN as broken:
        why = f"{type(broken).__name__}: {first_sentence(broken)}"
    else:
        scale = slow.abs().max().item()
        if off <= TOLERANCE[model.hf.dtype] * scale:
            return True
        why = f"logits off by {off:.2g} where they reach {scale:.2g}"
    log.warning("Every row of a prompt is read from the start, since they cannot share what lies before (%s)", why)
    return False


def _row(model: LoadedModel, length: int) -> Tokens:
    """A prompt of that many tokens, or as few more as the template takes."""
    template = model.template
    begin, end = list(template.beginning), list(template.end_of_instruction)
    inner = template.tokens("Which rivers of the north are long, and which of them are cold?")[len(begin) : -len(end)]
    missing = max(1, length - len(begin) - len(end))
    return *begin, *(inner * (missing // len(inner) + 1))[:missing], *end
