"""Figures of logits, some at a time, against the textbook's formula in float64."""

import pytest
import torch

from rcm.stats import metrics
from rcm.stats.metrics import first_token_probabilities, refusal_log_odds

LOGITS = 5 * torch.randn(7, 50, generator=torch.manual_seed(0))


@pytest.mark.parametrize("cached", [1, 120, 2**22])
@pytest.mark.parametrize("tokens", [(3,), (3, 17, 4), ()])
def test_log_odds_are_those_of_the_whole_softmax(
    tokens: tuple[int, ...], cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CACHED", cached)
    every = LOGITS.double().softmax(-1)
    p = every[:, list(tokens)].sum(-1)
    torch.testing.assert_close(
        refusal_log_odds(LOGITS, tokens), torch.log(p + 1e-8) - torch.log(1 - p + 1e-8), rtol=1e-5, atol=1e-5
    )
    these, others = first_token_probabilities(LOGITS, tokens)
    torch.testing.assert_close(these, every[:, list(tokens)], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(these.sum(-1) + others, torch.ones(7, dtype=torch.float64))


def test_what_is_all_but_certain_keeps_its_odds() -> None:
    """One less a probability in float32 would be nothing."""
    logits = torch.zeros(1, 50)
    logits[0, 0] = 20.0
    _, others = first_token_probabilities(logits, [0])
    assert others.item() == pytest.approx(49 * torch.tensor(-20.0).double().exp().item(), rel=1e-5)
