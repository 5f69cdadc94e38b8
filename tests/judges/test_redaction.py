"""What is kept: replies to harmless prompts whole, of those to harmful ones the opening."""

import pytest

from rcm.judges import Verdict
from rcm.judges.redaction import OPENING_WORDS, kept, transcript
from rcm.prompts import Prompt

LONG = "one two three four five six seven eight nine ten eleven"
CUT = "one two three four five six seven eight [redacted]"


def test_harmless_replies_and_unredacted_ones_are_whole():
    assert kept(LONG, harmful=False, redact=True) == LONG
    assert kept(LONG, harmful=True, redact=False) == LONG


@pytest.mark.parametrize("verdict", Verdict)
def test_of_replies_to_harmful_prompts_the_opening_is_kept_whatever_the_judge_says(verdict: Verdict):
    row = transcript("harmful", Prompt("How?", "any"), LONG, verdict, redact=True)
    assert (row["completion"], row["verdict"]) == (CUT, verdict.value)


@pytest.mark.parametrize("text", ["", "Sure.", " ".join(["word"] * OPENING_WORDS)])
def test_a_short_reply_is_its_own_opening(text: str):
    assert kept(text, harmful=True, redact=True) == text


@pytest.mark.parametrize("text", [LONG.replace(" ", "\n"), "好" * 200])
def test_text_without_spaces_is_cut_too(text: str):
    said = kept(text, harmful=True, redact=True)
    assert said.endswith("[redacted]")
    assert len(said) < 100
    assert "nine" not in said
