"""Replies of lm-evaluation-harness: `samples_TASK_DATE.jsonl`, which `--log_samples` writes (0.4).

A line is a document under one filter: `arguments` hold the prompt, `resps` the replies of each request as they came,
`metrics` the names of the scores, which stand beside them by these names. Only generated replies can be judged: what
was scored by likelihood has numbers in `resps`, and several requests a document.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcm.errors import InputError
from rcm.formats.replies import ReadLog, Reply, Value

SUFFIX = ".jsonl"
NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d{2}-\d{2}T[\d.:-]+")
CURE = "give a samples_TASK_DATE.jsonl that lm-eval wrote for a generating task (--log_samples)"


def lm_eval_samples(place: Path) -> ReadLog:
    """Each document's first reply, with its scores; of a document under several filters, a score for each."""
    found: dict[str, Reply] = {}
    several = 0
    with place.open(encoding="utf-8", errors="strict") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    several += _read(line, f"{place}, line {number}", found)
        except UnicodeDecodeError as error:
            raise InputError(f"{place} is no text; {CURE}.") from error
    if not found:
        raise InputError(f"{place} has no samples; {CURE}.")
    task = match["task"] if (match := NAME.fullmatch(place.stem)) else place.stem.removeprefix("samples_")
    notes = [f"{several} documents have several replies; the first of each counts."] if several else []
    return ReadLog(f"lm-eval samples of {task}", task, list(found.values()), notes)


def _read(line: str, where: str, found: dict[str, Reply]) -> int:
    """Add a line's reply, or its scores to the reply that is there; whether the document has several replies."""
    try:
        sample: Any = json.loads(line)
        id, replies, prompt = str(sample["doc_id"]), sample["resps"], _prompt(sample["arguments"])
        scores = _single({name: sample[name] for name in sample["metrics"]})
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else "is no sample"
        raise InputError(f"{where} {what}; {CURE}.") from error
    try:
        (of_request,) = replies
        texts = [of_request] if isinstance(of_request, str) else list(of_request)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} holds likelihoods and no reply that was generated; {CURE}.") from error
    filter = str(sample.get("filter", "none"))
    scores = {name if filter == "none" else f"{name},{filter}": value for name, value in scores.items()}
    known = found.get(id)
    if known is not None and (known.prompt, known.completion) != (prompt, texts[0]):
        raise InputError(f"{where} tells of document {id} again, with another prompt or reply; {CURE}, of one run.")
    found[id] = Reply(prompt, texts[0], {**(known.scores if known else {}), **scores})
    return int(known is None and len(texts) > 1)


def _single(values: Mapping[str, Any]) -> dict[str, Value]:
    """Of the scores those that are one value."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    }


def _prompt(arguments: Any) -> str:
    """What the user said last, where the prompt is a chat in JSON; else the whole prompt."""
    requests: list[Any] = list(arguments.values() if isinstance(arguments, Mapping) else arguments)
    first = requests[0]
    text = first.get("arg_0", "") if isinstance(first, Mapping) else first[0]
    if isinstance(text, str) and text.lstrip().startswith("["):
        try:
            text = json.loads(text)
        except ValueError:
            return text
    if isinstance(text, list):
        said = [turn.get("content") for turn in text if isinstance(turn, Mapping) and turn.get("role") == "user"]
        return str(said[-1]) if said else ""
    return str(text)
