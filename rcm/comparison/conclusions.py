"""All that is concluded from the runs of a folder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rcm.comparison.emergence import Series, checkpoints
from rcm.comparison.families import (
    Family,
    Group,
    LeftOut,
    columns,
    families,
    groups,
    measured_a_model,
    without_reruns,
)
from rcm.comparison.reading import Reading
from rcm.comparison.transplants import Transplant, all_transplants, latest_transplants
from rcm.comparison.tunings import Tuning, tunings
from rcm.comparison.warnings import Warned, warnings
from rcm.errors import InputError
from rcm.record.stored import StoredRun


@dataclass(frozen=True)
class Comparison:
    """`families`: finished runs that measured a model, side by side. `others`: finished runs of other methods.
    `unfinished`: the rest. `transplants`: of each source in each target the latest. `left_out`: finished runs that
    could have been compared, and were not. `unreadable`: a sentence for each run that cannot be read. `warnings`:
    reasons to be careful, the gravest first."""

    families: Sequence[Family]
    others: Sequence[Group]
    unfinished: Sequence[StoredRun]
    tunings: Sequence[Tuning]
    emergence: Sequence[Series]
    transplants: Sequence[Transplant]
    left_out: Sequence[LeftOut]
    warnings: Sequence[Warned]
    unreadable: Sequence[str] = ()

    @property
    def compared(self) -> list[Reading]:
        return [reading for family in self.families for reading in family.readings]

    @property
    def finished(self) -> list[Reading]:
        """Every run that is shown, once: those that are compared, checkpoints, others."""
        series = [reading for one in self.emergence for reading in one.readings]
        others = [reading for group in self.others for reading in group.readings]
        return list(dict.fromkeys([*self.compared, *series, *others]))


def compare(runs: Iterable[StoredRun], unreadable: Sequence[str] = ()) -> Comparison:
    """What the runs say together, whatever the order in which they are given. `unreadable`: why others cannot be."""
    runs = sorted(runs, key=lambda run: (run.started, run.id))
    finished, without_results = _read([run for run in runs if run.status == "finished"])
    measured = [reading for reading in finished if measured_a_model(reading)]
    standing, replaced = without_reruns(measured)
    found = checkpoints(standing)
    side_by_side = columns(standing, found)
    in_families = families(side_by_side)
    brought = all_transplants(finished)
    of_tuning, alone = tunings(in_families, brought)
    passed_over = [
        LeftOut(reading.run, f"Run {found.passed_over[reading.run.id]} measured the same step of training later.")
        for reading in standing
        if reading.run.id in found.passed_over and reading not in side_by_side
    ]
    return Comparison(
        families=in_families,
        others=groups([reading for reading in finished if reading not in measured]),
        unfinished=[run for run in runs if run.status != "finished"],
        tunings=of_tuning,
        emergence=found.series,
        transplants=latest_transplants(brought),
        left_out=[*without_results, *replaced, *passed_over, *alone],
        warnings=warnings(in_families),
        unreadable=unreadable,
    )


def _read(runs: Iterable[StoredRun]) -> tuple[list[Reading], list[LeftOut]]:
    """All that can be read; one odd run, of another version or off a damaged disk, must not cost the others theirs."""
    readings: list[Reading] = []
    unreadable: list[LeftOut] = []
    for run in runs:
        try:
            readings.append(Reading.of(run))
        except InputError as error:
            unreadable.append(LeftOut(run, str(error)))
        except Exception as error:  # other people's runs: anything may stand there
            what = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            unreadable.append(LeftOut(run, f"Its results in {run.directory} cannot be read ({what}); run it again."))
    return readings, unreadable
