"""What a run comes to, whatever methods it ran."""

from rcm.record.results import SHUFFLED_LABELS, Null, Scalar
from rcm.running.summary import as_text, summary

NAN = float("nan")
FIGURES = [
    Scalar("a/met", 0.9, (0.8, 0.95), 40, Null(0.5, SHUFFLED_LABELS), target=0.7, label="force rate"),
    Scalar("b/at_chance", 0.9, None, 40, Null(0.95, SHUFFLED_LABELS), target=0.7, label="probe accuracy"),
    Scalar("b/below", 1.5, target=2.0, label="separation"),
    Scalar("b/unmeasured", NAN, n=0, target=0.4, label="suppress rate"),
    Scalar("b/no_target", 3.0),
]


def test_a_figure_is_met_above_its_target_and_its_null() -> None:
    assert [figure.met for figure in FIGURES] == [True, False, False, False, None]
    assert Scalar("b/unknown_null", 0.9, null=Null(NAN, SHUFFLED_LABELS), target=0.7).met is False
    table, outcome = summary(FIGURES)
    assert table.name == "summary/targets"
    assert [(row[0], row[-1]) for row in table.rows] == [
        ("a/met", True),
        ("b/at_chance", False),
        ("b/below", False),
        ("b/unmeasured", False),
    ]
    assert outcome.value == "1 of 4 met"
    assert outcome.because == "Not met: probe accuracy, separation. Not measured: suppress rate."
    _, all_met = summary(FIGURES[:1])
    assert (all_met.value, all_met.because) == ("1 of 1 met", "Force rate is met.")


def test_the_log_says_the_same() -> None:
    text = as_text(FIGURES)
    assert [line.split("  ")[-1].strip() for line in text.splitlines()[2:]] == [
        "met",
        "NOT MET",
        "NOT MET",
        "not measured",
    ]
    assert "0.9 [0.8, 0.95]" in text
    assert "b/no_target" not in text


def test_without_a_target_there_is_none() -> None:
    assert not list(summary(FIGURES[-1:]))
    assert as_text(FIGURES[-1:]) == ""
