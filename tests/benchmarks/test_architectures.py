"""Every causal language model of transformers is measured rightly, or refused in one sentence: no third way."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.architectures import (
    NOT_BUILT,
    REFUSED,
    RUNS,
    Examined,
    architectures,
    examined,
    tiny_config,
    tiny_model,
)
from rcm.errors import InputError
from rcm.execution.passes import read_residuals
from rcm.judges.base import Judge, Verdict
from rcm.record.run import Run
from rcm.record.storage import Store
from tests.planted import MAP, TRIGGER, composed, planted_prompts, reported

# Whose default config gives no small one; of the others all must be built.
TOO_SPECIAL = {
    *("blt", "cohere_compass_text", "dbrx", "deepseek_v4", "dots1", "dots3_note", "dots3_note_text", "gemma3n"),
    *("gemma4_assistant", "musicgen", "musicgen_melody", "reformer", "zamba2"),
}
ONE_SENTENCE = re.compile(r"^[^\n]{20,500}[^.\n]\.$")
SEEN: dict[str, Examined] = {}


@pytest.mark.parametrize("architecture", architectures())
def test_it_is_measured_rightly_or_refused_in_one_sentence(architecture: str) -> None:
    found = SEEN[architecture] = examined(architecture)
    if found.outcome == NOT_BUILT:
        assert architecture in TOO_SPECIAL, found.why
    elif found.outcome == REFUSED:
        assert ONE_SENTENCE.match(found.why), found.why
    else:
        assert found.error is not None
        assert found.error < 1e-4
        assert found.replies
        assert found.exact
        assert (found.way, bool(found.why)) in (("rows", False), ("loop", True))


def test_those_that_people_have_are_measured() -> None:
    wanted = {
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma2",
        "gemma3",
        "gemma4",
        "mistral",
        "phi3",
        "gpt2",
        "gpt_neox",
    }
    wanted |= {"opt", "olmo2", "gpt_oss", "granite", "mixtral", "falcon", "bloom", "mpt", "deepseek_v3", "smollm3"}
    assert {name: one.why for name, one in map(_seen, wanted) if one.outcome != RUNS} == {}


def _seen(architecture: str) -> tuple[str, Examined]:
    return architecture, SEEN.get(architecture) or examined(architecture)


def test_what_is_no_causal_language_model_is_refused() -> None:
    """BERT as it comes looks at what follows a token, though transformers lists it among causal models."""
    config = tiny_config("bert")
    config.is_decoder = False
    model = tiny_model(config)
    with pytest.raises(InputError, match=r"^bert looks at what comes after a token \(logits change"):
        read_residuals(model, ["Hi", "How are you?"], [-1], "test")


class ByPrompt(Judge):
    """Random weights do not refuse; so that all is measured, they are taken to where a prompt has the trigger."""

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        return [Verdict.REFUSAL if TRIGGER in prompt else Verdict.COMPLIANCE for prompt in prompts]


# One of each build, in this order: rotary positions, a gated MLP; Conv1D, learned positions; attention and MLP side by
# side; shared keys, norms on both sides, windows; inputs of each layer; experts; sinks; ALiBi; latent attention.
REPRESENTATIVES = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma4", "qwen3_moe", "gpt_oss", "bloom", "deepseek_v3")
QUICK: dict[str, Any] = {
    **{"max_new_tokens": 2, "control_tokens": 2, "strengths": [1.0], "curve_controls": 1, "kl_tokens": 2},
    **{"kl_prompts": 2, "compared_prompts": 1, "plain_texts": 1, "prompts": 2, "pairs": 2, "position_pairs": 1},
    **{"activation_pairs": 2, "random_sets": 5, "leading_heads": 1, "knock_out_pairs": 1, "effect_prompts": 2},
    **{"null_draws": 3, "null_directions": 1, "filter": False, "min_gap": 0.0, "positions": [-1]},
    **{"test_pairs": 2, "candidates": 4, "random": 4, "share_of_neurons": 0.01},
}


@pytest.mark.parametrize("architecture", REPRESENTATIVES)
def test_all_methods_run(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcm.judges.base.degenerate", lambda completion: False)
    judge, prompts = ByPrompt(kappa=None, second=None), planted_prompts(sizes=(12, 8, 8))
    model = replace(tiny_model(tiny_config(architecture)), refusal_tokens=(40,))
    found = reported(composed(*MAP, "neurons", **QUICK), model, prompts, judge)
    assert found["behaviour/outcome"].value == "refusal"
    assert found["direction/outcome"].value in ("selected", "nearest_miss")
    assert np.isfinite(found["patching/critical_heads"].value)
    experts = architecture in ("qwen3_moe", "gpt_oss", "deepseek_v3")  # in every layer of these tiny ones
    assert (found["neurons/outcome"].value == "no_neurons") == experts
    assert experts or np.isfinite(found["neurons/exact_share"].value)
    assert found["steering/force_rate"].n == 2
    assert (found["steering/force_rate"].value, found["steering/suppress_rate"].value) == (0, 0)

    run = Run(
        "base", tmp_path / "base", {"model": "base", "method": "map"}, {"model": {}, "method": {}}, {"started": "now"}
    )
    run.directory.mkdir()
    with Store(run) as store:
        for result in found.values():
            store.save(result)
    other = replace(model, identity={"name": "other"})
    few = {"refits": 2, "max_new_tokens": 2, "prompts": 2, "effect_prompts": 2, "pairs": 2, "null_directions": 1}
    brought = reported(composed("transplant", source=str(run.directory), strength=1.0, **few), other, prompts, judge)
    assert brought["transplant/force_rate_from_base"].n == 2
    assert brought["transplant/cosine_from_base"].value == pytest.approx(1, abs=1e-3)
