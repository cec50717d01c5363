"""What ``logger=wandb`` logs, read back from its files and compared with the record."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexnet.core.errors import UserError
from indexnet.core.files import write_json
from indexnet.core.readers import read_json
from indexnet.run.config import compose, freeze
from indexnet.run.folder import RunFolder, prepare
from indexnet.run.job import run_job
from indexnet.run.loggers.create import finish_loggers
from indexnet.run.loggers.wandb_logging import UnusableError, check_use, finish_run, printed_values, settle_mode
from indexnet.run.loggers.wandb_names import STEP, picture_key, validation_key
from indexnet.sweep.launch import run_sweep
from indexnet.sweep.pool import Job, outcome_before
from run_support import command, losses, prepare_run, wait_until
from wandb_offline import offline_runs, read_offline
from wandb_runs import TINY, identity, identity_of_old, loggers_of, loss_rows, prepare_tiny, record_of, start_wandb

pytestmark = pytest.mark.usefixtures("nobody")


def _train(folder: RunFolder, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("job", folder.path), env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "variable", "mode"),
    [
        ("auto", None, "auto"),
        ("auto", "offline", "offline"),
        ("auto", "dryrun", "offline"),
        ("auto", "run", "online"),
        ("auto", "disabled", "disabled"),
        ("online", "offline", "online"),
        ("disabled", "online", "disabled"),
    ],
)
def test_the_mode_is_the_settings_then_the_environments(setting, variable, mode, monkeypatch):
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert settle_mode(setting) == mode


def test_an_unknown_mode_names_the_nearest(monkeypatch):
    with pytest.raises(UserError, match=r"unknown logger.mode 'ofline'. Did you mean 'offline'\?"):
        settle_mode("ofline")
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(UserError, match=r"unknown WANDB_MODE 'onlin'. Did you mean 'online'\?"):
        settle_mode("auto")


def test_printed_numbers_are_those_of_the_row():
    assert printed_values("thesis/table3_2_reconstruction", "ip_iu_o2o_modelwise")["psnr"] == 37.83
    assert printed_values("tpami/table3_matting", "hin_l")["params"] == "+4.99K"  # an addition to another row
    assert printed_values("tpami/table3_matting", "hin_l")["sad"] == 55.1
    assert printed_values("tpami/table5_denoising", "dncnn_sigma25")["bsd68/psnr"] == 29.22
    assert printed_values("quickstart", "hin") == {}
    assert printed_values(None, None) == {}
    assert printed_values("gone", "hin") == {}


def test_wandb_missing_is_one_sentence(tmp_path, monkeypatch):
    folder = prepare_tiny(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"needs the package wandb: pip install wandb, or give logger\.wandb=false"):
        loggers_of(folder)


def test_disabled_is_no_logger(tmp_path):
    folder = prepare_tiny(tmp_path, "logger.mode=disabled", "logger.tensorboard=false", "logger.csv=false")
    assert loggers_of(folder) is False
    assert not (folder.path / "wandb").exists()


@pytest.mark.parametrize("cases", [
    pytest.param((("done", 0), ("running", 255)), id="some"),
    pytest.param((("failed", 1), ("diverged", 5)), marks=[pytest.mark.long, pytest.mark.nightly], id="more"),
])  # fmt: skip
def test_a_run_is_closed_with_its_exit_code(cases, tmp_path):
    for number, (status, code) in enumerate(cases):
        folder = prepare_tiny(tmp_path / str(number), "logger.mode=offline", "logger.tensorboard=false")
        before = dict(os.environ)
        loggers = loggers_of(folder)
        assert dict(os.environ) == before  # what wandb needs for itself must not reach other jobs
        finish_loggers(loggers, folder, record_of(status, error="a reason"))
        assert dict(os.environ) == before
        (path,) = offline_runs(folder.path)
        found = read_offline(path)
        assert found.exit_code == code
        assert found.summary["record"]["status"] == status
        assert found.summary["record"]["error"] == "a reason"


def test_two_jobs_of_one_process_have_a_run_each(tmp_path):
    loggers, folders = [], []
    for seed in (0, 1):
        folder = prepare_tiny(tmp_path, "logger.mode=offline", f"seed={seed}", "logger.csv=false")
        folders.append(folder)
        loggers.append(loggers_of(folder))  # none is closed before the next begins
    for folder, each in zip(folders, loggers, strict=True):
        each[-1].log_metrics({"train/loss": 1.0}, 0)
        finish_loggers(each, folder, record_of("done"))
    runs = [read_offline(path) for folder in folders for path in offline_runs(folder.path)]
    assert len({found.run["run_id"] for found in runs}) == len(runs) == 2
    assert [found.config["seed"] for found in runs] == [0, 1]
    assert [len(found.history) for found in runs] == [1, 1]


def test_an_offline_run_that_goes_on_is_one_whole_file(tmp_path):
    folder = prepare_tiny(tmp_path)
    first = start_wandb(folder, "offline", 0, [])
    first.log({"train/loss": 3.0, STEP: 0})
    finish_run(first, folder, record_of("running"))
    validated = {"epoch": "0", "step": "2", "train/loss": "", "val/psnr": "20.0"}
    again = start_wandb(folder, "offline", 4, [*loss_rows([1, 3]), validated])
    again.log({"train/loss": 1 / 6, STEP: 5})
    finish_run(again, folder, record_of("done"))
    (path,) = offline_runs(folder.path)
    found = read_offline(path)
    curve = [(row[STEP], row["train/loss"]) for row in found.history if "train/loss" in row]
    assert curve == [(1, 1 / 2), (3, 1 / 4), (5, 1 / 6)]
    assert sorted(row[STEP] for row in found.history) == [1, 2, 3, 5]
    assert "test/psnr" not in found.summary


LOGGED = [
    ([1, 3, 5], 7, True), ([9], 14, True),
    (None, 4, False),  # this try has no CSV logger: the earlier log is the only copy
    ([1, 5], 6, False),
]  # fmt: skip
MORE_LOGGED = [
    ([1, 3, 5], 6, True), ([0], 1, True), ([1, 3], 6, False), ([3, 5], 6, False),
    ([], 4, False),  # the first try had no CSV logger
]  # fmt: skip


@pytest.mark.parametrize("cases", [
    pytest.param(LOGGED, id="some"), pytest.param(MORE_LOGGED, marks=[pytest.mark.long, pytest.mark.nightly], id="more")
])  # fmt: skip
def test_an_offline_log_goes_only_where_the_csv_has_all_of_it(cases, tmp_path):
    for number, (steps, start, whole) in enumerate(cases):
        folder = prepare_tiny(tmp_path / str(number), "logger.csv=false", "logger.tensorboard=false")
        old = folder.path / "wandb" / f"offline-run-20200101_000000-{identity_of_old(folder)}"
        old.mkdir(parents=True)
        run = start_wandb(folder, "offline", start, None if steps is None else loss_rows(steps))
        finish_run(run, folder, record_of("done"))
        assert old.exists() is not whole, steps
        new = next(path for path in offline_runs(folder.path) if path.parent != old)
        assert [row[STEP] for row in read_offline(new).history] == (steps if whole else []), steps


def test_a_first_try_without_csv_loses_no_rows(tmp_path):
    folder = prepare_tiny(tmp_path, "logger.csv=false", "logger.tensorboard=false")
    (logger,) = loggers_of(folder)
    for step in range(4):
        logger.log_metrics({"train/loss": 1.0}, step)
    finish_loggers([logger], folder, record_of("running"))
    (first,) = offline_runs(folder.path)
    time.sleep(1.1)  # folders are named by the second
    prepare_tiny(tmp_path, "logger.tensorboard=false")
    loggers = loggers_of(folder, 4)
    finish_loggers(loggers, folder, record_of("done"))
    assert [row[STEP] for row in read_offline(first).history] == [0, 1, 2, 3]


def test_tensorboard_shows_a_step_once_after_a_resume(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, clock = prepare_tiny(tmp_path, "logger.wandb=false", "logger.csv=false"), time.time
    for later, start, value in ((0, 0, 1.0), (2, 4, 2.0), (4, 0, 3.0)):
        monkeypatch.setattr(time, "time", lambda later=later: clock() + later)  # files are named by the second
        (logger,) = loggers_of(folder, start)
        for step in range(start, 6):
            logger.log_metrics({"train/loss": value}, step)
        logger.finalize("success")
        found = EventAccumulator(str(folder.path / "tensorboard"))
        found.Reload()
        shown = [(event.step, event.value) for event in found.Scalars("train/loss")]
        assert shown == [(step, 1.0 if step < start else value) for step in range(6)]


def test_a_wandb_that_cannot_be_used_starts_no_sweep(tmp_path, server, monkeypatch, capsys):
    server.accepts = False
    from indexnet.sweep.slurm import run_on_cluster

    with pytest.raises(UnusableError):
        check_use("online")
    once = len(server.calls)
    words = [*TINY, f"paths.runs={tmp_path / 'runs'}", "logger.mode=online"]
    configs = [freeze(compose([*words, f"seed={seed}"])) for seed in (0, 1)]
    for run in (run_sweep, lambda configs: run_on_cluster("local", {}, configs, ["a", "b"])):
        with pytest.raises(UnusableError, match=r"W&B cannot be used online \(.*\); give logger\.mode=offline"):
            run(configs)
        assert not (tmp_path / "runs").exists()
    assert len(server.calls) == 3 * once  # once for both jobs
    assert "W&B" not in "".join(capsys.readouterr())  # who catches it says it
    for config in configs:  # what is done does not ask
        write_json(prepare(config).path / "record.json", record_of("done"))
    assert [outcome.status for outcome in run_sweep(configs)] == ["before", "before"]
    assert len(server.calls) == 3 * once
    monkeypatch.setenv("WANDB_MODE", "onlin")
    other = freeze(compose([*TINY, f"paths.runs={tmp_path / 'other'}"]))
    with pytest.raises(UserError, match="unknown WANDB_MODE 'onlin'"):
        run_sweep([other])
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(UnusableError, match="pip install wandb"):
        run_sweep([other])
    assert not (tmp_path / "other").exists()


def test_what_was_logged_before_a_kill_survives_a_second_kill(tmp_path):
    folder = prepare_tiny(tmp_path, "logger.wandb=false", "logger.tensorboard=false")
    (logger,) = loggers_of(folder)
    for step in range(6):
        logger.log_metrics({"train/loss": 1 / (step + 1)}, step)  # in the file at once: no save, no finalize
    for _ in range(2):
        loggers_of(folder, 4)  # killed before it logs anything
    (logger,) = loggers_of(folder, 4)
    logger.log_metrics({"train/loss": 0.5}, 4)
    steps = [(step, float(loss)) for step, loss in losses(folder)]
    assert steps == [("0", 1.0), ("1", 1 / 2), ("2", 1 / 3), ("3", 1 / 4), ("4", 0.5)]


def test_a_wandb_that_breaks_does_not_stop_the_training(tmp_path, capsys):
    folder = prepare_tiny(tmp_path, "logger.mode=offline", "logger.tensorboard=false", "logger.csv=false")
    (logger,) = loggers_of(folder)
    run = logger.experiment
    run.finish()  # whoever logs to it from now on gets an error
    for step in range(3):
        logger.log_metrics({"train/loss": 1.0}, step)
    assert capsys.readouterr().err.count("the run goes on without it") == 1
    finish_run(run, folder, record_of("done"))


@pytest.mark.long
def test_a_killed_run_of_two_processes_read_back(tmp_path):
    folder = prepare_tiny(tmp_path, "training.steps=100", "trainer.devices=2", "trainer.checkpoint_every=5")
    elsewhere, temporary = tmp_path / "elsewhere", folder.path / "wandb" / ".temporary"
    elsewhere.mkdir()

    def step():
        file = folder.path / "progress.json"
        return read_json(file)["step"] if file.exists() else 0

    process = _train(folder, elsewhere)
    assert wait_until(lambda: process.poll() is not None or step() >= 10, 200)
    (killed,) = temporary.iterdir()
    assert {path.name.partition("wandb-")[2] for path in killed.iterdir()} == {"media", "artifacts"}
    process.kill()
    process.communicate()
    assert wait_until(lambda: not folder.locked())
    assert killed.is_dir()
    process = _train(folder, elsewhere)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "going on from step" in said
    record = folder.record().to_json()
    (path,) = offline_runs(folder.path)
    found = read_offline(path)

    assert found.run["run_id"] == identity(folder)
    assert found.run["run_group"] == "thesis/table3_2_reconstruction"
    assert found.run["job_type"] == record["row"] == "ip_iu_o2o_modelwise"
    assert found.run["display_name"] == "ip_iu_o2o_modelwise-seed0"
    assert found.run["tags"] == [
        "thesis", "table3_2_reconstruction", "reconstruction", "indexnet", "paper", "photos", "photos-paper"
    ]  # fmt: skip
    assert found.exit_code == 0
    printed = {key: value for key, value in found.config.items() if key.startswith("printed/")}
    assert {key: value for key, value in found.config.items() if key not in printed} == folder.config()
    assert printed["printed/psnr"] == found.summary["printed/psnr"] == 37.83

    logged = [(int(step), float(loss)) for step, loss in losses(folder)]
    assert [step for step, _ in logged] == list(range(100))
    curve = [(row[STEP], row["train/loss"]) for row in found.history if "train/loss" in row]
    assert curve == logged  # every step once, whatever the killed process had on its way
    assert set(found.step_metrics.values()) == {STEP}
    assert "*" in found.step_metrics

    assert found.summary["record"] == record
    for name, value in record["metrics"].items():
        assert found.summary[f"test/{name}"] == value
    files = found.folder / "files"
    assert json.loads((files / "record.json").read_text()) == record
    assert "record.json" in found.files

    entries = json.loads((folder.path / "pictures" / "pictures.json").read_text())
    last = {key: value for row in found.history for key, value in row.items()}
    for entry in entries:
        images = last[picture_key(entry["kind"], entry["stage"])]
        place = images["captions"].index(f"{entry['sample']}: {entry['caption']}")
        shown = folder.path / "pictures" / entry["file"]
        assert (files / images["filenames"][place]).read_bytes() == shown.read_bytes()
    assert sum(key.startswith("pictures/index/stage") for key in last) == 2

    table = json.loads((files / last["per_image"]["path"]).read_text())
    with (folder.path / "per_image.csv").open(newline="") as lines:
        head, *rows = csv.reader(lines)
    assert table["columns"] == head
    assert table["data"] == [[row[0], *map(float, row[1:])] for row in rows]
    # neither temporary files nor anything outside the run's folder
    assert not temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "home", "runs"]
    assert not [*elsewhere.rglob("*wandb*"), *(tmp_path / "home").rglob("*wandb*")]


def test_the_summary_has_the_best_of_what_is_logged_while_training(tmp_path):
    folder = prepare_tiny(tmp_path, "tags=[mine,first try]")
    run = start_wandb(folder, "offline", 0, [])
    for step, psnr, mae in ((1, 20.0, 0.5), (3, 26.0, 0.25), (5, 23.0, 0.75)):
        run.log({"train/loss": 1.0, STEP: step})
        run.log({validation_key("psnr"): psnr, validation_key("mae"): mae, STEP: step})
    finish_run(run, folder, record_of("done"))
    (path,) = offline_runs(folder.path)
    found = read_offline(path)
    assert found.run["tags"][-2:] == ["mine", "first try"]
    curve = [(row[STEP], row["val/psnr"], row["val/mae"]) for row in found.history if "val/psnr" in row]
    assert curve == [(1, 20.0, 0.5), (3, 26.0, 0.25), (5, 23.0, 0.75)]
    assert found.step_metrics["val/psnr"] == STEP
    assert found.summary["val/psnr"] == {"max": 26.0, "last": 23.0}
    assert found.summary["val/mae"] == {"min": 0.25, "last": 0.75}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["task=reconstruction", "resampling.family=m2o", "seed=3"], "reconstruction-indexnet-m2o-seed3"),
        (["task=reconstruction", "resampling=carafe"], "reconstruction-carafe-seed0"),
    ],
)
def test_a_single_run_has_a_name_that_says_what_it_is(tmp_path, words, name):
    folder = prepare_run(tmp_path / "runs", *words, "logger=wandb")
    run = start_wandb(folder, "offline")
    assert (run.name, run.group, run.job_type) == (name, "reconstruction", "single")
    finish_run(run, folder, record_of("running"))


@pytest.mark.long
def test_a_run_that_fails_leaves_no_temporary_files(tmp_path):
    failing = prepare_tiny(tmp_path, "logger.tensorboard=false", "optimizer.lr=1e30", "schedule=constant")
    process = _train(failing, tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 5, said
    assert not (failing.path / "wandb" / ".temporary").exists()
    assert not list(tmp_path.glob("*wandb*"))


def test_a_run_that_cannot_log_online_has_not_failed(tmp_path, monkeypatch):
    """``logger.mode=offline`` alone goes on with it, also in a sweep."""
    folder = prepare_tiny(tmp_path, "logger.mode=online", "training.steps=2")
    with pytest.raises(UnusableError, match="no key is configured"):
        run_job(folder.path)
    assert folder.status() == "running"
    assert not folder.locked()
    assert outcome_before(Job(folder.path, "", 0), retry_failed=False) is None
