"""Which columns of transcripts tell conditions apart."""

from rcm.record.results import Transcripts
from rcm.record.transcripts import by_condition, condition_names

ROWS = [
    {
        "kind": "harmful",
        "category": f"c{i % 3}",
        "prompt": f"p{i}",
        "completion": "",
        "verdict": "refusal",
        "temperature": t,
        "number": float(100 * i + t),
    }
    for i in range(50)
    for t in (0.5, 1.0)
]


def test_conditions_are_what_a_method_calls_them() -> None:
    transcripts = Transcripts("mine/replies", ROWS)
    assert condition_names(transcripts) == ["kind", "temperature"]  # a number of its own for each row sorts nothing
    assert {condition: len(rows) for condition, rows in by_condition(transcripts).items()} == {
        ("harmful", "0.5"): 50,
        ("harmful", "1"): 50,
    }
