"""Prompts as tokens: the end of the instruction is found, is the same for every prompt, and BOS comes once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rcm.judges.base import answer_of
from rcm.models import LoadedModel
from rcm.models.random import SPECIAL, byte_tokenizer
from rcm.models.template import PROBES, Template
from tests.conftest import CHAT, ROOT

SYSTEM = "{% if messages[0].role != 'system' %}<bos>[system] You are a helpful assistant.<eos>\n{% endif %}"
TURNS = "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}<eos>\n{% endfor %}[assistant]"
TOUCHING = "<bos>User: {{ messages[0].content }}\nAssistant:"
Sentence = Callable[[Callable[[], object]], str]


def tokenizer(template: str | None, *merges: str, bos: bool = False) -> PreTrainedTokenizerBase:
    """Bytes, and pairs of them as one token; with `bos`, one that puts BOS before every text."""
    alphabet = (*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *merges)
    pairs = [(merge[0], merge[1]) for merge in merges]
    made = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(alphabet)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<bos> $0", special_tokens=[("<bos>", 1)])
    pad, begin, end = SPECIAL
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, bos_token=begin, eos_token=end)
    fast.chat_template = template
    return fast


def text(template: Template, tokens: tuple[int, ...]) -> str:
    return template.tokenizer.decode(list(tokens))


def own_prompts() -> list[str]:
    rows = [json.loads(line) for name in ("pairs", "lookalike") for line in (ROOT / f"rcm/assets/{name}.jsonl").open()]
    return [row[key] for row in rows for key in ("harmful", "harmless", "prompt") if key in row]


@pytest.mark.parametrize(
    ("template", "merges", "beginning", "end"),
    [
        (CHAT, (), "<bos>[user] ", " [/user]\n[assistant] "),
        (SYSTEM + TURNS, (), "<bos>[system] You are a helpful assistant.<eos>\n[user]\n", "<eos>\n[assistant]"),
        (TOUCHING, (), "<bos>User: ", "\nAssistant:"),
        # The line break belongs to the prompt's last character in some prompts, so it is no part of the template's own.
        (TOUCHING, (".Ċ", "?Ċ"), "<bos>User: ", "Assistant:"),
        (TOUCHING, ("ĠN", "ĠI"), "<bos>User:", "\nAssistant:"),
        (None, (), "User: ", "\nAssistant:"),
    ],
)
def test_what_every_prompt_begins_and_ends_with(
    template: str | None, merges: tuple[str, ...], beginning: str, end: str
):
    found = Template.of(tokenizer(template, *merges), "chat")
    assert text(found, found.beginning) == beginning
    assert text(found, found.end_of_instruction) == end
    assert len(found.end_of_instruction_text) == len(found.end_of_instruction)
    for prompt in own_prompts():
        tokens = tuple(found.tokens(prompt))
        assert tokens[: len(found.beginning)] == found.beginning
        assert tokens[-len(found.end_of_instruction) :] == found.end_of_instruction
        assert len(tokens) > len(found.beginning) + len(found.end_of_instruction)
    found.check(own_prompts(), 512)


@pytest.mark.parametrize("kind", ["chat", "plain"])
def test_a_real_tokenizer(smollm2_folder: Path, kind: str):
    found = Template.of(AutoTokenizer.from_pretrained(smollm2_folder), kind)
    found.check(own_prompts(), 512)
    chat = ("<|im_end|>", "\\n", "<|im_start|>", "ass", "istant", "\\n")
    assert tuple(found.end_of_instruction_text) == (chat if kind == "chat" else ("\\n", "Ass", "istant", ":"))
    assert text(found, found.beginning).startswith("<|im_start|>system" if kind == "chat" else "User:")
    tokens = found.tokens("Name a river")
    assert found.tokenizer.decode(tokens) == found.render("Name a river")
    assert found.end_of_turn == found.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_without_a_chat_template_the_text_is_plain():
    found = Template.of(tokenizer(None), "chat")
    assert found.kind == "plain"
    assert found.render("Hi {x}") == "User: Hi {x}\nAssistant:"
    assert Template.of(tokenizer(CHAT), "plain").render("Hi") == "User: Hi\nAssistant:"


@pytest.mark.parametrize(("kind", "template"), [("chat", CHAT), ("chat", SYSTEM + TURNS), ("plain", CHAT)])
def test_bos_comes_once(kind: str, template: str):
    found = Template.of(tokenizer(template, bos=True), kind)
    tokens = found.tokens("Hi")
    assert tokens[0] == found.tokenizer.bos_token_id
    assert tokens.count(found.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("template", [CHAT, SYSTEM + TURNS, TOUCHING])
def test_a_chat_is_rendered_as_transformers_does(template: str):
    found = Template.of(tokenizer(template, bos=True), "chat")
    for prompt in PROBES:
        chat = [{"role": "user", "content": prompt}]
        assert found.render(prompt) == found.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        encoded = found.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        assert found.tokens(prompt) == encoded["input_ids"]


@pytest.mark.parametrize(
    "date",
    ["{{ date_string }}", "{{ strftime_now('%d %b %Y') }}", "{% if not date_string %}never{% endif %}26 Jul 2024"],
)
def test_today_is_always_the_same_day(date: str):
    assert Template.of(tokenizer(date + CHAT), "chat").render("Hi").startswith("26 Jul 2024<bos>")


def test_chains_of_thought_stay_closed():
    template = CHAT + "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    assert Template.of(tokenizer(template), "chat").render("Hi").endswith("[assistant] ")


@pytest.mark.parametrize("opened", ["<think>\n", "<think>", "<think>\n\n"])
def test_thoughts_that_the_template_opens_in_any_case_are_closed_behind_it(opened: str):
    """DeepSeek-R1's does. The first token is then the answer's, also where a system prompt speaks of thoughts."""
    written = f"</think>{CHAT}{{{{ {opened!r} }}}}"  # in an expression, since Jinja drops a line's end at the end
    found = Template.of(tokenizer(written), "chat")
    assert found.closing.endswith("\n</think>\n\n")
    assert found.render("Hi").endswith(f"[assistant] {opened}{found.closing}")
    assert found.described == "chat, thoughts closed"
    assert text(found, found.end_of_instruction).endswith(f"{opened}{found.closing}")
    itself = Template.of(tokenizer(f"{written}{{{{ {found.closing!r} }}}}"), "chat")
    assert itself.closing == ""
    assert found.digest == itself.digest  # of what the model reads, whoever wrote it
    assert found.digest != Template.of(tokenizer(f"</think>{CHAT}"), "chat").digest


def test_thoughts_of_a_model_that_opens_them_by_itself_are_closed_where_that_is_asked():
    found = Template.of(tokenizer(CHAT), "no_thinking")
    assert found.render("Hi").endswith("[assistant] <think>\n\n</think>\n\n")
    assert (found.kind, found.described) == ("chat", "chat, thoughts closed")
    assert Template.of(tokenizer(CHAT), "chat").closing == ""
    once = Template.of(tokenizer(CHAT + "<think>\n\n</think>\n\n"), "no_thinking")
    assert once.render("Hi").count("</think>") == 1
    assert Template.of(tokenizer(CHAT + "<think>\n"), "no_thinking").render("Hi").count("<think>") == 1
    assert Template.of(tokenizer(None), "no_thinking").render("Hi") == "User: Hi\nAssistant:"


@pytest.mark.parametrize("special", [True, False])
def test_thoughts_stay_thoughts_where_the_tokenizer_has_tokens_for_them(special: bool):
    """Special ones are left out of a reply's text, and its thoughts would be judged as its answer."""
    knowing = tokenizer(CHAT)
    marks = ["<think>", "</think>"]
    knowing.add_tokens([AddedToken(mark, special=special) for mark in marks])
    found = Template.of(knowing, "chat")
    cut, done = "<think>I cannot help with crimes, but", "<think>A crime.</think>I cannot help.<eos>"
    replies = [found.reply(knowing(one, add_special_tokens=False)["input_ids"]) for one in (cut, done)]
    assert replies == [cut, done.removesuffix("<eos>")]
    assert [answer_of(one) for one in replies] == ["", "I cannot help."]


@pytest.mark.parametrize(
    ("prompt", "longest", "told"),
    [("x" * 90, 100, "119 tokens"), ("Is that so~", 200, "merges"), ("ok\nfine~", 200, "Prompt 1 ('ok\\nfine~'")],
)
def test_prompts_that_do_not_fit_are_told_in_a_sentence(sentence: Sentence, prompt: str, longest: int, told: str):
    found = Template.of(tokenizer(CHAT.replace(" [/{{ m.role }}]", "\n[/{{ m.role }}]"), "~Ċ"), "chat")
    found.check(["Fine", "~ fine"], longest)
    message = sentence(lambda: found.check(["Fine", prompt], longest))
    assert told in message
    assert "Prompt 1" in message
    assert "drop" in message


def test_a_template_that_ends_in_the_prompt_has_no_place_to_look_at(sentence: Sentence):
    found = Template.of(tokenizer("{{ messages[0].content }}"), "chat")
    assert "dataset.template=plain" in sentence(lambda: found.end_of_instruction)


def test_the_turn_ends_as_the_users_does_or_with_the_text():
    special = tokenizer(CHAT.replace(" [/{{ m.role }}]", "<turn>"))
    special.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    assert Template.of(special, "chat").end_of_turn == special.convert_tokens_to_ids("<turn>")
    assert Template.of(special, "plain").end_of_turn == special.eos_token_id
    assert Template.of(tokenizer(CHAT), "chat").end_of_turn == special.eos_token_id


@pytest.mark.parametrize(
    ("kind", "written", "kept"),
    [
        ("plain", " No.\nUser: and then?\nAssistant: No.", "No."),
        ("chat", " No.\nUser: and then?", "No.\nUser: and then?"),
        ("plain", "User: is a word\n", "User: is a word"),
        ("chat", "Fine.<eos><pad><pad>", "Fine."),
        ("chat", "<eos>", ""),
    ],
)
def test_a_reply_is_one_turn_without_special_tokens(kind: str, written: str, kept: str):
    found = Template.of(tokenizer(CHAT), kind)
    assert found.reply(found.tokenizer(written, add_special_tokens=False)["input_ids"]) == kept


def test_a_character_cut_in_half_is_no_part_of_a_reply():
    """Stopped within a character of several bytes, as replies in Chinese often are."""
    found = Template.of(tokenizer(CHAT), "chat")
    whole = found.tokenizer("好的吧", add_special_tokens=False)["input_ids"]
    assert len(whole) == 9
    assert [found.reply(whole[:length]) for length in (9, 8, 7, 6)] == ["好的吧", "好的", "好的", "好的"]


def test_equal_digests_are_equal_prompts():
    templates = [Template.of(tokenizer(chat), "chat") for chat in (CHAT, SYSTEM + TURNS, TOUCHING, None, "Hey " + CHAT)]
    templates.append(Template.of(tokenizer(TOUCHING, "?Ċ"), "chat"))
    assert len({template.digest for template in templates}) == 6
    assert Template.of(tokenizer(CHAT), "chat").digest == templates[0].digest
    assert Template.of(tokenizer(CHAT), "plain").digest == templates[3].digest


def test_batches_are_padded_on_the_left_and_positions_do_not_count_it():
    found = Template.of(tokenizer(CHAT), "chat")
    batch = found.batch(["a", "abc"], skip=len(found.beginning))
    assert batch.attention_mask.tolist() == [[0, 0] + [1] * 22, [1] * 24]
    assert batch.position_ids[0, :4].tolist() == [0, 0, 0, 1]
    assert tuple(batch.input_ids[0, -21:].tolist()) == found.end_of_instruction
    assert torch.equal(batch.input_ids[:, -21:][0], batch.input_ids[:, -21:][1])


def test_without_a_padding_token_any_will_do(tiny: Callable[..., LoadedModel]):
    bare = byte_tokenizer()
    bare.pad_token = None
    assert Template.of(bare, "plain").pad == bare.eos_token_id
    bare.eos_token = None
    assert Template.of(bare, "plain").pad == 0
    assert LoadedModel.of(tiny().hf, bare, "plain").hf.generation_config.eos_token_id == [2]  # the checkpoint's own


IN_PARTS = (
    "<bos>{% for m in messages %}[{{ m.role }}] {% for part in m.content %}{{ part.text }}{% endfor %}[/]{% endfor %}"
    "[assistant]"
)


def test_a_template_that_wants_parts_gets_parts():
    found = Template.of(tokenizer(IN_PARTS), "chat")
    found.check(["Name a river"], 512)
    assert found.render("Name a river") == "<bos>[user] Name a river[/][assistant]"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('A conversation begins with the system') }}", "A conversation begins with the system"),
        ({"rag": CHAT, "tool_use": CHAT}, "does not take a prompt"),
        ("<bos>[user] [assistant]", "leaves out what the user says"),
        ("{{ messages[0].content.text() }}", "does not take a prompt"),
    ],
    ids=["raises", "names and no default", "says nothing", "undefined"],
)
def test_a_template_that_takes_no_prompt_is_told_with_the_cure(sentence: Sentence, template: Any, told: str):
    found = Template.of(tokenizer(template), "chat")
    message = sentence(lambda: found.check(["Name a river"], 512))
    assert told in message
    assert "dataset.template=plain" in message


def test_a_reply_counts_to_what_the_model_reads(sentence: Sentence):
    found = Template.of(tokenizer(CHAT), "chat")
    length = len(found.tokens("Name a river"))
    found.check(["Name a river"], length + 8, reply=8)
    message = sentence(lambda: found.check(["Name a river"], length + 7, reply=8))
    assert f"has {length} tokens, and a reply of 8 makes it {length + 8}, and the model reads {length + 7}" in message
    assert "max_new_tokens" in message
