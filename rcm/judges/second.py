"""A second judge of the same completions: its rates beside the first one's, and how far the two agree.

The first judge decides what is concluded and what may be stored; the second shows how much of a figure is the judge's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from rcm.judges.base import Judge, Verdict
from rcm.record.results import Scalar

SECOND = "_second_judge"  # behind the name of a rate, where it is the second judge's


def second_opinion(
    method: str,
    judge: Judge,
    verdicts: Sequence[Verdict],
    prompts: Sequence[str],
    completions: Sequence[str],
    rates: Callable[[Judge, Sequence[Verdict]], Iterable[Scalar]],
) -> Iterator[Scalar]:
    """What `rates` gives for the second judge's verdicts, and the agreement of both; nothing where there is no second.

    `verdicts` are the first judge's. The second's figures have no targets: those are the first one's to meet.
    """
    second = judge.second
    if second is None:
        return
    others = second.verdicts(prompts, completions)
    for share in rates(second, others):
        yield replace(share, name=share.name + SECOND, target=None, label=f"{share.label}, second judge")
    kappa, n = agreement(verdicts, others)
    yield Scalar(
        f"{method}/judge_agreement",
        kappa,
        n=n,
        counts="replies",
        good="high",
        label="agreement of the two judges",
        hint="Cohen's kappa on whether replies refuse: 1 is the same verdicts, 0 what chance gives",
    )


def agreement(first: Sequence[Verdict], second: Sequence[Verdict]) -> tuple[float, int]:
    """Cohen's kappa of two judges on whether completions refuse, in full or in part, and over how many: those of which
    both could tell. NaN where both say one and the same of all of them."""
    decided = [
        (one.refuses, other.refuses)
        for one, other in zip(first, second, strict=True)
        if Verdict.INVALID not in (one, other)
    ]
    if len({says for pair in decided for says in pair}) < 2:
        return float("nan"), len(decided)
    from sklearn.metrics import cohen_kappa_score  # takes a second to import, and few runs have a second judge

    return float(cohen_kappa_score(*zip(*decided, strict=True))), len(decided)
