"""When two runs measured the same model, on the same prompts, in the same way.

By the digests that runs record of their weights and prompts, never by the names of options: of one option there may be
many weights (folders, revisions, adapters), and of one set of weights many names. A run that recorded none, being
made by hand, goes by its option and its settings instead.
"""

import json
from collections.abc import Mapping
from typing import Any

from rcm.comparison.reading import Reading
from rcm.record.identity import NOT_WEIGHTS, SIZES


def weights_of(reading: Reading) -> str:
    return reading.run.weights or _plain(
        [reading.run.choices.get("model"), without(reading.setting("model"), NOT_WEIGHTS)]
    )


def data_of(reading: Reading) -> str:
    return reading.run.data or _plain([reading.run.choices.get("dataset"), without(reading.setting("dataset"), SIZES)])


def seed_of(reading: Reading) -> Any:
    return reading.setting("seed")


def judge_of(reading: Reading) -> str:
    return _plain([reading.run.choices.get("judge"), reading.setting("judge")])


def conditions_of(reading: Reading) -> str:
    """How it was measured: methods and their settings, judge, how many prompts, which tokens count as refusing."""
    return _plain(
        [
            reading.run.choices.get("method"),
            reading.setting("method"),
            judge_of(reading),
            [reading.setting("dataset", size) for size in SIZES],
            reading.setting("model", "refusal_tokens"),
        ]
    )


def started(reading: Reading) -> tuple[str, str]:
    """Sorts runs as they started; the id decides between equal times."""
    return reading.run.started, reading.run.id


def without(settings: Mapping[str, Any] | None, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in (settings or {}).items() if key not in keys}


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
