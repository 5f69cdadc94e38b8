"""Replies: rows of a batch keep to themselves, greedy whatever the checkpoint says, and end with the turn."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from tokenizers import decoders
from torch import Tensor

from rcm.execution.decoding import replies, reply_tokens
from rcm.execution.interventions import Ablate, Add, Clamp, Intervention, applied
from rcm.models import LoadedModel

PROMPTS = ("Hi", "How do I bake a good loaf of bread at home?", "Name three rivers", "x")
LENGTH = 4
Tiny = Callable[..., LoadedModel]


def unit(rows: int) -> Tensor:
    directions = torch.randn(rows, 32, generator=torch.Generator().manual_seed(3))
    return directions / directions.norm(dim=-1, keepdim=True)


@torch.inference_mode()
def slow_reply(model: LoadedModel, prompt: str, interventions: Sequence[Intervention]) -> str:
    """The reference: the whole text again for every token."""
    start = tokens = model.template.tokens(prompt)
    stops = model.hf.generation_config.eos_token_id
    with applied(model.points, interventions):
        while len(tokens) < len(start) + LENGTH and tokens[-1] not in stops:
            tokens = [*tokens, int(model.hf(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())]
    return model.template.reply(tokens[len(start) :])


def test_mixed_strengths_in_one_batch_are_those_one_at_a_time(tiny: Tiny, family: str):
    model, r, strengths = tiny(family), unit(4), torch.tensor([0.0, 4.0, -8.0, 2.0])
    model.template.tokenizer.backend_tokenizer.decoder = decoders.Fuse()  # bytes that are no text stay apart
    mixed: list[Intervention] = [
        Add(1, strengths[:, None] * r),
        Ablate((torch.arange(4) % 2)[:, None] * r.flip(0)),
        Clamp(2, r.roll(1, 0), strengths),
    ]
    wanted = [slow_reply(model, p, [each.rows([row]) for each in mixed]) for row, p in enumerate(PROMPTS)]
    assert replies(model, PROMPTS, LENGTH, mixed) == wanted
    alone = [replies(model, [p], LENGTH, [each.rows([row]) for each in mixed])[0] for row, p in enumerate(PROMPTS)]
    assert alone == wanted
    plain = [slow_reply(model, p, []) for p in PROMPTS]
    assert replies(model, PROMPTS, LENGTH) == plain
    assert plain != wanted


def test_prompts_at_several_strengths_are_those_one_at_a_time(tiny: Tiny, family: str):
    """Rows that share prompts, and rows that share interventions, in one batch; by transformers' own decoding."""
    model = tiny(family, batch_size=2)  # eight times as many rows
    rows = [(prompt, strength) for prompt in PROMPTS for strength in (0.0, 20.0, -20.0)]
    pushed = Add(1, torch.tensor([[strength] for _, strength in rows]) * unit(1))
    said = reply_tokens(model, [prompt for prompt, _ in rows], LENGTH, [pushed])
    for row, (prompt, _) in enumerate(rows):
        batch = model.template.batch([prompt])
        with applied(model.points, [pushed.rows([row])]):
            alone = model.hf.generate(**batch._asdict(), max_new_tokens=LENGTH)
        assert said[row] == alone[0, batch.input_ids.shape[1] :].tolist()
    assert any(said[row] != said[row - row % 3] for row in range(len(rows)))


def test_a_row_that_has_ended_is_not_read_on(tiny: Tiny):
    model, widths = chain(tiny, "abcdef", None), []
    ends = [model.template.tokenizer(end)["input_ids"][0] for end in "cf"]
    model.hf.generation_config.eos_token_id = ends[1]
    shift = torch.zeros(2, 32)
    shift[1] = 50 * (model.hf.get_input_embeddings().weight[model.template.tokenizer("e")["input_ids"][0]])
    model.hf.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    assert replies(model, ["x", "x"], 20, [Add(0, shift)]) == ["abcdef", "f"]
    assert widths[-5:] == [1, 1, 1, 1, 1]


def chain(tiny: Tiny, text: str, template: str | None) -> LoadedModel:
    """A model that follows each character of `text` by the next, and starts after the prompt's last."""
    model = tiny(template=template)
    model.template.tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    model.hf.resize_token_embeddings(260)
    ids = [model.template.tokens("x")[-1], *model.template.tokenizer(text, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        for name, parameter in model.hf.named_parameters():
            parameter.fill_(float("norm" in name))
        for axis, (now, following) in enumerate(pairwise(ids)):
            model.hf.get_input_embeddings().weight[now, axis] = 1.0
            model.hf.get_output_embeddings().weight[following, axis] = 1.0
    return LoadedModel.of(model.hf, model.template.tokenizer, "chat", batch_size=2)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("<bos>{{ messages[0].content }}<turn>\n>", "<turn>"),  # what closes the user's turn closes the model's
        ("<bos>{{ messages[0].content }}<turn>\n>", "<eos>"),
        (None, "<eos>"),
    ],
)
def test_generation_stops_at_the_end_of_the_turn(tiny: Tiny, template: str | None, end: str):
    model = chain(tiny, f"abc{end}def", template)
    replies(model, ["x"], 20)  # checks itself the first time
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.hf.register_forward_pre_hook(count)
    assert replies(model, ["x"], 20) == ["abc"]
    assert passes == len("abc") + 1
    assert replies(model, ["x", "longer", "y"], 20) == ["abc"] * 3
    assert replies(model, ["x"], 2) == ["ab"]


def test_a_checkpoint_adds_its_own_ends(tiny: Tiny):
    model = chain(tiny, "abcdef", None)
    model.hf.generation_config.eos_token_id = model.template.tokenizer("d")["input_ids"]
    again = LoadedModel.of(model.hf, model.template.tokenizer, "plain")
    assert replies(again, ["x"], 20) == ["abcd"]


def test_a_self_written_next_turn_is_cut_off(tiny: Tiny):
    assert replies(chain(tiny, "abc\nUser: d", None), ["x"], 9) == ["abc"]


def test_generation_settings_of_the_checkpoint_do_not_leak_in(tiny: Tiny):
    model = chain(tiny, "abab", "{{ messages[0].content }}\n>")
    model.hf.generation_config.update(
        do_sample=True, temperature=9.0, top_k=3, num_beams=2, repetition_penalty=9.0, no_repeat_ngram_size=2
    )
    again = LoadedModel.of(model.hf, model.template.tokenizer, "chat")
    assert replies(again, ["x", "yy"], 8) == ["abababab"] * 2


def test_hooks_are_set_once_for_a_whole_batch_of_replies(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    """And once for the reading before: not at every token, though rows end on the way."""
    model, set_by = tiny(), list[int]()

    def noted(*given: Any) -> Any:
        set_by.append(1)
        return applied(*given)

    reply_tokens(model, PROMPTS, 2, [Ablate(unit(1))])  # checks itself the first time
    monkeypatch.setattr("rcm.execution.decoding.applied", noted)
    long = reply_tokens(model, PROMPTS, 24, [Ablate(unit(1))])
    assert max(map(len, long)) > 8
    assert len(set_by) == 1
