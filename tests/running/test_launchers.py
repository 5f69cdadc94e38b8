"""What the launchers of others raise, as they raise it, in one sentence each; and what is none of theirs."""

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from rcm.running.launchers import sentence


def test_a_killed_job_of_joblibs() -> None:
    told = sentence(TerminatedWorkerError("A worker process managed by the executor was unexpectedly terminated.\nIt"))
    assert told == (
        "A job beside this one was killed, most likely for want of memory (A worker process managed by the executor "
        "was unexpectedly terminated); with fewer at a time (hydra.launcher.n_jobs=1) the same command goes on where "
        "each was stopped"
    )


def test_what_is_no_launchers_is_left_alone() -> None:
    assert sentence(RuntimeError("the stub breaks")) is None
    assert sentence(ValueError("sbatch: error: no")) is None


@pytest.mark.parametrize(
    ("kind", "told", "means"),
    [
        (
            "FailedJobError",
            "sbatch: error: invalid partition specified: foo\nsbatch: error: Batch job submission failed: Invalid",
            "Slurm takes no such job (invalid partition specified: foo); other values: hydra.launcher.SETTING=VALUE",
        ),
        (
            "UncompletedJobError",
            "Job 7_1 (task: 0) with path /runs/.submitit/7_1_0_result.pkl\nhas not produced any output (state: "
            "OUT_OF_MEMORY)\nError stream produced:\n----\nslurmstepd: error",
            "Slurm's job 7_1 ended without a result (OUT_OF_MEMORY); its log is /runs/.submitit/7_1_0_log.err; the "
            "others go on; `squeue` says which, and the same command again goes on where each was stopped",
        ),
        (
            "FailedJobError",
            "Job (task=0) failed during processing with trace:\n----------------------\nTraceback (most recent call "
            "last):\n  File x\nModuleNotFoundError: No module named 'rcm'\n\n----------------------\nYou can check "
            "full logs with 'job.stderr(0)' and 'job.stdout(0)'or at paths:\n  - /runs/.submitit/7_0_log.err\n  - /r",
            "A job of Slurm's broke before its run began (ModuleNotFoundError: No module named 'rcm'): "
            "/runs/.submitit/7_0_log.err",
        ),
        (
            "UncompletedJobError",
            "Job not requeued because: timed-out too many times.",
            "The time limit is over, and was too often before (hydra.launcher.max_num_timeout); the same command goes "
            "on with the method that was stopped, which needs more: hydra.launcher.timeout_min=MINUTES",
        ),
        ("UncompletedJobError", "Who knows?\nNot I", "Slurm's launcher failed (UncompletedJobError: Who knows? Not I)"),
    ],
)
def test_what_submitit_raises(kind: str, told: str, means: str) -> None:
    errors = pytest.importorskip("submitit.core.utils", reason='which comes with pip install "rcm[slurm]"')
    assert sentence(getattr(errors, kind)(told)) == means


def test_no_slurm_here() -> None:
    told = sentence(RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?'))
    assert told == "hydra/launcher=slurm: there is no Slurm on this machine (no srun); start it where sbatch works"
