"""Is what is measured on this model its own? Every check, with its figure, what is allowed, and what to do.

1. Of the prompts, by the tokenizer alone: beginning-of-sequence tokens, end-of-instruction tokens (also beside models
   that are to be compared), the chat template as transformers renders it.
2. Of single passes: a prompt alone and padded in a batch; no token sees what comes after it. Where one of these fails,
   no pass means anything, and the rest is not tried.
3. Of what hangs on the model, of its first tokens, of the places that layers are counted by, of exchanging components
   (rows beside the loop; with itself, and with everything), of TransformerLens' bridge, of where replies end.
4. The noise floor: what equal computations change the log-odds of refusing by, beside the smallest effect that patching
   tells, and, where patching went before, which of the effects that it reported lie below the floor.

Every run makes the quick part of this before it measures, and stops where that fails. This method goes on, and says
what is wrong; alone, it runs where a run would have stopped.
"""

from collections.abc import Generator, Sequence
from typing import ClassVar

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from rcm.checks import ALL, Diagnosis, Patient, diagnoses
from rcm.checks.diagnosis import FAILED, NOT_TRIED, NOTED, PASSED
from rcm.checks.end_of_instruction import pieces
from rcm.checks.noise import noise
from rcm.directions.refusal_direction import RefusalDirection
from rcm.execution.progress import track
from rcm.methods import Method, Study
from rcm.models.lending import asked, tokenizer_of
from rcm.models.template import Template
from rcm.patching.reported import ReportedEffects
from rcm.record.results import Column, Outcome, Result, Scalar, Table, Word, Words

HEALTHY, UNHEALTHY, INCOMPLETE = "healthy", "unhealthy", "incomplete"
WORDS: Words = {
    HEALTHY: Word("every check passed: what is measured on this model is its own", "Read on."),
    UNHEALTHY: Word(
        "a check failed: some of what is measured on this model is not its own, or lies below its noise",
        "Do what the table says beside the check that failed, and run it again.",
    ),
    INCOMPLETE: Word(
        "no check failed, and some could not be made on this model",
        "Read in the table which, and what that leaves open.",
    ),
}


class Doctor(Method):
    """`prompts`: how many test prompts of each class to look at. `max_new_tokens`: of the replies whose end is looked
    at. `against`: models that are to be compared with this one: options of `model`, folders or GGUF files. `min_gap` in
    nats and `min_share` of the gap: as in `patching`, of whose effects the smallest must lie above the noise floor."""

    uses: ClassVar = (RefusalDirection, ReportedEffects)
    judged: ClassVar = False
    examines: ClassVar = True

    prompts: PositiveInt
    max_new_tokens: PositiveInt
    against: tuple[str, ...]
    min_gap: NonNegativeFloat
    min_share: PositiveFloat

    def check(self) -> None:
        for owner in self.against:
            tokenizer_of(owner, f"method.doctor.against={owner}")

    def run(self, study: Study) -> Generator[Result, None, None]:
        direction, effects = study.get(RefusalDirection), study.get(ReportedEffects)
        patient = Patient(
            study.model,
            study.prompts.test.first(self.prompts),
            study.prompts.paired,
            study.seed,
            tokens=direction.refusal_tokens if direction else (),
            against=[(owner, self._ends(owner, study.prompts.template)) for owner in self.against],
            min_gap=self.min_gap,
            min_share=self.min_share,
            reply=self.max_new_tokens,
            reported=list(zip(effects.names, effects.nats, strict=True)) if effects else (),
        )
        found = list(diagnoses(track(list(ALL), "doctor"), patient))
        yield _table(found)
        yield from self._noise(next(one for one in found if one.check == noise.__name__))
        yield _outcome(found)

    def _ends(self, owner: str, template: str) -> list[str]:
        """How another model would end an instruction of this data set."""
        return pieces(Template.of(tokenizer_of(owner, f"method.doctor.against={owner}"), asked(template)))

    def _noise(self, found: Diagnosis) -> Generator[Scalar, None, None]:
        floor = float("nan") if found.figure is None else found.figure
        absent = f"{found.measured}."
        yield Scalar(
            "doctor/noise_floor",
            floor,
            unit="nats",
            label="noise floor",
            hint="the most that equal computations change the log-odds of refusing by",
            good="low",
            absent=absent,
        )
        yield Scalar(
            "doctor/told_from",
            floor / found.limit * self.min_share if found.limit else float("nan"),
            unit="share",
            label="effects can be told from",
            hint=f"the noise floor as a share of the gap; patching tells effects from {self.min_share:.0%} on",
            good="low",
            absent=absent,
        )


def _table(found: Sequence[Diagnosis]) -> Table:
    # What must be read first, since a page shows the first rows of a long table.
    order = (FAILED, NOT_TRIED, NOTED, PASSED)
    gravest_first = sorted(found, key=lambda one: order.index(one.verdict))
    rows = [(one.check, one.verdict, one.measured, one.figure, one.limit, one.unit, one.then) for one in gravest_first]
    return Table(
        "doctor/checks",
        ("check", "verdict", "measured", "figure", "limit", "unit", "then"),
        rows,
        "checks of the model",
        "noted: nothing is wrong, and something to know; not_tried: it could not be made, for the reason given.",
        [
            *(Column("check"), Column("verdict"), Column("measured", "what was measured"), Column("figure")),
            *(Column("limit", "allowed"), Column("unit"), Column("then", "what to do")),
        ],
    )


def _outcome(found: Sequence[Diagnosis]) -> Outcome:
    by = {verdict: [one for one in found if one.verdict == verdict] for verdict in (FAILED, NOT_TRIED, NOTED)}
    names = {verdict: ", ".join(one.check for one in some) for verdict, some in by.items()}
    if by[FAILED]:
        value, because = UNHEALTHY, f"Failed: {names[FAILED]}. {by[FAILED][0].sentence}"
    elif by[NOT_TRIED]:
        value, because = INCOMPLETE, f"Not made: {names[NOT_TRIED]}. {by[NOT_TRIED][0].sentence}"
    else:
        noted = f" Noted: {names[NOTED]}." if by[NOTED] else ""
        value, because = HEALTHY, f"Of {len(found)} checks none failed.{noted}"
    return Outcome("doctor/outcome", value, because, words=WORDS)
