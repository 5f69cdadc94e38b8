"""A base without a chat template is asked in that of the model that was tuned from it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rcm.errors import InputError
from rcm.models.lending import asked
from rcm.models.template import Lent, Template
from tests.conftest import CHAT
from tests.models.test_template import tokenizer

Sentence = Callable[[Callable[[], object]], str]


def kept(folder: Path, template: str | None) -> Path:
    tokenizer(template).save_pretrained(folder)
    return folder


def test_a_data_sets_own_kinds_are_as_they_are() -> None:
    assert asked("chat") == "chat"
    assert asked("plain") == "plain"


def test_a_folder_lends_its_template(tmp_path: Path) -> None:
    lent = asked(f"of:{kept(tmp_path / 'tuned', CHAT)}")
    assert lent == Lent(CHAT, "tuned")
    base, tuned = Template.of(tokenizer(None), lent), Template.of(tokenizer(CHAT), "chat")
    assert (base.kind, base.described) == ("chat", "chat, of tuned")
    assert base.tokens("Name a river") == tuned.tokens("Name a river")
    assert base.end_of_instruction == tuned.end_of_instruction
    assert base.digest == tuned.digest != Template.of(tokenizer(None), "chat").digest
    # The owner itself, asked in what is its own.
    assert Template.of(tokenizer(CHAT), lent).digest == tuned.digest


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    kept(tmp_path / "tuned", CHAT)
    assert asked("of:~/tuned") == Lent(CHAT, "tuned")


def test_a_tokenizer_that_does_not_know_the_special_tokens_has_another_digest(tmp_path: Path) -> None:
    strange = CHAT.replace("[{{ m.role }}]", "<|user|>", 1)
    lent = asked(f"of:{kept(tmp_path, strange)}")
    knowing = tokenizer(strange)
    knowing.add_special_tokens({"additional_special_tokens": ["<|user|>"]})
    assert Template.of(tokenizer(None), lent).render("Hi") == Template.of(knowing, "chat").render("Hi")
    assert Template.of(tokenizer(None), lent).digest != Template.of(knowing, "chat").digest


def test_what_has_no_template_lends_none(tmp_path: Path, sentence: Sentence) -> None:
    for owner, told in (
        (str(kept(tmp_path / "base", None)), "has no chat template; name a model that has one"),
        (str(tmp_path), "cannot read its tokenizer"),
        ("smollm2-135m-nothing", "names no model; give an option of `model`"),
        ("folder", "say which one, as of:FOLDER or of:FILE.gguf"),
    ):
        message = sentence(lambda owner=owner: asked(f"of:{owner}"))
        assert told in message
        assert f"of:{owner}" in message


def test_several_templates_are_none(tmp_path: Path) -> None:
    several = tokenizer(CHAT)
    several.chat_template = {"default": CHAT, "tool_use": CHAT}
    several.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="several chat templates"):
        asked(f"of:{tmp_path}")


def test_a_base_of_the_real_model_without_its_template(smollm2_folder: Path) -> None:
    lent = asked("of:smollm2-135m-refusal")
    tuned = AutoTokenizer.from_pretrained(smollm2_folder)
    base = AutoTokenizer.from_pretrained(smollm2_folder)
    base.chat_template = None
    assert Template.of(base, "chat").kind == "plain"
    assert Template.of(base, lent).digest == Template.of(tuned, "chat").digest
    assert Template.of(base, lent).tokens("Name a river") == Template.of(tuned, "chat").tokens("Name a river")
