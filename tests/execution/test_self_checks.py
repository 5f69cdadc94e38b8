"""A prompt's figures depend on the prompt alone, whatever the family; where the fast way is not exact, the slow one."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from rcm.errors import InputError
from rcm.execution import self_checks
from rcm.execution.decoding import reply_tokens
from rcm.execution.engine import engine_of
from rcm.execution.interventions import Add
from rcm.execution.passes import last_logits, read_residuals
from rcm.execution.recording import cache_components
from rcm.execution.self_checks import Checked, may_branch, shared_tokens
from rcm.models import LoadedModel
from rcm.models.random import byte_tokenizer
from tests.conftest import CHAT

PROMPTS = ("Hi", "How do I bake a loaf of bread at home?", "Name a river, then a lake, and say a little about both.")
USUAL = {"vocab_size": 259, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "gpt_neo": {
        **{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, "window_size": 32},
        **{"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512},
    },
    "llama": {**SMALL, "num_key_value_heads": 2},
    "gemma2": {**SMALL, "num_key_value_heads": 2, "sliding_window": 32, "head_dim": 8},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "n_positions": 512},
}


def made(architecture: str, **more: Any) -> LoadedModel:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **{**USUAL, **SHAPES.get(architecture, {}), **more})
    )
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)  # as they come, every token attends to all alike
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    return LoadedModel.of(hf, tokenizer, "chat", batch_size=3)


def alone(model: LoadedModel, prompt: str) -> torch.Tensor:
    with torch.inference_mode():
        return model.hf(input_ids=torch.tensor([model.template.tokens(prompt)])).logits[:, -1]


@pytest.mark.parametrize("architecture", SHAPES)
def test_a_prompt_in_a_batch_is_a_prompt_alone(architecture: str) -> None:
    model = made(architecture)
    wanted = torch.cat([alone(model, prompt) for prompt in PROMPTS])
    assert (last_logits(model, PROMPTS) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    read = read_residuals(model, PROMPTS, [-1], "test", figures=lambda logits, index: logits[:, 7:8])
    assert read.figures is not None
    assert (read.figures - wanted[:, 7:8]).abs().max() < 1e-4 * wanted.abs().max()


def test_alibi_shares_no_beginning(caplog: pytest.LogCaptureFixture) -> None:
    model = made("mpt")
    lengths = [len(model.template.tokens(prompt)) for prompt in PROMPTS]
    assert shared_tokens(model, lengths) == 0
    assert "is read anew for each" in caplog.text
    llama = made("llama")
    assert shared_tokens(llama, lengths) == len(llama.template.beginning) > 0


def test_a_longer_prompt_is_checked_anew_and_a_shorter_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, checked = made("llama"), list[tuple[int, int]]()

    def found_out(_: LoadedModel, shortest: int, longest: int, windowed: bool) -> Checked:
        assert not windowed
        checked.append((shortest, longest))
        return Checked(True)

    monkeypatch.setattr(self_checks, "_found_out", found_out)
    for lengths in ([30, 40], [35], [30, 60], [50, 59], [20]):
        assert self_checks.may_share(model, lengths)
    assert checked == [(30, 40), (30, 60), (20, 60)]


@pytest.mark.parametrize("architecture", SHAPES)
def test_replies_under_many_vectors_are_those_of_each_alone(architecture: str) -> None:
    model = made(architecture)
    rows = [prompt for prompt in PROMPTS for _ in range(3)]
    torch.manual_seed(1)
    vectors = torch.randn(len(rows), model.d_model)
    together = reply_tokens(model, rows, 5, [Add(1, vectors)])
    assert together == [reply_tokens(model, [row], 5, [Add(1, vectors[[i]])])[0] for i, row in enumerate(rows)]


def test_what_is_laid_out_by_head_is_read_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    assert may_branch(made("llama"))
    assert not caplog.text
    for architecture, shape in (("bloom", r"\(24, 1, \d+\)"), ("mpt", r"\(4, 1, \d+\)")):
        assert not may_branch(made(architecture))
        assert re.search(
            rf"read from the start, since .* no place for each prompt, of shape {shape}\)$", caplog.text, re.M
        )


def test_rows_that_break_or_differ_are_read_from_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = self_checks.read

    def off(*given: Any, branch: bool = True) -> Any:
        found = read(*given, branch=branch)
        return found._replace(logits=found.logits * 1.1) if branch else found

    def broken(*given: Any, branch: bool = True) -> Any:
        if branch:
            raise RuntimeError("Sizes of tensors must match.")
        return read(*given, branch=branch)

    for wrong, why in ((off, "logits off by"), (broken, "RuntimeError: Sizes of tensors must match")):
        model = made("llama")
        shared_tokens(model, [20, 60])
        monkeypatch.setattr(self_checks, "read", wrong)
        assert not may_branch(model)
        monkeypatch.undo()
        assert f"read from the start, since rows cannot share what lies before ({why}" in caplog.text


def test_the_checks_are_told_with_the_run() -> None:
    rows = {name: self_checks.self_checks(made(name), [30, 60]).rows for name in ("llama", "mpt", "gemma2")}
    ways = {name: [(row[1], row[2] is not None) for row in some[:2]] for name, some in rows.items()}
    assert ways["llama"] == [("what they begin with is read once", True), ("one row up to the vectors", True)]
    assert all(row[2] < 1e-5 for row in rows["llama"][:2])
    (beginning, measured), (branches, _) = ways["mpt"]
    assert beginning.startswith("each is read from its start (logits off by ")
    assert measured
    assert branches.startswith("each is read from its start (layers are given what has no place for each prompt")
    assert ways["gemma2"][0] == ("each is read from its start (a window is shorter than 60 tokens)", True)


def test_a_prompt_as_long_as_the_model_reads_is_checked() -> None:
    model = made("gpt_bigcode")  # which has 512 positions, and no more
    assert self_checks.self_checks(model, [30, 512]).rows[0][2] < 1e-5


def test_what_looks_ahead_is_refused_behind_a_window_too() -> None:
    fields = {**USUAL, **SHAPES["gemma2"], "use_bidirectional_attention": True}
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma3_text", **fields))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    model = LoadedModel.of(hf, tokenizer, "chat", batch_size=3)
    with pytest.raises(InputError, match="looks at what comes after a token"):
        self_checks.self_checks(model, [30, 60])


def test_the_check_refuses_before_anything_is_measured() -> None:
    model = made("llama")
    model.hf.model.norm = nn.Sequential(model.hf.model.norm, Mixing())
    with pytest.raises(InputError, match="depend on what else is in its batch"):
        self_checks.self_checks(model, [30, 60])


@pytest.mark.parametrize(("dtype", "cure"), [("float16", "model.dtype=bfloat16 or float32"), ("float32", "copy the")])
def test_logits_beyond_numbers_are_said(dtype: str, cure: str) -> None:
    model = made("llama")
    model.hf.to(getattr(torch, dtype)).model.norm.weight.fill_(torch.finfo(getattr(torch, dtype)).max)
    with pytest.raises(InputError, match=f"infinite or not a number.*{dtype}.*; .*{cure}"):
        self_checks.self_checks(model, [30, 60])


class Mixing(nn.Module):
    """Adds to every row what the others hold: whatever is done, a prompt is not measured alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.mean(0, keepdim=True)


def test_a_model_that_mixes_its_rows_is_not_measured() -> None:
    model = made("llama")
    model.hf.model.norm = nn.Sequential(model.hf.model.norm, Mixing())
    with pytest.raises(InputError, match="depend on what else is in its batch"):
        last_logits(model, PROMPTS)


def test_rows_that_break_give_way_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    tokens = [model.template.tokens(prompt) for prompt in PROMPTS[:2]]
    cached = cache_components(model, tokens, tail=2), cache_components(model, tokens[::-1], tail=2)
    assert engine_of(model, *cached, seed=0).path == "rows"

    def broken(*_: Any) -> None:
        raise RuntimeError("The size of tensor a (4) must match b (1). And more.")

    monkeypatch.setattr("rcm.execution.rows.patched_logits", broken)
    engine = engine_of(model, *cached, seed=0)
    assert engine.path == "loop"
    assert engine.reason.endswith("(RuntimeError: The size of tensor a (4) must match b (1))")


def test_one_key_for_all_heads_goes_by_the_loop() -> None:
    model = made("gpt_bigcode")
    tokens = [model.template.tokens(prompt) for prompt in PROMPTS[:2]]
    engine = engine_of(model, cache_components(model, tokens, tail=2), cache_components(model, tokens[::-1], 2), 0)
    assert engine.path == "loop"
    assert engine.reason.startswith("rows do not go through its layers")
