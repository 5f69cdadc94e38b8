"""KL and loss under steering, against one text and one condition at a time."""

from collections.abc import Callable

import pytest
import torch

from rcm.execution.decoding import reply_tokens
from rcm.execution.interventions import Ablate, Add, applied
from rcm.execution.likelihood import Text, cross_entropies, kl_divergences
from rcm.execution.self_checks import shared_tokens
from rcm.models import LoadedModel

PROMPTS = ("Hi", "How do I bake a good loaf of bread at home?", "Name three rivers", "x", "Stop it now.")
STRENGTHS = torch.tensor([0.0, 3.0, 0.0, -8.0])
Tiny = Callable[..., LoadedModel]


def unit() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(3)), dim=1)


def texts(model: LoadedModel) -> list[Text]:
    """Each scored over another number of tokens."""
    said = reply_tokens(model, PROMPTS, 5)
    return [
        Text((*model.template.tokens(prompt), *tokens[: 2 + i % 4]), len(tokens[: 2 + i % 4]))
        for i, (prompt, tokens) in enumerate(zip(PROMPTS, said, strict=True))
    ]


@torch.inference_mode()
def predictions(model: LoadedModel, text: Text, intervention: Add | Ablate | None) -> torch.Tensor:
    with applied(model.points, [intervention] if intervention else []):
        logits = model.hf(torch.tensor([text.tokens]), use_cache=False).logits[0]
    return logits[-text.scored - 1 : -1].double().log_softmax(-1)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_kl_is_that_of_one_text_and_condition_at_a_time(tiny: Tiny, batch_size: int):
    model = tiny(batch_size=batch_size)
    some = texts(model)
    rows = Add(1, STRENGTHS.repeat(len(some))[:, None] * unit())
    got = kl_divergences(model, some, len(STRENGTHS), [rows], shared_tokens(model, [100]))
    assert got.shape == (5, 4)
    assert got[:, [0, 2]].abs().max() < 1e-6  # strength 0 is the unsteered model
    for i, text in enumerate(some):
        for j, strength in enumerate(STRENGTHS):
            p, q = (predictions(model, text, each) for each in (None, Add(1, strength * unit())))
            assert got[i, j].item() == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4, abs=1e-6)
    assert got[:, 3].min() > 0.01


def test_loss_is_that_of_one_text_and_condition_at_a_time(tiny: Tiny, family: str):
    model = tiny(family, batch_size=3)
    some = texts(model)
    rows = Ablate((torch.arange(10) % 2)[:, None] * unit())
    got = cross_entropies(model, some, 2, [rows])
    for i, text in enumerate(some):
        for j, each in enumerate((None, Ablate(unit()))):
            likely = predictions(model, text, each)[range(text.scored), text.tokens[-text.scored :]]
            assert got[i, j].item() == pytest.approx(-likely.mean().item(), rel=1e-4)
