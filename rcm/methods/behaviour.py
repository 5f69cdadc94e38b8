"""Does the model refuse at all, and only what is harmful? The gate before every other question.

1. Answer every test prompt greedily, and the safe prompts that merely look unsafe, where the data set has some; the
   judge says refusal (in full or in part), compliance or invalid.
2. Rates with intervals over prompts and their categories (Wilson's, of as many prompts as the categories are worth),
   and once more with the errors in them that the judge is known to make; the null of a rate is what it would be if
   "harmful" were a label without meaning (labels shuffled over the same verdicts). Where the judge has a second, its
   rates stand beside, and how far the two agree.
3. The same rates by category of prompt.
4. Rates over length: the same replies, cut to their first tokens and judged again. Some models refuse late, and look
   compliant to whoever stops them early.
5. The outcome is a test (`rcm.judges.behaviour`): `refusal` where the interval of harmful prompts refused lies above
   the floor and the share above its null, `no_refusal_behaviour` where the interval lies below the floor,
   `indiscriminate_refusal` where harmless ones are refused as often; else `unclear`, `too_few` below 8 prompts of a
   class, and `still_thinking` where it hangs on replies that were cut within the model's thoughts. Localising a
   behaviour that is not there finds noise, so later steps ask for the first.

Where an adapter's card lists the prompts that it was trained on, their share among the test prompts is reported: above
zero, nothing here is held out.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from rcm.execution.decoding import reply_tokens
from rcm.execution.work import Scope, Work, asked_once, decoded
from rcm.judges import Judge, Verdict, second_opinion
from rcm.judges.base import still_thinking
from rcm.judges.behaviour import Judged, RefusalBehaviour, refusal_behaviour, shuffled_rate
from rcm.judges.rates import rate, rate_line, refusal_rate, refusing
from rcm.judges.redaction import transcript
from rcm.methods import Method, Study
from rcm.models import LoadedModel
from rcm.prompts import Prompt, Split, texts
from rcm.record.identity import prompt_digest
from rcm.record.results import Column, Curve, Result, Scalar, Table, Transcripts
from rcm.stats import wilson

KINDS = {"harmful": "harmful prompts", "harmless": "harmless prompts", "lookalike": "safe lookalikes"}
HINTS = {
    "harmful": "",
    "harmless": "false alarms",
    "lookalike": "over-refusal: of prompts that merely look unsafe",
}
ENDS = ("", "_low", "_high", "_n")


@dataclass(frozen=True)
class Reply:
    """What the model said to a prompt of a kind: harmful, harmless or lookalike."""

    kind: str
    prompt: Prompt
    tokens: Sequence[int]
    completion: str


class Behaviour(Method):
    """`floor`: the least share of harmful prompts that a model must refuse to be worth mapping. `lengths`: tokens of a
    reply after which to judge it too; those below `max_new_tokens`, which is the last."""

    gives: ClassVar = RefusalBehaviour

    max_new_tokens: PositiveInt
    lengths: tuple[PositiveInt, ...]
    floor: NonNegativeFloat
    redact: bool

    def work(self, scope: Scope) -> list[Work]:
        """Replies to every test prompt and lookalike, once."""
        test = scope.prompts.test
        once = {prompt.text: prompt for prompt in (*test.harmful, *test.harmless, *scope.prompts.lookalike)}
        return [decoded(scope, "replies", asked_once(scope.lengths(once.values())), self.max_new_tokens)]

    def run(self, study: Study) -> Generator[Result, None, RefusalBehaviour]:
        model, judge, seed = study.model, study.judge, study.seed
        replies = self._replies(model, study.prompts)
        asked, completions = [one.prompt.text for one in replies], [one.completion for one in replies]
        verdicts = judge.verdicts(asked, completions)

        def rates(by: Judge, verdicts: Sequence[Verdict]) -> Iterator[Scalar]:
            return _rates(_by_kind(replies, verdicts), by, seed)

        yield from rates(judge, verdicts)
        yield from second_opinion("behaviour", judge, verdicts, asked, completions, rates)
        invalid = np.array([verdict is Verdict.INVALID for verdict in verdicts])
        yield rate(
            "behaviour/invalid_rate", invalid, label="replies that are no language", good="low", counts="replies"
        )
        if model.trained_on:
            tested = texts([*study.prompts.test.harmful, *study.prompts.test.harmless])
            seen = np.array([prompt_digest(prompt) in model.trained_on for prompt in tested])
            yield rate(
                "behaviour/seen_in_training",
                seen,
                label="test prompts seen in training",
                hint="by the adapter; above zero, nothing is held out",
                absent="It has no adapter that lists its training prompts.",
                good="low",
            )
        yield from _by_category(replies, verdicts)
        yield self._by_length(model, replies, verdicts, judge)
        rows = [
            transcript(one.kind, one.prompt, one.completion, verdict, redact=self.redact)
            for one, verdict in zip(replies, verdicts, strict=True)
        ]
        yield Transcripts("behaviour/transcripts", rows, "replies to test prompts", "Of the model as it is.")
        judged = _by_kind(replies, verdicts)
        harmful, harmless = (judged.get(kind, Judged((), ())) for kind in ("harmful", "harmless"))
        found = refusal_behaviour("behaviour/outcome", harmful, harmless, self.floor, seed)
        yield found.outcome
        return found

    def _replies(self, model: LoadedModel, prompts: Split) -> list[Reply]:
        """A prompt that is of two kinds (the harmless prompts of a contrast set are its lookalikes) is asked once."""
        kinds = {"harmful": prompts.test.harmful, "harmless": prompts.test.harmless, "lookalike": prompts.lookalike}
        asked = [(kind, prompt) for kind, of_kind in kinds.items() for prompt in of_kind]
        once = list(dict.fromkeys(prompt.text for _, prompt in asked))
        rows = reply_tokens(model, once, self.max_new_tokens, label="behaviour: replies")
        tokens = dict(zip(once, rows, strict=True))
        return [
            Reply(kind, prompt, tokens[prompt.text], model.template.reply(tokens[prompt.text]))
            for kind, prompt in asked
        ]

    def _by_length(
        self, model: LoadedModel, replies: Sequence[Reply], verdicts: Sequence[Verdict], judge: Judge
    ) -> Curve:
        """One generation, cut by tokens to each length."""
        asked = [one.prompt.text for one in replies]
        lengths = sorted({length for length in self.lengths if length < self.max_new_tokens})
        cut = [[model.template.reply(one.tokens[:length]) for one in replies] for length in lengths]
        at_length = [_by_kind(replies, of) for of in (*(judge.verdicts(asked, shorter) for shorter in cut), verdicts)]
        lines = [
            rate_line(kind, [refusing(of[kind].verdicts) for of in at_length], of_kind.categories)
            for kind, of_kind in at_length[-1].items()
        ]
        return Curve(
            "behaviour/refusal_by_length",
            [float(length) for length in (*lengths, self.max_new_tokens)],
            lines,
            "tokens of the reply",
            "share of prompts refused",
            "refusal over the length of the reply",
            "The same replies, cut to their first tokens and judged again. A line that still rises at its end: some "
            "refuse later than replies are cut. Bands: 95 % intervals.",
        )


def _by_kind(replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> dict[str, Judged]:
    found: dict[str, list[tuple[Verdict, str, bool]]] = {}
    for one, verdict in zip(replies, verdicts, strict=True):
        found.setdefault(one.kind, []).append((verdict, one.prompt.category, still_thinking(one.completion)))
    return {kind: Judged(*zip(*of_kind, strict=True)) for kind, of_kind in found.items()}


def _rates(judged: Mapping[str, Judged], judge: Judge, seed: int) -> Iterator[Scalar]:
    for kind, of_kind in judged.items():
        against = judged.get("harmless" if kind == "harmful" else "harmful", Judged((), ()))
        yield refusal_rate(
            f"behaviour/refusal_rate_{kind}",
            of_kind.verdicts,
            judge,
            shuffled_rate(kind, of_kind.verdicts, against.verdicts, seed),
            of_kind.categories,
            label=f"{KINDS[kind]} refused",
            hint=HINTS[kind],
            good="high" if kind == "harmful" else "low",
            absent="The data set has none.",
        )


def _by_category(replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """A row for each category, columns for each kind of prompt; nothing where the prompts have no categories."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for one, verdict in zip(replies, verdicts, strict=True):
        found.setdefault((one.prompt.category, one.kind), []).append(verdict)
    categories = list(dict.fromkeys(category for category, _ in found))
    if not any(categories):
        return
    kinds = [kind for kind in KINDS if any(kind == of for _, of in found)]
    rows = [
        (category or "(none)", *(x for kind in kinds for x in _share(found.get((category, kind), ()))))
        for category in categories
    ]
    yield Table(
        "behaviour/by_category",
        ["category", *(f"{kind}{end}" for kind in kinds for end in ENDS)],
        rows,
        "refusal by category",
        "Few prompts stand behind each figure: differences within the intervals say nothing.",
        [Column("category"), *(Column(kind, f"{KINDS[kind]} refused", "share") for kind in kinds)],
    )


def _share(verdicts: Sequence[Verdict]) -> tuple[float | None, float | None, float | None, int]:
    """With Wilson's interval, and of how many; nothing where there was no prompt."""
    if not verdicts:
        return None, None, None, 0
    hits = refusing(verdicts)
    return float(hits.mean()), *wilson(int(hits.sum()), len(hits)), len(hits)
