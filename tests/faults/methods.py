"""Three methods that cost nothing: one gives a finding, one reports every kind of result, one takes the finding.

Each notes that it was called, in the file that CALLS names. VALUE is what their figures are made of: a run of the same
settings with another value is told from the first in every file, which no real change of the surroundings may do.
"""

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from rcm.methods import Method, Study
from rcm.record.results import Outcome, Result, Scalar, Table, Tensors, Transcripts
from tests.stubs import one_of_each

CALLS, VALUE, SECONDS = "RCM_FAULTS_CALLS", "RCM_FAULTS_VALUE", "RCM_FAULTS_SECONDS"
OPTIONS_AT = Path(__file__).parent / "conf"


def called(name: str, seed: int) -> None:
    with open(os.environ[CALLS], "a") as stream:
        stream.write(f"{name} {seed}\n")


def value() -> float:
    return float(os.environ.get(VALUE, "1"))


@dataclass(frozen=True)
class Found:
    vector: torch.Tensor
    scale: float
    words: tuple[str, ...]


class Find(Method):
    gives: ClassVar = Found
    judged: ClassVar = False
    size: int

    def run(self, study: Study) -> Generator[Result, None, Found]:
        called("find", study.seed)
        time.sleep(float(os.environ.get(SECONDS, "0")))
        vector = torch.rand(self.size) + value()
        yield Scalar("find/sum", float(vector.sum()))
        yield Tensors("find/vector", {"vector": vector}, {"value": str(value())})
        return Found(vector, 0.1 + value(), ("one", "two"))


class Show(Method):
    """One result of each kind, then a table, transcripts and tensors of a few kilobytes."""

    judged: ClassVar = False

    def run(self, study: Study) -> Generator[Result, None, None]:
        called("show", study.seed)
        for result in one_of_each():
            yield replace(result, name=result.name.replace("stub/", "show/"))
        yield Outcome("show/outcome", f"value_{value():g}", "it was said so")
        yield Table("show/values", ("row", "value"), tuple((row, value()) for row in range(200)))
        yield Transcripts(
            "show/texts", tuple({"prompt": f"p{row}", "completion": f"{value()} " * 20} for row in range(50))
        )
        yield Tensors("show/streams", {"streams": torch.full((64, 64), value())}, {"value": str(value())})


class Use(Method):
    needs: ClassVar = (Found,)
    judged: ClassVar = False
    by: int

    def run(self, study: Study) -> Generator[Result, None, None]:
        called("use", study.seed)
        yield Scalar("use/scaled", float(study[Found].vector.sum()) * self.by + study[Found].scale)
        yield Scalar("use/value", value())


def calls(file: Path) -> Sequence[str]:
    return file.read_text().splitlines() if file.exists() else []
