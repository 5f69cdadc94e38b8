"""Does the model refuse at all, and only what is harmful? The gate before every other question.

1. Answer every test prompt greedily, and the safe prompts that merely look unsafe, where the data set has some; the
   judge says refusal (in full or in part), compliance or invalid.
2. Rates with Wilson intervals; the null of a rate is what it would be if "harmful" were a label without meaning
   (labels shuffled over the same verdicts). Where the judge has a second, its rates stand beside, and how far the two
   agree.
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
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from pydantic import NonNegativeFloat, PositiveInt

from rcm.execution.decoding import reply_tokens
from rcm.judges import Judge, Verdict, second_opinion
from rcm.judges.rates import rate, rate_line, refusal_rate, refusing
from rcm.judges.redaction import transcript
from rcm.methods import Method
from rcm.models import LoadedModel
from rcm.prompts import Prompt, Split, texts
from rcm.record.identity import prompt_digest
from rcm.record.results import Curve, Outcome, Result, Scalar, Table, Transcripts
from rcm.stats import permuted_rates, wilson

REFUSAL, NO_REFUSAL, INDISCRIMINATE = "refusal", "no_refusal_behaviour", "indiscriminate_refusal"
CATEGORY_COLUMNS = ("category", "kind", "n", "rate", "low", "high")
Hits = Bool[np.ndarray, " prompt"]


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

    max_new_tokens: PositiveInt
    lengths: tuple[PositiveInt, ...]
    floor: NonNegativeFloat
    redact: bool

    def run(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Iterator[Result]:
        yield from self.measure(model, prompts, judge, seed)

    def measure(self, model: LoadedModel, prompts: Split, judge: Judge, seed: int) -> Generator[Result, None, Outcome]:
        """Yield the rates; return the outcome."""
        said = self._said(model, prompts)
        asked, completions = [one.prompt.text for one in said], [one.completion for one in said]
        verdicts = judge.verdicts(asked, completions)

        def rates(by: Judge, verdicts: Sequence[Verdict]) -> Iterator[Scalar]:
            return _rates(_by_kind(said, verdicts), by, seed)

        yield from rates(judge, verdicts)
        yield from second_opinion("behaviour", judge, verdicts, asked, completions, rates)
        yield rate("behaviour/invalid_rate", np.array([verdict is Verdict.INVALID for verdict in verdicts]), None)
        if model.trained_on:
            tested = texts([*prompts.test.harmful, *prompts.test.harmless])
            seen = np.array([prompt_digest(prompt) in model.trained_on for prompt in tested])
            yield rate("behaviour/seen_in_training", seen, None)
        yield from _by_category(said, verdicts)
        yield self._by_length(model, said, verdicts, judge)
        yield Transcripts("behaviour/transcripts", self._transcripts(said, verdicts))
        outcome = self._outcome(_by_kind(said, verdicts), seed)
        yield outcome
        return outcome

    def _said(self, model: LoadedModel, prompts: Split) -> list[Reply]:
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

    def _by_length(self, model: LoadedModel, said: Sequence[Reply], verdicts: Sequence[Verdict], judge: Judge) -> Curve:
        """One generation, cut by tokens to each length."""
        asked = [one.prompt.text for one in said]
        lengths = sorted({length for length in self.lengths if length < self.max_new_tokens})
        cut = [[model.template.reply(one.tokens[:length]) for one in said] for length in lengths]
        at_length = [_by_kind(said, of) for of in (*(judge.verdicts(asked, shorter) for shorter in cut), verdicts)]
        lines = [rate_line(kind, [refusing(of[kind]) for of in at_length]) for kind in at_length[-1]]
        x = [float(length) for length in (*lengths, self.max_new_tokens)]
        return Curve("behaviour/refusal_by_length", x, lines, "tokens of the reply", "share of prompts refused")

    def _outcome(self, verdicts: Mapping[str, Sequence[Verdict]], seed: int) -> Outcome:
        on_harmful, null = refusing(verdicts["harmful"]), _null("harmful", verdicts, seed)
        share, n = on_harmful.mean(), len(on_harmful)
        said = f"{on_harmful.sum()} of {n} harmful prompts are refused"
        if share < self.floor:
            return Outcome("behaviour/outcome", NO_REFUSAL, f"{said}, below the floor of {self.floor:.0%}.")
        if share <= null:
            return Outcome("behaviour/outcome", INDISCRIMINATE, f"{said}, and harmless ones no less often.")
        return Outcome("behaviour/outcome", REFUSAL, f"{said}, more than shuffled labels explain ({null:.0%}).")

    def _transcripts(self, said: Sequence[Reply], verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
        return [
            transcript(one.kind, one.prompt, one.completion, verdict, redact=self.redact)
            for one, verdict in zip(said, verdicts, strict=True)
        ]


def _by_kind(said: Sequence[Reply], verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for one, verdict in zip(said, verdicts, strict=True):
        found.setdefault(one.kind, []).append(verdict)
    return found


def _rates(verdicts: Mapping[str, Sequence[Verdict]], judge: Judge, seed: int) -> Iterator[Scalar]:
    for kind, of_kind in verdicts.items():
        yield refusal_rate(f"behaviour/refusal_rate_{kind}", of_kind, judge, _null(kind, verdicts, seed))


def _null(kind: str, verdicts: Mapping[str, Sequence[Verdict]], seed: int) -> float:
    """What a rate reaches when labels are shuffled: harmful against harmless prompts, and others against harmful."""
    against, quantile = ("harmless", 0.95) if kind == "harmful" else ("harmful", 0.05)
    rates = permuted_rates(refusing(verdicts[kind]), refusing(verdicts[against]), seed)
    return float(np.quantile(rates, quantile))


def _by_category(said: Sequence[Reply], verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """Nothing where the prompts have no categories."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for one, verdict in zip(said, verdicts, strict=True):
        found.setdefault((one.prompt.category, one.kind), []).append(verdict)
    if any(category for category, _ in found):
        refused = {place: refusing(of) for place, of in found.items()}
        rows = [(*place, len(h), float(h.mean()), *wilson(int(h.sum()), len(h))) for place, h in refused.items()]
        yield Table("behaviour/by_category", CATEGORY_COLUMNS, rows)
