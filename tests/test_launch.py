"""The life of a run, in processes of its own: what is on the disk and on the screen, and with which exit code."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from rcm.errors import InputError
from rcm.launch import subcommand
from rcm.models.devices import Device
from rcm.packaged import PACKAGE
from rcm.record.run import Run
from rcm.record.stored import StoredRun, stored_run, stored_runs
from rcm.running.chosen import chosen_settings
from rcm.running.identity import id_of
from rcm.running.run import perform
from tests import stubs
from tests.forked import Done, forked, started

LAUNCH = Path(__file__).parents[1] / "launch.py"
STUBS = ("model=stub", "dataset=stub", "method=stub", "judge=xstest", "device=cpu", "tracker=disk")


def command(folder: Path, *arguments: str) -> list[str]:
    flags = [argument for argument in arguments if argument.startswith("-")]  # argparse wants them before the overrides
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    conf = str(stubs.write_options(folder / "conf"))
    return [sys.executable, str(LAUNCH), "--config-dir", conf, *flags, *STUBS, *overrides]


def launched(folder: Path, *arguments: str, **environment: str) -> Done:
    return forked(command(folder, *arguments), folder, {**os.environ, **environment})


def launched_anew(folder: Path, *arguments: str, **environment: str) -> Done:
    """In an interpreter that has imported nothing yet."""
    everything = {**os.environ, **environment}
    return subprocess.run(command(folder, *arguments), cwd=folder, env=everything, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stub has run and finished."""
    folder = tmp_path_factory.mktemp("home")
    done = launched_anew(folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def only_run(folder: Path) -> StoredRun:
    (run,) = stored_runs(folder / "runs")
    return run


def test_a_run_leaves_its_figures_its_files_and_its_circumstances(home: Path) -> None:
    run = only_run(home)
    assert (run.status, run.error, run.family) == ("finished", None, "stub")
    assert run.directory == home / "runs" / run.id
    assert not list(run.directory.glob(".*"))  # Hydra's copies would hold signed addresses
    assert run.choices == {"model": "stub", "dataset": "stub", "method": "stub", "judge": "xstest"}
    assert run.provenance["packages"]["torch"] == torch.__version__
    assert {"stub/alive": 1.0, "stub/nothing": None, "stub/verdict": "circuit_found"}.items() <= run.metrics.items()
    low = {"": 0.25, "_low": 0.1, "_high": 0.4, "_n": 20, "_null": 0.3}
    assert {f"stub/low{part}": value for part, value in low.items()}.items() <= run.metrics.items()
    assert run.metrics["stub/random_null"] is None
    table = (run.directory / "stub_candidates.csv").read_text().splitlines()
    assert table == ["layer,text,score", '1,"a, b",', "2,ü,0.125"]


def test_the_summary_says_which_targets_were_met(home: Path) -> None:
    log = (only_run(home).directory / "launch.log").read_text()
    assert "stub/low = 0.25 [0.1, 0.4]" in log
    table = {line.split()[0]: line for line in log.split("Finished: ")[1].splitlines()[2:]}
    assert table["stub/low"].split()[-5:] == ["0.3", ">", "0.5", "NOT", "MET"]
    assert table["stub/random"].split()[-3:] == [">", "-1", "met"]


def test_a_finished_run_is_skipped_without_importing_torch(home: Path) -> None:
    before = (only_run(home).directory / "results.jsonl").stat().st_mtime_ns
    again = launched_anew(home, "tracker=wandb", PYTHONPROFILEIMPORTTIME="1")  # another tracker, the same run
    assert again.returncode == 0
    assert f"Finished already: {only_run(home).directory} (rerun=true runs it again)" in again.stdout
    assert not imports_torch(again)
    assert (only_run(home).directory / "results.jsonl").stat().st_mtime_ns == before


def test_a_run_that_other_code_made_says_so_and_how_to_run_it_by_this(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    record = only_run(tmp_path).directory / "run.json"
    told = json.loads(record.read_text())
    told["provenance"]["git"] = {"commit": "0123456789abcdef", "dirty": False}
    record.write_text(json.dumps(told | {"sources": "0" * 16}))
    done = launched(tmp_path)
    assert done.returncode == 0
    said = re.search(
        r"Finished already, by other code \(0123456789ab; this is .*\): (\S+) \(rerun=true runs", done.stdout
    )
    assert said is not None, done.stdout
    assert said[1] == str(record.parent)
    assert launched(tmp_path, "rerun=true").returncode == 0
    assert only_run(tmp_path).sources == only_run(home).sources != "0" * 16


def imports_torch(done: Done) -> bool:
    modules = [line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert "hydra" in modules  # or else the measurement does not work
    return "torch" in modules


def test_a_finished_run_runs_again_under_a_sweep_agent(home: Path) -> None:
    run = only_run(home)
    written = (run.directory / "results.jsonl").stat().st_mtime_ns
    assert launched(home, WANDB_SWEEP_ID="abc").returncode == 0
    assert (run.directory / "results.jsonl").stat().st_mtime_ns > written
    assert only_run(home).metrics == run.metrics


def test_a_killed_run_ends_like_an_undisturbed_one_when_started_again(home: Path, tmp_path: Path) -> None:
    directory = tmp_path / "runs" / only_run(home).id
    kill_once(lambda: half_way(directory), tmp_path, command(tmp_path))
    assert stored_run(directory).status == "started"
    assert not (directory / "metrics.json").exists()
    with (directory / "results.jsonl").open("a") as stream:
        stream.write('{"kind": "scalar", "na')  # where the kill hit
    assert len(stored_run(directory).results()) == 9  # tensors and adapter are read by name

    assert launched(tmp_path).returncode == 0
    for name in ("metrics.json", "results.jsonl"):
        assert (directory / name).read_text() == (only_run(home).directory / name).read_text()


@pytest.mark.parametrize("multirun", [False, True])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, multirun: bool) -> None:
    (tmp_path / "runs").touch()  # as read-only ones do, it refuses, and root as well
    done = launched(tmp_path, *["-m"] * multirun)
    assert done.returncode == 1
    assert re.fullmatch(
        r"The run's folder cannot be written: runs(/\w+)? \([A-Z][a-z ]+\); choose another with "
        r"hydra\.run\.dir=FOLDER, with -m hydra\.sweep\.dir=FOLDER\n",
        done.stderr,
    )


def test_a_finished_run_is_kept_until_its_successor_has_finished(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    run = only_run(tmp_path)
    for wrong in ("device=cuda", "tracker=wandb tracker.mode=online"):
        before = contents(run.directory)
        done = launched(tmp_path, "rerun=true", *wrong.split(), CUDA_VISIBLE_DEVICES="", WANDB_API_KEY="")
        assert done.returncode == 1, done.stdout
        assert contents(run.directory) == before
    kill_once(lambda: half_way(run.directory), tmp_path, command(tmp_path, "rerun=true", "reuse=false"))
    assert not (run.directory / "metrics.json").exists()
    assert (only_run(tmp_path).status, only_run(tmp_path).metrics) == ("finished", run.metrics)
    assert launched(tmp_path).returncode == 0
    assert not (run.directory / ".before").exists()
    assert only_run(tmp_path).metrics == run.metrics


def contents(directory: Path) -> dict[str, bytes]:
    """Of the record; not of logs."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix not in (".log", ".yaml"))
    return {str(path): path.read_bytes() for path in files}


def half_way(directory: Path) -> bool:
    """Whether the blocking method has reported all ten results that it reports before it blocks."""
    return not (directory / "metrics.json").exists() and lines_of(directory / "results.jsonl") == 11


def kill_once(condition: Callable[[], bool], folder: Path, arguments: list[str]) -> None:
    """Start the command with a method that blocks half-way, and kill it once the condition holds."""
    nowhere = Path(os.devnull)
    process = started(arguments, folder, {**os.environ, stubs.BLOCK: "1"}, nowhere, nowhere)
    try:
        wait_for(condition)
    finally:
        process.kill()
        process.join()


def lines_of(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_failing_jobs_leave_the_others_finished_and_no_model_alive(tmp_path: Path) -> None:
    done = launched(tmp_path, "-m", "seed=-1,0,1,2", "method.stub.fails_at=1")
    assert done.returncode == 1
    runs = {run.config["seed"]: run for run in stored_runs(tmp_path / "runs")}
    assert {seed: run.status for seed, run in runs.items()} == {0: "finished", 1: "failed", 2: "finished"}
    assert [runs[seed].metrics["stub/alive"] for seed in (0, 2)] == [1, 1]  # the failed job's model is gone too
    assert runs[1].error == "RuntimeError: the stub breaks"
    assert "Traceback" in (runs[1].directory / "launch.log").read_text()
    assert done.stdout.count("Traceback") == 1
    assert "seed=-1: Input should be greater than or equal to 0" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_second_process_is_kept_out_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with FileLock(tmp_path / "taken" / "lock"):
        done = launched(tmp_path, "hydra.run.dir=taken")
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert "[rcm][ERROR] - Another process is at this very run" in line
    assert not (tmp_path / "taken" / "run.json").exists()


def test_a_bug_is_one_traceback(tmp_path: Path) -> None:
    done = launched(tmp_path, "method.stub.fails_at=0")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("Traceback") == 1


def test_bad_settings_are_all_named_in_one_message(tmp_path: Path) -> None:
    bad = {
        "seed=x": "valid integer",
        "model.stage=3": "valid string",
        "dataset.size=many": "valid integer",
        "method.stub.top_k=0": "greater than 0",
        "method.stub.granularity=neuron": "'head' or 'layer'",
        "method.stub.inner.rate=often": "valid number",
        "device.kind=tpu": "'auto', 'cpu' or 'cuda'",
    }
    cfg = composed(tmp_path, *bad, "dataset.size=many", "model.path=???")
    with pytest.raises(InputError) as refusal:
        chosen_settings(cfg)
    first, *lines = str(refusal.value).splitlines()
    assert first == "7 settings cannot work:"
    del bad["model.stage=3"]  # a group in which a value is missing is not looked into further
    assert "  model.path has no value; give it one: model.path=VALUE" in lines
    for setting, cure in bad.items():
        (line,) = [line for line in lines if line.startswith(f"  {setting}: ")]
        assert cure in line


def test_one_bad_setting_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^method\.stub\.top_k=null: Input should be a valid integer$"):
        chosen_settings(composed(tmp_path, "method.stub.top_k=null"))


def test_a_second_judge_that_there_is_not_is_one_line_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^judge\.second=nobody: There is no judge 'nobody'; choose one of arditi, .*$"
    ):
        chosen_settings(composed(tmp_path, "judge.second=nobody"))


def composed(folder: Path, *overrides: str) -> DictConfig:
    stubs.write_options(folder)
    with initialize_config_dir(str(LAUNCH.parent / "conf"), version_base="1.3"):
        return compose("config", [f"hydra.searchpath=[file://{folder}]", *STUBS, *overrides])


def test_a_model_file_that_is_not_there_costs_no_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which would hold for the tests that follow, too.
    monkeypatch.setattr("rcm.running.run.seed_everything", lambda seed: None)
    chosen = chosen_settings(composed(tmp_path, "model.path=nowhere"))
    run = Run("0a1b2c3d", tmp_path / "run", {}, {}, {"started": ""})
    run.directory.mkdir()
    before = len(stubs.Loaded.born)
    with pytest.raises(InputError, match="no file nowhere"):
        perform(chosen, run)
    assert len(stubs.Loaded.born) == before
    assert stored_run(run.directory).error == "There is no file nowhere; give one that exists with model.path=FILE."


UNQUOTED = "Hydra does not take this value as it stands; put it in quotes"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tracker=paper", "tracker=paper: there is no such option; choose one of disk, wandb"),
        ("model=smollm2-135", "model=smollm2-135: there is no such option; did you mean smollm2-135m?"),
        ("method.stub.inner.x=3", "method.stub.inner.x: there is no such setting; choose one of rate"),
        ("metod=map", "metod: there is no such setting; did you mean method?"),
        ("method=3", "Config group override must be a string or a list. Got int; give the name of"),
        ("method.stub.top_k", "method.stub.top_k: this is no override; write KEY=VALUE"),
        ("dataset=[null]", "Hydra cannot compose these overrides (TypeError: argument of type 'NoneType'"),
        ("+=3", "+=3: this override names no setting; write KEY=VALUE"),
        (
            "model.path=step=10",
            "model.path=step=10: Hydra does not take this value as it stands; put it in quotes: 'mod",
        ),
        ("model.path=für.json", "model.path=für.json: Hydra does not take this value as it stands; put it in quotes"),
        (
            "model.path=~/model",
            """model.path=~/model: Hydra does not take this value as it stands; put it in quotes: '""",
        ),
        (
            "tracker=disk,wandb",
            "tracker=disk,wandb: several values need -m, a run for each: -m tracker=disk,wandb\n",
        ),
        ("seed=0,1", "seed=0,1: several values need -m, a run for each: -m seed=0,1; one list is seed=[0,1]\n"),
        ("method.stub.topk=3", "method.stub.topk: there is no such setting; did you mean method.stub.top_k?\n"),
        ("top_k=3", "top_k: there is no such setting; did you mean method.stub.top_k?"),
        ("stub.top_k=3", "stub: there is no such setting; did you mean method.stub.top_k?"),
        ("method.top_k=3", "method.top_k: there is no such setting; did you mean method.stub.top_k?"),
        ("batch_sise=3", "batch_sise: there is no such setting; did you mean device.batch_size?"),
        ("zzz=3", "zzz: there is no such setting; choose one of model, dataset, method, judge, device"),
    ],
)
@pytest.mark.parametrize("multirun", [False, True])
def test_a_wrong_override_is_one_line(tmp_path: Path, override: str, told: str, multirun: bool) -> None:
    if multirun and "," in override:
        pytest.skip("there it is a sweep")
    done = launched(tmp_path, *["-m"] * multirun, override)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines(keepends=True)
    assert line.startswith(told)
    assert not (tmp_path / "runs").exists()


def test_a_room_is_a_command_of_its_own(tmp_path: Path) -> None:
    """`rcm report` is `python -m rcm.report`, with its exit code."""
    launch = [sys.executable, str(Path(__file__).parents[1] / "launch.py")]
    done = subprocess.run([*launch, "report", "nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["There is no folder nowhere; give the one that holds the runs, such as runs/."]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("reprot", "reprot: did you mean rcm report?"),
        ("zzz", "zzz: this is no command; there are circuits, comparison,"),
    ],
)
def test_a_first_word_that_is_no_command_is_one_sentence(word: str, told: str) -> None:
    with pytest.raises(SystemExit) as left:
        subcommand([word, "runs"])
    assert str(left.value).startswith(told)


@pytest.mark.parametrize("first", ["model=gpt2", "-m", "--help", "+x=1", "~model", "method.a=b", "report=1"])
def test_overrides_and_flags_are_no_commands(first: str) -> None:
    assert subcommand([first]) is None


def test_cfg_and_multirun_are_told_apart(tmp_path: Path) -> None:
    done = launched(tmp_path, "-m", "--cfg=job", "seed=0,1")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Only one of --run, --multirun, --cfg")
    assert line.endswith("leave -m away to see the settings of one job")


@pytest.mark.parametrize("datasets", ["advbench", "advbench,nowhere"])
def test_what_signs_an_address_never_reaches_the_disk(tmp_path: Path, datasets: str) -> None:
    """Nor if jobs cannot be composed; and the address is asked for with it."""
    address = 'dataset.path="https://x.org/a.csv?X-Sig=secret,1&e=1","https://x.org/b.csv?X-Sig=secret,2"'
    assert launched(tmp_path, "-m", f"dataset={datasets}", address, HF_HUB_OFFLINE="1").returncode == 1
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in files if "secret" in text]
    assert "https://x.org/b.csv?" in (tmp_path / "runs" / "multirun.yaml").read_text()
    if datasets != "advbench":
        return
    addresses = ("https://x.org/a.csv?X-Sig=secret,1&e=1", "https://x.org/b.csv?X-Sig=secret,2")
    ids = {id_of(composed(tmp_path, "dataset=advbench", f'dataset.path="{one}"')) for one in addresses}
    assert {run.id for run in stored_runs(tmp_path / "runs")} == ids


def test_a_directory_of_another_run_is_not_given_out_as_this_one(tmp_path: Path) -> None:
    assert launched(tmp_path, "hydra.run.dir=out").returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    for more in ([], ["rerun=true"]):
        done = launched(tmp_path, "hydra.run.dir=out", "seed=1", *more)
        assert done.returncode == 1
        assert "of other settings; choose another hydra.run.dir, or move it away." in done.stdout
    kept = {name: (tmp_path / "out" / name).read_bytes() for name in before if not name.endswith(".log")}
    assert kept == {name: content for name, content in before.items() if not name.endswith(".log")}
    assert "Finished already" in launched(tmp_path, "hydra.run.dir=out").stdout


def test_a_finished_run_of_other_settings_under_the_same_id_is_no_answer(home: Path, tmp_path: Path) -> None:
    """Eight digits may be the same by chance; the whole digest is not."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    record = only_run(tmp_path).directory / "run.json"
    told = json.loads(record.read_text())
    assert re.fullmatch(f"{told['id']}[0-9a-f]{{56}}", told["digest"])
    for digest, finished in ((told["id"] + "0" * 56, False), ("", True)):  # earlier runs have none
        record.write_text(json.dumps(told | {"digest": digest}))
        done = launched(tmp_path)
        assert ("Finished already" in done.stdout) == finished
        assert (f"holds run {told['id']}, of other settings" in done.stdout) != finished
        assert done.returncode == (0 if finished else 1)


def test_a_group_that_was_taken_away_is_one_line(tmp_path: Path) -> None:
    done = launched(tmp_path, "~judge")
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = done.stdout.splitlines()
    assert "judge was taken away; choose an option with judge=NAME" in line


def test_hydras_own_traceback_can_be_asked_for(tmp_path: Path) -> None:
    assert "Traceback" in launched(tmp_path, "metod=map", HYDRA_FULL_ERROR="1").stderr


def test_help_answers_at_once(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # not the clock, which a busy machine would slow
    done = launched_anew(tmp_path, "--help", PYTHONPROFILEIMPORTTIME="1")
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0
    assert not imports_torch(done)
    for needed in ("python launch.py -m", "tracker: disk, wandb", "device: auto, cpu, cuda"):
        assert needed in done.stdout
    rooms = [path.parent.name for path in PACKAGE.glob("*/__main__.py")]
    assert len(rooms) >= 7
    assert [room for room in rooms if f"rcm {room}" not in " ".join(done.stdout.split())] == []
    assert seconds < 2


def device(kind: str) -> Device:
    return Device(kind=kind, batch_size=1, threads=None, map=None, max_memory=None, offload=None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_asking_for_cuda_where_there_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="choose device=cpu"):
        device("cuda").resolve()
    assert device("auto").resolve().device.type == "cpu"
