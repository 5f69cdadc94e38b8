"""What rcm relies on, checked on the real model before it is measured: a prompt's figures depend on the prompt alone.

Prompts of a batch are padded on the left, and what the template begins with is read once for all of them, so that the
padding lies between the beginning and the rest. That is exact where distances come from position ids; not where they
come from places in the cache (ALiBi), nor beyond a local window or a chunk, whatever its config calls them. So the
shortest and the longest prompt that are asked about are run together and alone: where the two differ, the beginning is
not shared; where they differ all the same, the model is not measured. Nor is one that keeps no keys and values, or
whose logits at a token depend on what comes after it.

Rows of one prompt under several interventions are one row up to the first of them. That is exact where what a layer is
given has a place for each prompt, not where it has one for each head, too (ALiBi in Bloom and MPT): then every row is
read from the start.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rcm.errors import InputError, first_sentence
from rcm.execution.batches import is_out_of_memory, room_for
from rcm.execution.interventions import Ablate, Add
from rcm.execution.shared_prefix import Tokens, read
from rcm.models import LoadedModel
from rcm.models.matrix_products import library_of
from rcm.record.results import SUMMARY, Column, Table

log = logging.getLogger(__name__)

# Largest error of a logit, as a share of the largest one: rounding stays well below.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
BROKEN = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)  # what a way raises that is none
WINDOWS = ("sliding_window", "window_size", "attention_chunk_size")
AFTER = 2  # tokens that are read after the one that must not see them


class Checked(NamedTuple):
    """Whether the fast way may be gone, and why not; `error`: of a logit, as a share of the largest, where it was."""

    may: bool
    error: float | None = None
    why_not: str = ""


Lengths = WeakKeyDictionary[LoadedModel, tuple[int, int, Checked]]  # of the shortest and of the longest prompt
_SHARING: Lengths = WeakKeyDictionary()
_WINDOWED: Lengths = WeakKeyDictionary()  # where a window is shorter than the longest prompt
_BRANCHING: WeakKeyDictionary[LoadedModel, Checked] = WeakKeyDictionary()


def self_checks(model: LoadedModel, lengths: Sequence[int]) -> Table:
    """All of them, for prompts of these lengths with what is to be said; raises InputError where they fail."""
    with room_for("the checks before a run"):
        sharing, branching = _sharing(model, min(lengths), max(lengths)), _branching(model)
    rows = [
        (
            "prompts of a batch give what each gives alone",
            "what they begin with is read once" if sharing.may else f"each is read from its start ({sharing.why_not})",
            sharing.error,
        ),
        (
            "rows of one prompt under several vectors give what each gives alone",
            "one row up to the vectors" if branching.may else f"each is read from its start ({branching.why_not})",
            branching.error,
        ),
        ("linear layers", library_of(model.hf), None),
    ]
    return Table(
        f"{SUMMARY}/self_checks",
        ("what", "way", "off_by"),
        rows,
        "self-checks",
        "Made on this model before it was measured, on the shortest and the longest prompt. Off by: the largest error "
        "of a logit, as a share of the largest one.",
        [Column("what", "what"), Column("way", "how it goes"), Column("off_by", "off by")],
    )


def shared_tokens(model: LoadedModel, lengths: Iterable[int]) -> int:
    """How many tokens all prompts share: the template's beginning, or none where padding behind it would count.
    `lengths`: of the prompts in tokens, with what is to be said."""
    known = list(lengths)
    return len(model.template.beginning) if known and may_share(model, known) else 0


def may_share(model: LoadedModel, lengths: Sequence[int]) -> bool:
    """Whether prompts of these lengths may have what they begin with read once for all; raises InputError where they
    must not even share a batch."""
    return _sharing(model, min(lengths), max(lengths)).may


def may_branch(model: LoadedModel) -> bool:
    """Whether rows of one prompt may be one row up to the layer at which interventions begin."""
    return _branching(model).may


def _sharing(model: LoadedModel, shortest: int, longest: int) -> Checked:
    windows = (getattr(model.config, name, None) for name in WINDOWS)
    windowed = any(isinstance(window, int) and 0 < window < longest for window in windows)
    known = _WINDOWED if windowed else _SHARING
    low, high, found = known.get(model, (shortest, longest, None))
    if found is None or shortest < low or longest > high:
        low, high = min(low, shortest), max(high, longest)
        found = _found_out(model, low, high, windowed)
        known[model] = low, high, found
    return found


@torch.inference_mode()
def _found_out(model: LoadedModel, shortest: int, longest: int, windowed: bool) -> Checked:
    rows = list(dict.fromkeys(_row(model, length) for length in (shortest, longest)))
    alone = torch.cat(
        [model.hf(input_ids=torch.tensor([row], device=model.device), logits_to_keep=1).logits[:, -1] for row in rows]
    )
    _require_numbers(model, alone)
    _require_causal(model, rows[-1])
    errors: list[str] = [f"a window is shorter than {longest} tokens"] if windowed else []
    # As rows begin alike, whatever the template; behind padding, a window would end elsewhere.
    for shared in (0,) if windowed else (len(model.template.beginning) or 1, 0):
        try:
            together = read(model, rows, [], shared)
        except BROKEN as broken:
            if is_out_of_memory(broken):
                raise
            errors.append(f"{type(broken).__name__}: {first_sentence(broken)}")
            continue
        if together.cache.get_seq_length() != together.mask.shape[1]:
            raise InputError(
                f"{_name(model)} keeps no keys and values of what it has read, which replies and patching go on from; "
                "choose another model."
            )
        off = (together.logits[:, -1].float() - alone.float()).abs().max().item()
        scale = alone.float().abs().max().item()
        if off <= TOLERANCE[model.hf.dtype] * scale:
            if errors and not windowed:
                log.warning(
                    "What every prompt begins with is read anew for each, since read once for all it changes what "
                    "follows (%s)",
                    errors[0],
                )
            return Checked(bool(shared), off / (scale or 1.0), "".join(errors))
        errors.append(f"logits off by {off:.2g} where they reach {scale:.2g}")
    raise InputError(
        f"The logits of a prompt depend on what else is in its batch ({errors[-1]}), so nothing measured would be its "
        f"own; choose another model than {_name(model)}."
    )


def _require_numbers(model: LoadedModel, logits: Tensor) -> None:
    """Raise InputError where logits are infinite or not a number, with which nothing compares."""
    if not logits.isfinite().all():
        raise InputError(f"Logits of {_name(model)} are {overflow(model.hf.dtype)}.")


def overflow(dtype: torch.dtype) -> str:
    """What logits are that are infinite or none, and what to do: in words that end a sentence."""
    if dtype == torch.float16:  # whose largest number is 65504, which residual streams of some models go beyond
        return "infinite or not a number, beyond what float16 holds; load it with model.dtype=bfloat16 or float32"
    name = str(dtype).removeprefix("torch.")
    return f"infinite or not a number with model.dtype={name}; copy the checkpoint again, or choose another model"


def _require_causal(model: LoadedModel, row: Tokens) -> None:
    """Raise InputError where a token's logits change with what is read after it."""
    whole = model.hf(input_ids=torch.tensor([row], device=model.device), logits_to_keep=AFTER + 1).logits[0, -1 - AFTER]
    cut = model.hf(input_ids=torch.tensor([row[:-AFTER]], device=model.device), logits_to_keep=1).logits[0, -1]
    off = (whole.float() - cut.float()).abs().max().item()
    if not off <= TOLERANCE[model.hf.dtype] * cut.float().abs().max().item():
        raise InputError(
            f"{_name(model)} looks at what comes after a token (logits change by {off:.2g}), so it is no causal "
            "language model; choose another."
        )


def _name(model: LoadedModel) -> str:
    return model.identity.get("name") or type(model.hf).__name__


def _branching(model: LoadedModel) -> Checked:
    if model not in _BRANCHING:
        _BRANCHING[model] = found = _branches(model)
        if not found.may:
            log.warning(
                "Every row of a prompt is read from the start, since rows cannot share what lies before (%s)",
                found.why_not,
            )
    return _BRANCHING[model]


@torch.inference_mode()
def _branches(model: LoadedModel) -> Checked:
    """Some prompts, each with two vectors added halfway, or two directions ablated everywhere: one row each up to
    there and the beginning once for each vector, or every row from its start."""
    short = len(model.template.beginning) + len(model.template.end_of_instruction) + 1
    heads = int(model.config.num_attention_heads)
    prompts = next(n for n in (3, 5) if heads not in (n, 2 * n))  # that a place for each is none for each head
    rows = [row for i in range(prompts) for row in [_row(model, short + i)] * 2]
    vectors = torch.linspace(-1, 1, 2 * model.d_model).view(2, -1).repeat(prompts, 1)
    shared, worst = shared_tokens(model, map(len, rows)), 0.0
    for pushed in (Add(model.n_layers // 2, vectors), Ablate(torch.nn.functional.normalize(vectors, dim=-1))):
        with _given_to(model.points.layers[0]) as given:
            slow = read(model, rows, [pushed], 0, branch=False).logits.float()
        if odd := [tuple(one.shape) for one in given if one.ndim > 1 and one.shape[0] not in (1, len(rows))]:
            return Checked(False, None, f"layers are given what has no place for each prompt, of shape {odd[0]}")
        try:
            off = (read(model, rows, [pushed], shared).logits.float() - slow).abs().max().item()
        except BROKEN as broken:
            if is_out_of_memory(broken):
                raise
            return Checked(False, None, f"{type(broken).__name__}: {first_sentence(broken)}")
        scale = slow.abs().max().item()
        if not off <= TOLERANCE[model.hf.dtype] * scale:
            return Checked(False, None, f"logits off by {off:.2g} where they reach {scale:.2g}")
        worst = max(worst, off / (scale or 1.0))  # a model may have nothing to say
    return Checked(True, worst)


@contextmanager
def _given_to(layer: nn.Module) -> Iterator[list[Tensor]]:
    """All tensors that a layer gets beside the residual stream."""
    given: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = [*args[1:], *(value for name, value in kwargs.items() if name != "hidden_states")]
        parts = (part for value in rest for part in (value if isinstance(value, tuple | list) else [value]))
        given.extend(part for part in parts if torch.is_tensor(part))

    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield given
    finally:
        hook.remove()


def _row(model: LoadedModel, length: int) -> Tokens:
    """A prompt of that many tokens, or as few more as the template takes."""
    template = model.template
    begin, end = list(template.beginning), list(template.end_of_instruction)
    inner = template.tokens("Which rivers of the north are long, and which of them are cold?")[len(begin) : -len(end)]
    missing = max(1, length - len(begin) - len(end))
    return *begin, *(inner * (missing // len(inner) + 1))[:missing], *end
