"""Counts what really goes through a model: tokens, layer by layer, logits, passes, and what goes back."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rcm.models import LoadedModel

ONE_AT_A_TIME = 1  # token, of a row whose reply goes on


@dataclass
class Counted:
    """As `rcm.execution.work.Work` counts. `tokens`: of which each layer that it goes through is its share; those that
    are generated one at a time, behind a cache, are `generated`."""

    passes: int = 0
    tokens: float = 0.0
    generated: int = 0
    logits: int = 0
    gradients: float = 0.0


@contextmanager
def counted(model: LoadedModel) -> Iterator[Counted]:
    """Hooks on the model, its blocks and its unembedding, which change nothing."""
    found, layers = Counted(), model.points.layers
    # Of the pass under way: whether it is a step of a reply.
    state = {"step": False}

    def begins(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        found.passes += 1
        ids, cache = kwargs.get("input_ids"), kwargs.get("past_key_values")
        state["step"] = (
            ids is not None and ids.shape[1] == ONE_AT_A_TIME and cache is not None and cache.get_seq_length() > 0
        )

    def of_layer(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        hidden: Tensor = args[0] if args else kwargs["hidden_states"]
        n = hidden.numel() / hidden.shape[-1] / len(layers)
        if (output[0] if isinstance(output, tuple) else output).requires_grad:
            found.gradients += n
        elif state["step"]:
            found.generated += n  # type: ignore[assignment]
        else:
            found.tokens += n

    def of_head(_: Any, __: tuple[Tensor], logits: Tensor) -> None:
        found.logits += logits.numel() // logits.shape[-1]

    with ExitStack() as stack:
        stack.callback(model.hf.register_forward_pre_hook(begins, with_kwargs=True).remove)
        stack.callback(model.hf.get_output_embeddings().register_forward_hook(of_head).remove)
        for layer in layers:
            stack.callback(layer.register_forward_hook(of_layer, with_kwargs=True).remove)
        yield found
