"""What should make one hesitate to believe a figure, or to compare runs that stand side by side.

Sorted by what they put in doubt: figures themselves first, then what two models differ by, then whether it can be had
again.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum

from rcm.comparison.families import Family
from rcm.comparison.identity import seed_of, weights_of
from rcm.comparison.names import BEHAVIOUR, SEEN_IN_TRAINING, SUMMARY
from rcm.comparison.reading import Reading, method_of
from rcm.comparison.settings import differing, shortened
from rcm.record.provenance import commit_of
from rcm.record.results import Outcome, Scalar
from rcm.record.units import known, percent


class Doubt(Enum):
    """What a warning puts in doubt, the gravest first; the value says it in a sentence's end."""

    FIGURES = "whether figures hold on prompts that training did not see"
    DIFFERENCES = "whether what two runs differ by is the models' doing"
    REPETITION = "whether figures can be had again"


@dataclass(frozen=True)
class Warned:
    """`caveat`: a few words that stand beside what it puts in doubt. `runs`: the ids of the runs concerned; where runs
    differ in something, those that have the same together. `about`: what they differ in; empty where they do not."""

    doubt: Doubt
    sentence: str
    caveat: str
    runs: Sequence[Set[str]]
    about: str = ""

    def concerns(self, reading: Reading) -> bool:
        """Whether it is about this run by itself."""
        return self.doubt is not Doubt.DIFFERENCES and any(reading.run.id in ids for ids in self.runs)

    def parts(self, before: Reading, after: Reading) -> bool:
        """Whether it puts in doubt what these two differ by: each is of another group, or one has figures in doubt."""
        if self.doubt is Doubt.DIFFERENCES:
            groups = [[one.run.id in ids for ids in self.runs] for one in (before, after)]
            return all(map(any, groups)) and groups[0] != groups[1]
        return self.doubt is Doubt.FIGURES and (self.concerns(before) or self.concerns(after))


def doubted(warnings: Sequence[Warned], reading: Reading, result: Scalar | Outcome) -> list[str]:
    """The caveats of what the run reports: of every rate of behaviour, of figures with a target, and of how many of
    those are met, where the run's figures are in doubt."""
    of_prompts = isinstance(result, Outcome) or result.unit == "share"
    vital = method_of(result.name) in (BEHAVIOUR, SUMMARY) and of_prompts and result.name != SEEN_IN_TRAINING
    vital = vital or (isinstance(result, Scalar) and result.target is not None)
    return [one.caveat for one in warnings if vital and one.doubt is Doubt.FIGURES and one.concerns(reading)]


def warnings(families: Sequence[Family]) -> list[Warned]:
    """One sentence for each reason to be careful, the gravest first."""
    compared = [reading for family in families for reading in family.readings]
    return [
        *_seen(compared),
        *_templates(families),
        *_seeds(compared),
        *_settings(compared),
        *_code(compared),
        *_unclean(compared),
    ]


def _settings(readings: Sequence[Reading]) -> Iterator[Warned]:
    """Where two data sets or judges stand side by side, that each has settings of its own goes without saying. What is
    asked and who judges comes before settings of methods."""
    found = differing(readings)
    for name in sorted(found, key=lambda name: name.startswith("method")):
        group, _, setting = name.partition(".")
        if not (setting and group in ("dataset", "judge") and group in found):
            yield from _difference(name, found[name], f"{name} differs")


def _seeds(readings: Sequence[Reading]) -> Iterator[Warned]:
    """Models that share no seed; that one model was run with several is no reason to be careful."""
    seeds: dict[str, set[str]] = {}
    for reading in readings:
        seeds.setdefault(weights_of(reading), set()).add(str(seed_of(reading)))
    if seeds and not set.intersection(*seeds.values()):
        yield from _difference("seed", [(reading, str(seed_of(reading))) for reading in readings], "seed differs")


def _templates(families: Sequence[Family]) -> Iterator[Warned]:
    """Templates may differ between families, but twins must be asked in the same words."""
    for family in families:
        values = [
            (reading, f"{reading.weights.get('template', '')} ({reading.weights['template_hash']})")
            for reading in family.readings
            if reading.weights.get("template_hash")
        ]
        for one in _difference("template", values, "asked in other words"):
            yield replace(
                one,
                sentence=f"{one.sentence} They read other words and decide at other tokens: run them with the same "
                "dataset.template, of:MODEL for a chat template that all are asked in, or plain.",
            )


def _code(readings: Sequence[Reading]) -> Iterator[Warned]:
    """Commits may differ in what measures nothing: runs of the same sources were measured by the same code. (Sources
    may differ for other reasons: they are those of a run's own methods and model.)"""
    sources = {reading.run.sources for reading in readings}
    if len(sources) > 1 or "" in sources:
        commits = [(reading, commit_of(reading.run.provenance)) for reading in readings]
        yield from _difference("commit", commits, "measured by other code")


def _difference(what: str, values: Sequence[tuple[Reading, str]], caveat: str) -> Iterator[Warned]:
    by_value: dict[str, list[Reading]] = {}
    for reading, value in values:
        by_value.setdefault(value, []).append(reading)
    if len(by_value) > 1:
        parts = "; ".join(f"{shortened(value)} in {', '.join(map(_named, own))}" for value, own in by_value.items())
        ids = [{reading.run.id for reading in own} for own in by_value.values()]
        yield Warned(Doubt.DIFFERENCES, f"The compared runs differ in {what}: {parts}.", caveat, ids, what)


def _named(reading: Reading) -> str:
    return f"{reading.name} ({reading.run.id})"


def _unclean(readings: Sequence[Reading]) -> Iterator[Warned]:
    found = [reading for reading in readings if _git(reading).get("dirty")]
    if found:
        sentence = f"Made with code that was not committed: {', '.join(map(_named, found))}."
        yield Warned(Doubt.REPETITION, sentence, "by code that was not committed", [{one.run.id for one in found}])


def _git(reading: Reading) -> Mapping[str, object]:
    return reading.run.provenance.get("git") or {}


def _seen(readings: Sequence[Reading]) -> Iterator[Warned]:
    for reading in readings:
        seen = reading.scalar(SEEN_IN_TRAINING)
        if seen is not None and known(seen.value) and seen.value > 0:
            sentence = f"The adapter of {_named(reading)} was trained on {percent(seen.value)} of its test prompts."
            caveat = f"{percent(seen.value)} of its test prompts were trained on"
            yield Warned(Doubt.FIGURES, sentence, caveat, [{reading.run.id}])
