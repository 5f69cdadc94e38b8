"""What is kept: refusals and harmless replies whole, the opening of whatever else answers a harmful prompt."""

import pytest

from rcm.judges import Verdict
from rcm.judges.redaction import OPENING_WORDS, kept

LONG = "one two three four five six seven eight nine ten eleven"
CUT = "one two three four five six seven eight [redacted]"


@pytest.mark.parametrize("verdict", Verdict)
def test_harmless_replies_and_unredacted_ones_are_whole(verdict: Verdict):
    assert kept(LONG, verdict, harmful=False, redact=True) == LONG
    assert kept(LONG, verdict, harmful=True, redact=False) == LONG


@pytest.mark.parametrize("verdict", Verdict)
def test_of_replies_to_harmful_prompts_only_refusals_are_whole(verdict: Verdict):
    assert kept(LONG, verdict, harmful=True, redact=True) == (LONG if verdict is Verdict.REFUSAL else CUT)


@pytest.mark.parametrize("text", ["", "Sure.", " ".join(["word"] * OPENING_WORDS)])
def test_a_short_reply_is_its_own_opening(text: str):
    assert kept(text, Verdict.COMPLIANCE, harmful=True, redact=True) == text


@pytest.mark.parametrize("text", [LONG.replace(" ", "\n"), "好" * 200])
def test_text_without_spaces_is_cut_too(text: str):
    said = kept(text, Verdict.COMPLIANCE, harmful=True, redact=True)
    assert said.endswith("[redacted]")
    assert len(said) < 100
    assert "nine" not in said
