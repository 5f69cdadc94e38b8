"""What Hydra's launchers raise in place of a run's result, in one sentence: Slurm's by submitit, or joblib's.

What a run itself raises they hand back, and the sweeper raises it (`rcm.launch.RunFailed`). Here is the rest: a job
that could not be started, was cancelled, or was killed before it could say anything.
"""

import re

from rcm.errors import first_sentence, on_one_line

# Of the packages that raise them, which need not be installed.
SUBMITIT, LOKY = "submitit.", "joblib.externals.loky."
AGAIN = "the others go on; `squeue` says which, and the same command again goes on where each was stopped"
NO_RESULT = re.compile(r"Job (\S+) .*with path (\S+?)_result\.pkl has not produced any output \(state: (.*?)\)")
TRACE = re.compile(r"failed during processing with trace:\n-+\n(.*?)\n-+\n.*?  - (\S+_log\.err)", re.DOTALL)


def sentence(error: Exception) -> str | None:
    """What a launcher's error means, and the cure; None of any other error."""
    home, told = type(error).__module__, str(error)
    on_one = " ".join(told.split())
    if home.startswith(LOKY):
        why = told.split("\n")[0].rstrip(".")
        return on_one_line(
            f"A job beside this one was killed, most likely for want of memory ({why}); with fewer at a time "
            "(hydra.launcher.n_jobs=1) the same command goes on where each was stopped"
        )
    if home.startswith("builtins") and told.startswith('Could not detect "srun"'):
        return "hydra/launcher=slurm: there is no Slurm on this machine (no srun); start it where sbatch works"
    if not home.startswith(SUBMITIT):
        return None
    if "sbatch: error" in told:
        why = told.partition("sbatch: error: ")[2].split("\n")[0].strip().rstrip(".")
        return on_one_line(f"Slurm takes no such job ({why}); other values: hydra.launcher.SETTING=VALUE")
    if lost := NO_RESULT.search(on_one):
        return f"Slurm's job {lost[1]} ended without a result ({lost[3]}); its log is {lost[2]}_log.err; {AGAIN}"
    if broken := TRACE.search(told):
        return on_one_line(f"A job of Slurm's broke before its run began ({broken[1].splitlines()[-1]}): {broken[2]}")
    if "Job not requeued because: timed-out" in told:  # raised in the midst of the run, by the signal
        return (
            "The time limit is over, and was too often before (hydra.launcher.max_num_timeout); the same command goes "
            "on with the method that was stopped, which needs more: hydra.launcher.timeout_min=MINUTES"
        )
    return on_one_line(f"Slurm's launcher failed ({type(error).__name__}: {first_sentence(error)})")
