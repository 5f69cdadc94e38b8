"""What the outcome words on a page mean, and what to do next: as the results say it that have them."""

from collections.abc import Iterator
from dataclasses import dataclass

from rcm.comparison import Comparison
from rcm.comparison.reading import method_of
from rcm.comparison.verdict import WORDS as VERDICTS
from rcm.record.results import Outcome, Word, Words
from rcm.report.cells import CONCLUSION, worded
from rcm.report.sections import spoken

TUNING = "What tuning changed"


@dataclass(frozen=True)
class Entry:
    """A word as it stands on the page, and of what it is said: methods, or the verdict on a tuning."""

    word: str
    of: str
    means: str
    then: str


@dataclass(frozen=True)
class Legend:
    """Words that `occur` on the page, and `others` that might."""

    occur: list[Entry]
    others: list[Entry]


def legend(comparison: Comparison) -> Legend:
    """Every word of every outcome of these runs, and of the verdicts on what tuning changed, where there are any."""
    of: dict[tuple[str, Word], list[str]] = {}
    said = set[tuple[str, Word]]()
    for subject, value, words in _outcomes(comparison):
        for name, word in words.items():
            subjects = of.setdefault((name, word), [])
            if subject not in subjects:
                subjects.append(subject)
        said.add((value, words[value]))
    entries = {key: Entry(worded(key[0]), ", ".join(some), key[1].means, key[1].then) for key, some in of.items()}
    return Legend(
        [entry for key, entry in entries.items() if key in said],
        [entry for key, entry in entries.items() if key not in said],
    )


def _outcomes(comparison: Comparison) -> Iterator[tuple[str, str, Words]]:
    """Of what each is, its word, and all that it might be."""
    for tuning in comparison.tunings:
        yield TUNING, tuning.verdict.value, VERDICTS
    for reading in comparison.finished:
        for one in reading.every(Outcome):
            if one.words:
                yield _subject(one), one.value, one.words


def _subject(outcome: Outcome) -> str:
    """The method; with the label of an outcome that does not conclude it."""
    method = spoken(method_of(outcome.name))
    concludes = outcome.name.partition("/")[2].startswith(CONCLUSION)
    return method if concludes else f"{method}: {outcome.label}"
