"""A run of `behaviour` as an Inspect log (version 2), written by inspect_ai itself (`pip install 'rcm[inspect]'`).

A sample is a prompt with the model's reply and our judge's verdict as its score; the metrics are the run's own refusal
rates, each with its interval, n and null. Replies stand as the run stores them: those to harmful prompts cut to their
opening words, which the sample's metadata tell (`redacted`). A cut reply cannot be scored again; the score is of the
whole.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from rcm.errors import InputError
from rcm.formats.inspect_replies import SUFFIXES, reader
from rcm.record.results import Scalar, Transcripts
from rcm.record.storage import whole
from rcm.record.stored import StoredRun
from rcm.record.transcripts import Row, is_cut

TRANSCRIPTS = "behaviour/transcripts"
RATES = "behaviour/"


def write_inspect_log(run: StoredRun, out: Path) -> int:
    """Write the log, as `.eval` or `.json` by the name's end; gives the number of samples. Raises InputError where the
    run has no behaviour, or did not finish."""
    if out.suffix not in SUFFIXES:
        raise InputError(
            f"--out {out} must end in {' or '.join(SUFFIXES)}, by which Inspect knows its logs; rename it."
        )
    results = run.results()
    rows = next((one.rows for one in results if isinstance(one, Transcripts) and one.name == TRANSCRIPTS), None)
    if rows is None or run.status != "finished":
        raise InputError(
            f"{run.directory} has no finished run of behaviour; give one of method=[behaviour] or map, whose "
            "transcripts are kept."
        )
    reader()  # says in one sentence where inspect_ai is missing
    from inspect_ai.log import write_eval_log

    rates = [one for one in results if isinstance(one, Scalar) and one.name.startswith(RATES)]
    log = _log(run, rows, [one for one in rates if one.unit == "share" and one.value == one.value])
    with whole(out) as partial:
        write_eval_log(log, str(partial), format=cast(Literal["eval", "json"], out.suffix[1:]))
    return len(rows)


def _log(run: StoredRun, rows: Sequence[Row], rates: Sequence[Scalar]) -> Any:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalRevision,
        EvalScore,
        EvalSpec,
        EvalStats,
    )
    from inspect_ai.model import GenerateConfig

    judge, behaviour = run.choices.get("judge", "judge"), run.config.get("method", {}).get("behaviour", {})
    git = run.provenance.get("git") or {}
    metrics = {
        name: EvalMetric(name=name, value=rate.value, metadata=_meaning(rate))
        for rate in rates
        for name in [rate.name.removeprefix(RATES)]
    }
    spec = EvalSpec(
        created=run.started,
        task="rcm/behaviour",
        task_id=f"rcm-behaviour-{run.id}",
        eval_id=f"rcm-{run.digest or run.id}",
        run_id=f"rcm-{run.id}",
        dataset=EvalDataset(name=run.choices.get("dataset"), samples=len(rows), shuffled=False),
        model=f"rcm/{run.label}",
        model_generate_config=GenerateConfig(max_tokens=behaviour.get("max_new_tokens"), temperature=0),
        config=EvalConfig(epochs=1),
        revision=EvalRevision(type="git", origin="", commit=git["commit"], dirty=git["dirty"]) if git else None,
        packages={name: version for name, version in (run.provenance.get("packages") or {}).items() if version},
        metadata={
            "written_by": "rcm, from a finished run; Inspect did not run this evaluation",
            "run_id": run.id,
            "run_digest": run.digest,
            "weights_digest": run.weights,
            "prompts_digest": run.data,
            "model_settings": run.config.get("model", {}),
            "judge_settings": run.config.get("judge", {}),
            "redaction": (
                "replies to harmful prompts are cut to their opening words, after the judge has read the whole"
                if behaviour.get("redact", True)
                else "none: the run was made with redact=false"
            ),
            "refusal_values": ["refusal", "partial"],
        },
    )
    results = EvalResults(
        total_samples=len(rows),
        completed_samples=len(rows),
        scores=[EvalScore(name=judge, scorer=judge, scored_samples=len(rows), unscored_samples=0, metrics=metrics)],
    )
    samples = [_sample(i, row, judge, spec.model) for i, row in enumerate(rows, start=1)]
    stats = EvalStats(started_at=run.started, completed_at=run.started)
    return EvalLog(version=2, status="success", eval=spec, results=results, stats=stats, samples=samples)


def _sample(number: int, row: Row, judge: str, model: str) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    prompt, completion = str(row["prompt"]), str(row["completion"])
    asked = ChatMessageUser(id=f"{number}-user", content=prompt)
    said = ChatMessageAssistant(id=f"{number}-assistant", content=completion, model=model, source="generate")
    return EvalSample(
        id=number,
        epoch=1,
        input=prompt,
        target="",
        messages=[asked, said],
        output=ModelOutput(model=model, choices=[ChatCompletionChoice(message=said, stop_reason="unknown")]),
        scores={judge: Score(value=str(row["verdict"]))},
        metadata={"kind": row["kind"], "category": row["category"], "redacted": is_cut(completion)},
    )


def _meaning(rate: Scalar) -> dict[str, Any]:
    """What stands behind a rate."""
    found: Mapping[str, Any] = {
        "label": rate.label,
        "interval_95": rate.interval and list(rate.interval),
        "interval_95_with_the_judges_errors": rate.judged and list(rate.judged),
        "n": rate.n,
        "null": rate.null
        and {"value": rate.null.value, "of": rate.null.of, "draws": rate.null.draws, "p": rate.null.p},
        "judge_kappa": rate.kappa,
    }
    return {name: value for name, value in found.items() if value is not None}
