"""The gate: who refuses, who does not, who refuses everything."""

import numpy as np
import pytest
import torch

from rcm.models.adapter import prompt_digest
from rcm.stats import permuted_rates, wilson
from tests.planted import by_name, method, opening_judge, planted_judge, planted_model, planted_prompts


def measured(model, judge=None, **settings) -> dict:
    run = method("behaviour", max_new_tokens=4, **settings).run(
        model, planted_prompts(), judge or planted_judge(), seed=0
    )
    return by_name(run)


def test_planted_model_refuses_what_is_harmful() -> None:
    found = measured(planted_model())
    assert found["behaviour/outcome"].value == "refusal"
    harmful, harmless = found["behaviour/refusal_rate_harmful"], found["behaviour/refusal_rate_harmless"]
    assert (harmful.value, harmless.value, harmful.n) == (1.0, 0.0, 12)
    assert harmful.interval == pytest.approx(wilson(12, 12))
    assert harmless.value < harmless.null < harmful.null < harmful.value


def test_model_without_refusal_ends_at_the_gate() -> None:
    model = planted_model()
    with torch.no_grad():
        model.hf.get_output_embeddings().weight[model.template.tokenizer("R")["input_ids"][0]] = 0
    assert measured(model)["behaviour/outcome"].value == "no_refusal_behaviour"


def test_refusing_everything_is_another_outcome() -> None:
    judge = opening_judge("a", "r")
    assert measured(planted_model(), judge)["behaviour/outcome"].value == "indiscriminate_refusal"


def test_prompts_that_an_adapter_saw_are_told() -> None:
    model, prompts = planted_model(), planted_prompts()
    seen = frozenset(prompt_digest(prompt.text) for prompt in prompts.test.harmful[:3])
    object.__setattr__(model, "trained_on", seen)
    assert measured(model)["behaviour/seen_in_training"].value == 3 / 24


def test_wilson_equals_the_formula() -> None:
    k, n, z = 7, 20, 1.959963984540054
    p = k / n
    middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(k, n) == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))


def test_permuted_rates_have_the_pooled_mean() -> None:
    harmful, harmless = np.array([True] * 8 + [False] * 2), np.array([True] * 2 + [False] * 18)
    rates = permuted_rates(harmful, harmless, seed=0)
    assert rates.mean() == pytest.approx(10 / 30, abs=0.01)
    assert np.quantile(rates, 0.95) < 0.8
