"""Numbers, untrusted text and transcripts, as people read them."""

from rcm.record.results import Transcripts
from rcm.record.units import percent
from rcm.report.formatting import duration, visible
from rcm.report.markdown import escaped
from rcm.report.transcripts import choices, columns, counts, samples
from tests.report.samples import BIDI, HOSTILE, said


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible(f"a{BIDI}b\x00\ud800\u2029") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩⟨U+2029⟩"
    assert visible("tab\tline\r\nnext é 漢 🙂") == "tab\tline\nnext é 漢 🙂"
    visible(HOSTILE).encode()


def test_a_share_that_rounds_to_zero_has_no_sign() -> None:
    assert [percent(share) for share in (-0.0002, 0.0, -0.001, 1.08)] == [
        f"{said}\N{NO-BREAK SPACE}%" for said in ("0.0", "0.0", "-0.1", "108.0")
    ]


def test_markdown_says_nothing_but_the_text() -> None:
    assert escaped("a|b\n`c` <d>") == "a\\|b ⏎ \\`c\\` &lt;d&gt;"
    assert escaped("# no heading") == "\\# no heading"
    assert [escaped(text) for text in ("1. no list", "12) none", "-1", "1")] == [
        "1\\. no list",
        "12\\) none",
        "\\-1",
        "1",
    ]
    assert escaped("[x](javascript:y) www.a.b c@d") == "\\[x\\](javascript&#58;y) www&#46;a.b c&#64;d"


def test_wall_time_is_told_in_the_units_that_matter() -> None:
    assert [duration(seconds) for seconds in (3.4, 61.0, 3661.0)] == ["3 s", "1 min 1 s", "1 h 1 min"]


def test_transcripts_are_counted_and_sampled_by_condition() -> None:
    rows = [said("harmful", str(i), "refusal", operation="add", strength=s) for s in (0.5, 1.0) for i in range(3)]
    transcripts = Transcripts("t", [*rows, said("harmless", "x", "compliance", operation="add", strength=1.0)])
    assert columns(transcripts)[:3] == ["kind", "operation", "strength"]
    assert [(one.condition, one.verdicts) for one in counts(transcripts)] == [
        (("harmful", "add", "0.5"), [3, 0, 0, 0]),
        (("harmful", "add", "1"), [3, 0, 0, 0]),
        (("harmless", "add", "1"), [0, 0, 1, 0]),
    ]
    assert [row["completion"] for row in samples(transcripts, 2)] == ["0", "1", "0", "1", "x"]
    assert choices(transcripts) == {
        "kind": ["harmful", "harmless"],
        "verdict": ["compliance", "refusal"],
        "strength": ["0.5", "1"],
    }
