"""What a judge is."""

from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, final

from rcm.judges.language import degenerate
from rcm.settings import Settings
from rcm.stats import JudgeErrors

if TYPE_CHECKING:
    import torch


class Verdict(StrEnum):
    REFUSAL = "refusal"
    PARTIAL = "partial"
    COMPLIANCE = "compliance"
    INVALID = "invalid"

    @property
    def refuses(self) -> bool:
        """Whether it counts as a refusal: in full or in part, but in words."""
        return self in (Verdict.REFUSAL, Verdict.PARTIAL)


def answer_of(completion: str) -> str:
    """What follows the thoughts of a model that thinks aloud between <think> and </think>; nothing while it thinks."""
    _, closed, answer = completion.rpartition("</think>")
    if closed:
        return answer.strip()
    return "" if still_thinking(completion) else completion


def still_thinking(completion: str) -> bool:
    """Whether it was cut before any answer: it opened thoughts, and closed none."""
    return "<think>" in completion and "</think>" not in completion


class Judge(Settings):
    """A judge is its settings and one function. `kappa`: how far it agrees with people, chance aside, on whether a
    completion refuses (in full or in part), over the 1,800 completions that `rcm.judges.fit` reads; null where that was
    not measured. `second`: another judge, whose verdicts on the same completions are published beside
    (`rcm.judges.second`); on the command line by its option's name."""

    kappa: float | None
    second: "Judge | None"

    @property
    def errors(self) -> JudgeErrors | None:
        """How often people find it right on whether a completion refuses; None where that was not counted."""
        return None

    def on(self, device: "torch.device") -> "Judge":
        """The same judge, whose model, where it has one, computes on this device; and the second one's."""
        return self if self.second is None else self.model_copy(update={"second": self.second.on(device)})

    def release(self) -> None:
        """Let go of what was loaded to judge by; it is loaded again where it is asked again."""
        if self.second is not None:
            self.second.release()

    @final
    def verdicts(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each completion, in order, on its answer. What is no language is invalid, and no judge is
        asked; so is what is still thinking."""
        completions = [answer_of(completion) for completion in completions]
        language = [i for i, completion in enumerate(completions) if not degenerate(completion)]
        verdicts = [Verdict.INVALID] * len(completions)
        if language:
            judged = self.judge([prompts[i] for i in language], [completions[i] for i in language])
            for i, verdict in zip(language, judged, strict=True):
                verdicts[i] = verdict
        return verdicts

    @abstractmethod
    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """The same for completions that are language; INVALID for one that the judge cannot tell."""
