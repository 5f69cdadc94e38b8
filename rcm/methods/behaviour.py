"""Does the model refuse at all, and only what is harmful? The gate before every other question.

1. Answer every test prompt greedily, and the safe prompts that merely look unsafe, where the data set has some; the
   judge says refusal (in full or in part), compliance or invalid.
2. Rates with Wilson intervals; the null of a rate is what it would be if "harmful" were a label without meaning
   (labels shuffled over the same verdicts).
3. The same rates by category of prompt.
4. Rates over length: the same replies, cut to their first tokens and judged again. Some models refuse late, and look
   compliant to whoever stops them early.
5. The outcome: `refusal`, or `no_refusal_behaviour` where too few harmful prompts are refused, or
   `indiscriminate_refusal` where harmless ones are refused as often. Localising a behaviour that is not there finds
   noise, so later steps ask for the first.

Where an adapter's card lists the prompts that it was trained on, their share among the test prompts is reported: above
zero, nothing here is held out.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from pydantic import NonNegativeFloat, PositiveInt

from rcm.generation import reply_tokens
from rcm.judges import Judge, Verdict
from rcm.methods import Method
from rcm.models import LoadedModel
from rcm.models.adapter import prompt_digest
from rcm.prompts import Prompt, Split, texts
from rcm.redaction import kept
from rcm.results import Curve, Line, Outcome, Result, Scalar, Table, Transcripts
from rcm.stats import permuted_rates, wilson

REFUSAL, NO_REFUSAL, INDISCRIMINATE = "refusal", "no_refusal_behaviour", "indiscriminate_refusal"
CATEGORY_COLUMNS = ("category", "kind", "n", "rate", "low", "high")
Hits = Bool[np.ndarray, " prompt"]


@dataclass(frozen=True)
class Replies:
    """What the model answered to the prompts of one kind, and what the judge says of it."""

    prompts: Sequence[Prompt]
    tokens: Sequence[Sequence[int]]
    completions: Sequence[str]
    verdicts: Sequence[Verdict]

    @property
    def refused(self) -> Hits:
        return refusing(self.verdicts)


class Behaviour(Method):
    """`floor`: the least share of harmful prompts that a model must refuse to be worth mapping. `lengths`: tokens of a
    reply after which to judge it too; those below `max_new_tokens`, which is the last."""

    max_new_tokens: PositiveInt
    lengths: tuple[PositiveInt, ...]
    floor: NonNegativeFloat
    redact: bool

    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        yield from self.measure(model, prompts, judge, seed)

    def measure(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Generator[Result, None, Outcome]:
        """Yield the rates; return the outcome."""
        said = self._said(model, prompts, judge)
        nulls = {kind: _null(kind, said, seed) for kind in said}
        for kind, replies in said.items():
            yield refusal_rate(f"behaviour/refusal_rate_{kind}", replies.verdicts, judge, nulls[kind])
        invalid = [verdict is Verdict.INVALID for replies in said.values() for verdict in replies.verdicts]
        yield rate("behaviour/invalid_rate", np.array(invalid), None)
        if model.trained_on:
            asked = texts([*prompts.test.harmful, *prompts.test.harmless])
            seen = np.array([prompt_digest(prompt) in model.trained_on for prompt in asked])
            yield rate("behaviour/seen_in_training", seen, None)
        yield from _by_category(said)
        yield self._by_length(model, said, judge)
        yield Transcripts("behaviour/transcripts", self._transcripts(said))
        outcome = self._outcome(said["harmful"].refused, nulls["harmful"])
        yield outcome
        return outcome

    def _said(self, model: LoadedModel, prompts: Split, judge: Judge) -> dict[str, Replies]:
        """By kind. A prompt that is of two kinds (a contrast set's harmless prompts are lookalikes) is asked once."""
        asked = {"harmful": prompts.test.harmful, "harmless": prompts.test.harmless, "lookalike": prompts.lookalike}
        asked = {kind: of_kind for kind, of_kind in asked.items() if of_kind}
        once = list(dict.fromkeys(prompt.text for of_kind in asked.values() for prompt in of_kind))
        tokens = dict(
            zip(once, reply_tokens(model, once, self.max_new_tokens, label="behaviour: replies"), strict=True)
        )
        said: dict[str, Replies] = {}
        for kind, of_kind in asked.items():
            rows = [tokens[prompt.text] for prompt in of_kind]
            completions = [model.template.reply(row) for row in rows]
            said[kind] = Replies(of_kind, rows, completions, judge.verdicts(texts(of_kind), completions))
        return said

    def _by_length(self, model: LoadedModel, said: Mapping[str, Replies], judge: Judge) -> Curve:
        """One generation, cut by tokens to each length."""
        lengths = [*sorted({length for length in self.lengths if length < self.max_new_tokens}), self.max_new_tokens]

        def refused(replies: Replies, length: int) -> Hits:
            cut = [model.template.reply(row[:length]) for row in replies.tokens]
            return refusing(judge.verdicts(texts(replies.prompts), cut))

        lines = [
            rate_line(kind, [*(refused(said[kind], length) for length in lengths[:-1]), said[kind].refused])
            for kind in ("harmful", "harmless")
        ]
        x = [float(length) for length in lengths]
        return Curve("behaviour/refusal_by_length", x, lines, "tokens of the reply", "share of prompts refused")

    def _outcome(self, on_harmful: Hits, null: float) -> Outcome:
        share, n = on_harmful.mean(), len(on_harmful)
        said = f"{on_harmful.sum()} of {n} harmful prompts are refused"
        if share < self.floor:
            return Outcome("behaviour/outcome", NO_REFUSAL, f"{said}, below the floor of {self.floor:.0%}.")
        if share <= null:
            return Outcome("behaviour/outcome", INDISCRIMINATE, f"{said}, and harmless ones no less often.")
        return Outcome("behaviour/outcome", REFUSAL, f"{said}, more than shuffled labels explain ({null:.0%}).")

    def _transcripts(self, said: Mapping[str, Replies]) -> list[dict[str, str]]:
        return [
            transcript(kind, prompt, completion, verdict, redact=self.redact)
            for kind, replies in said.items()
            for prompt, completion, verdict in zip(replies.prompts, replies.completions, replies.verdicts, strict=True)
        ]


def _null(kind: str, said: Mapping[str, Replies], seed: int) -> float:
    """What a rate reaches when labels are shuffled: harmful against harmless prompts, and others against harmful."""
    against, quantile = ("harmless", 0.95) if kind == "harmful" else ("harmful", 0.05)
    return float(np.quantile(permuted_rates(said[kind].refused, said[against].refused, seed), quantile))


def _by_category(said: Mapping[str, Replies]) -> Iterator[Table]:
    """Nothing where the prompts have no categories."""
    rows = [
        (category, kind, len(hits), float(hits.mean()), *wilson(int(hits.sum()), len(hits)))
        for kind, replies in said.items()
        for category in dict.fromkeys(prompt.category for prompt in replies.prompts)
        for hits in [replies.refused[[prompt.category == category for prompt in replies.prompts]]]
    ]
    if any(category for category, *_ in rows):
        yield Table("behaviour/by_category", CATEGORY_COLUMNS, rows)


def refusing(verdicts: Sequence[Verdict]) -> Hits:
    """Which of them refuse, in full or in part."""
    return np.array([verdict.refuses for verdict in verdicts], dtype=bool)


def rate(name: str, hits: Hits, null: float | None, target: float | None = None) -> Scalar:
    """A share of prompts with Wilson's interval; NaN where there was no prompt to count."""
    n = len(hits)
    if n == 0:
        return Scalar(name, float("nan"), None, 0, null, target)
    return Scalar(name, float(hits.mean()), wilson(int(hits.sum()), n), n, null, target)


def rate_line(label: str, hits: Sequence[Hits]) -> Line:
    """A share of prompts at each point, with Wilson's band."""
    shares = [rate("", at_point, None) for at_point in hits]
    bands = [share.interval or (float("nan"), float("nan")) for share in shares]
    return Line(label, [share.value for share in shares], [low for low, _ in bands], [high for _, high in bands])


def refusal_rate(name: str, verdicts: Sequence[Verdict], judge: Judge, null: float | None = None) -> Scalar:
    """The share of completions that refuse, in full or in part."""
    share = rate(name, refusing(verdicts), null)
    return replace(share, unscored=list(verdicts).count(Verdict.INVALID), kappa=judge.kappa)


def transcript(kind: str, prompt: Prompt, completion: str, verdict: Verdict, *, redact: bool) -> dict[str, str]:
    """One row for the record; `kind` is harmful, harmless or lookalike."""
    return {
        "kind": kind,
        "category": prompt.category,
        "prompt": prompt.text,
        "completion": kept(completion, verdict, harmful=kind == "harmful", redact=redact),
        "verdict": verdict.value,
    }
