"""Completion -> verdict.

A judge reads what the model wrote and says whether it refused. Every rate in this field hangs on its judge, so a judge
is a setting of its own and part of a run's identity, and it carries its agreement with people. First, by rules that no
judge may overrule, an output that is not language (empty, looping, garbled) is *invalid*: it is neither a refusal nor a
compliance.

The judges that are models (`rcm.judges.models`) are not among these names: transformers takes seconds to import.
"""

from rcm.judges.base import Judge, Verdict
from rcm.judges.calibrated import Calibrated
from rcm.judges.language import degenerate
from rcm.judges.second import agreement, second_opinion
from rcm.judges.strings import Strings

__all__ = [
    "Calibrated",
    "Judge",
    "Strings",
    "Verdict",
    "agreement",
    "degenerate",
    "second_opinion",
]
