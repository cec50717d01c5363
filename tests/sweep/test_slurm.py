"""Sweeps on SLURM, as far as a machine without it allows, and through submitit's own processes."""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fake_slurm
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.sweep.pool import Job, View
from run_support import command, refused, wait_until

pytest.importorskip("submitit")

from indexnet.sweep.slurm import ClusterJob, submit
from indexnet.sweep.slurm_settings import create_executor, job_parameters

SETTINGS = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": None, "submitit_folder": "./.submitit/%j"}
TINY = ["budget=smoke", "data.train_count=8", "trainer.accelerator=cpu", "trainer.num_workers=0"]


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A SLURM on the PATH, and an empty working directory; gives the folder of its state."""
    for key, value in fake_slurm.install(tmp_path).items():
        monkeypatch.setenv(key, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "queue"


def _config(devices=1, nodes=1, accelerator="auto"):
    return {"trainer": {"devices": devices, "num_nodes": nodes, "accelerator": accelerator}}


def test_a_task_and_a_gpu_for_each_device():
    assert job_parameters("slurm", SETTINGS, [_config(4, 2)] * 3) == {
        "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4,
    }  # fmt: skip
    assert job_parameters("slurm", SETTINGS, [_config(2, accelerator="cpu")]) == {"nodes": 1, "tasks_per_node": 2}
    assert "gpus_per_node" not in job_parameters("slurm", {**SETTINGS, "gres": "gpu:a100:2"}, [_config(2)])
    assert job_parameters("local", SETTINGS, [_config(2, accelerator="cpu")]) == {"nodes": 1, "tasks_per_node": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "configs", "sentence"),
    [
        ("slurm", {}, [_config(1), _config(2)], "must agree in trainer.devices"),
        ("slurm", {"tasks_per_node": 4}, [_config(2)], "hydra.launcher.tasks_per_node=4, but trainer.devices=2"),
        ("slurm", {"gpus_per_node": 1}, [_config(2)], "leave hydra.launcher.gpus_per_node out"),
        ("slurm", {"nodes": 3}, [_config(2, 2)], "hydra.launcher.nodes=3, but trainer.num_nodes=2"),
        ("local", {}, [_config(1, 2)], "trainer.num_nodes=2 needs a cluster"),
    ],
)
def test_what_the_settings_cannot_say(kind, settings, configs, sentence):
    with refused(sentence):
        job_parameters(kind, {**SETTINGS, **settings}, configs)


@pytest.mark.parametrize(("step", "tasks", "kept"), [(None, "1", False), (None, "2", False), ("0", "2", True)])
def test_variables_of_tasks_reach_only_tasks(step, tasks, kept, monkeypatch, capsys):
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    for key, value in {"SLURM_NTASKS": tasks, "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": step}.items():
        if value is not None:
            monkeypatch.setenv(key, value)
    assert main(["train", "-m", "rows=hin"]) == 2
    assert "give experiments=NAME too" in capsys.readouterr().err
    assert ("SLURM_NTASKS" in os.environ, "SLURM_PROCID" in os.environ) == (kept, kept)
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_the_batch_file(slurm, tmp_path):
    (slurm / "hold").touch()
    settings = {**SETTINGS, "name": "indexnet", "timeout_min": 90, "partition": "gpu", "signal_delay_s": 60,
                "array_parallelism": 2, "max_num_timeout": 3, "additional_parameters": {"mail-type": "END"},
                "setup": ["module load cuda"], "mem_gb": 16, "qos": None}  # fmt: skip
    executor = create_executor("slurm", settings, job_parameters("slurm", settings, [_config(2, 2)]), Path("runs"))
    with executor.batch():
        jobs = [executor.submit(ClusterJob(f"/runs/{index}")) for index in range(3)]
    assert [job.job_id for job in jobs] == ["4200_0", "4200_1", "4200_2"]
    lines = (slurm / "4200.sh").read_text().splitlines()
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {
        "array=0-2%2", "nodes=2", "ntasks-per-node=2", "gpus-per-node=2", "time=90", "partition=gpu", "mem=16GB",
        "signal=USR2@60", "job-name=indexnet", "mail-type=END",
    } <= options  # fmt: skip
    assert not any(option.startswith("qos") for option in options)
    assert "module load cuda" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    assert "--kill-on-bad-exit=1" in srun
    assert f"{sys.executable} -u -m submitit.core._submit {tmp_path}/work/runs/.submitit/%j" in srun
    with jobs[1].paths.submitted_pickle.open("rb") as file:
        submission = pickle.load(file)
    assert submission.function == ClusterJob("/runs/1")  # the folder and nothing else
    assert submission._timeout_countdown == 3
    assert submission.function.checkpoint().function == ClusterJob("/runs/1")


def test_wrong_settings_are_named(slurm):
    for key, value in (("additional_parameters", 3), ("timeout_min", "long")):
        with pytest.raises(UserError, match=r"hydra\.launcher"):
            create_executor("slurm", {**SETTINGS, key: value}, {"nodes": 1, "tasks_per_node": 1}, Path("runs"))


def _jobs(tmp_path, *names):
    for name in names:
        (tmp_path / name).mkdir()
    return [Job(tmp_path / name, name, 0) for name in names]


def _record(job, **values):
    (job.folder / "record.json").write_text(json.dumps({"schema": 1, "metrics": {}, "error": None, **values}))


@pytest.fixture
def executor(slurm, monkeypatch):
    """An executor whose jobs stay in the queue until the test ends them."""
    (slurm / "hold").touch()
    return create_executor("slurm", SETTINGS, {"nodes": 1, "tasks_per_node": 1}, Path("runs"))


def _end(slurm, *names):
    for name in names:
        (slurm / name).unlink()


class _Script(View):
    """A view that does one thing more at each tick."""

    def __init__(self, *steps):
        self.steps, self.ends = list(steps), []

    def ended(self, outcome):
        self.ends.append((outcome.job.title, outcome.status))

    def tick(self, running):
        if self.steps:
            self.steps.pop(0)()


def test_jobs_end_as_their_records_say(slurm, executor, tmp_path):
    jobs = _jobs(tmp_path, "before", "failed_before", "good", "diverges", "fails", "lost", "silent")
    _record(jobs[0], status="done")
    _record(jobs[1], status="failed", error="UserError: no data")

    def work():
        _record(jobs[2], status="done")
        _record(jobs[3], status="diverged", error="the loss became nan")
        _record(jobs[4], status="failed", error="RuntimeError: out of memory")
        _record(jobs[5], status="running")
        assert all((job.folder / "submitted.json").is_file() for job in jobs[2:])
        _end(slurm, *(f"4200_{index}" for index in range(5)))

    view = _Script(work)
    outcomes = submit(jobs, executor, "slurm", n_jobs=9, view=view, poll=0.01, queue_every=0.05)
    assert [outcome.status for outcome in outcomes] == [
        "before", "failed", "done", "diverged", "failed", "failed", "failed",
    ]  # fmt: skip
    assert [outcome.reason for outcome in outcomes[1:]] == [
        "failed before: UserError: no data; retry_failed=true tries again",
        "",
        "the loss became nan",
        "RuntimeError: out of memory",
        "cluster job 4200_3 ended before its run; the same command goes on",
        "cluster job 4200_4 left no trace",
    ]
    assert not any((job.folder / "submitted.json").exists() for job in jobs)
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["4200.sh"]  # one array


def test_queued_jobs_are_waited_for_and_not_submitted_again(slurm, executor, tmp_path, capsys):
    jobs = _jobs(tmp_path, "a", "b")

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(jobs, executor, "slurm", n_jobs=2, view=_Script(stop), poll=0.01)
    assert (
        "2 runs stay in the queue, and the same command waits for them again; scancel 4200" in capsys.readouterr().out
    )
    _end(slurm, "4200_1")  # and b was cancelled

    def work():
        for job in jobs:
            _record(job, status="done")
        _end(slurm, "4200_0", "4201")

    outcomes = submit(jobs, executor, "slurm", n_jobs=2, view=_Script(work), poll=0.01, queue_every=0.05)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["4200.sh", "4201.sh"]  # b alone, again
    assert "1 of these runs are in the queue already" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["ab", "a"])
def test_a_launcher_killed_right_after_sbatch_finds_its_jobs(names, slurm, executor, tmp_path, capsys):
    jobs = _jobs(tmp_path, *names)
    (slurm / "interrupt").touch()  # sbatch has taken the jobs, and nobody knows their numbers
    gc.collect()
    gc.disable()  # an interrupt that comes while a finalizer runs is lost, and the jobs would be waited for for ever
    try:
        with pytest.raises(KeyboardInterrupt):
            submit(jobs, executor, "slurm", n_jobs=2, view=_Script(lambda: pytest.fail("not interrupted")), poll=0.01)
    finally:
        gc.enable()
    assert "job" not in json.loads((jobs[0].folder / "submitted.json").read_text())
    numbers = ["4200_0", "4200_1"] if len(names) == 2 else ["4200"]

    def work():
        for job in jobs:
            _record(job, status="done")
        _end(slurm, *numbers)

    outcomes = submit(jobs, executor, "slurm", n_jobs=2, view=_Script(work), poll=0.01, queue_every=0.05)
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert [path.name for path in slurm.glob("*.sh")] == ["4200.sh"]  # submitted once
    assert f"{len(names)} of these runs are in the queue already" in capsys.readouterr().out
    assert not any((job.folder / "submitted.json").exists() for job in jobs)


def test_each_submission_has_a_name_of_its_own(slurm, executor, tmp_path):
    def stop():
        raise KeyboardInterrupt

    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            submit(_jobs(tmp_path, name), executor, "slurm", n_jobs=1, name="mine", view=_Script(stop), poll=0.01)
    names = [re.search(r"--job-name=(\S+)", file.read_text())[1] for file in sorted(slurm.glob("*.sh"))]
    assert all(re.fullmatch(r"mine-[0-9a-f]{8}", name) for name in names), names
    assert len(set(names)) == 2


def test_fail_fast_cancels_the_others(slurm, executor, tmp_path):
    jobs = _jobs(tmp_path, "a", "b")

    def work():
        _record(jobs[0], status="failed", error="UserError: x")
        _end(slurm, "4200_0")

    outcomes = submit(
        jobs, executor, "slurm", n_jobs=2, fail_fast=True, view=_Script(work), poll=0.01, queue_every=0.05
    )
    assert [outcome.status for outcome in outcomes] == ["failed", "stopped"]
    assert not (slurm / "4200_1").exists()


def test_a_cluster_that_refuses(slurm, executor, tmp_path):
    (slurm / "refuse").write_text("gpuu")
    with refused("invalid partition specified: gpuu"):
        submit(_jobs(tmp_path, "a"), executor, "slurm", n_jobs=1)
    assert not (tmp_path / "a" / "submitted.json").exists()


def test_a_job_queued_again_after_its_end_does_nothing(tmp_path, monkeypatch):
    (job,) = _jobs(tmp_path, "a")
    _record(job, status="done")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert ClusterJob(str(job.folder))() == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["hydra/launcher=slurm"], "this machine has no SLURM (no command srun)"),
        pytest.param(
            ["hydra/launcher=submitit_slurm"],
            "this machine has no SLURM",
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
        (["hydra/launcher=slurm", "hydra.launcher.tasks_per_node=3"], "leave hydra.launcher.tasks_per_node out"),
        (["hydra/launcher=slurm", "hydra.launcher.partitoin=gpu"], "hydra.launcher.partitoin"),
        (["hydra/launcher=slurm", "trainer.devices=1,2"], "must agree in trainer.devices"),
        (["hydra/launcher=submitit_local", "trainer.num_nodes=2", "budget=paper"], "needs a cluster"),
    ],
)
def test_a_mistake_submits_nothing(arguments, sentence, tmp_path, monkeypatch, mistake):
    monkeypatch.setenv("PATH", "/nowhere")
    mistake(main(["train", "-m", "experiments=quickstart", "rows=hin", "seeds=0", *TINY, *arguments]), sentence)
    assert not list(tmp_path.rglob("config.yaml"))


def test_without_the_plugin_the_extra_is_named(monkeypatch, tmp_path, capsys):
    from indexnet.commands import train

    def missing(*_, **__):
        from hydra.errors import MissingConfigException

        raise MissingConfigException("In 'hydra/launcher/slurm': Could not find 'hydra/launcher/submitit_slurm'\n")

    monkeypatch.setattr("hydra.main", missing)
    with refused("pip install 'indexnet[sweep]'"):
        train.train(["-m", "hydra/launcher=slurm"])


@pytest.mark.nightly
@pytest.mark.long
def test_a_slurm_job_of_two_tasks_is_preempted_and_goes_on(slurm):
    table = ["experiments=quickstart", "rows=max_unpool", "seeds=0", "trainer.devices=2", "trainer.accelerator=cpu",
             "trainer.num_workers=0", "data.train_count=16", "data.test_count=3", "training.batch_size=4",
             "training.steps=60", "trainer.checkpoint_every=5"]  # fmt: skip
    words = command("train", "-m", *table)
    with subprocess.Popen(
        [*words, "hydra/launcher=slurm", "hydra.launcher.timeout_min=60"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        folder = Path("runs/quickstart/photos-paper/max_unpool/seed=0")
        assert wait_until(lambda: (folder / "checkpoints" / "last.ckpt").exists() or process.poll() is not None, 180)
        for pid in (slurm / "4200.tasks").read_text().split():
            os.kill(int(pid), signal.SIGUSR2)
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    said = (folder / "console.log").read_text()
    assert said.count("Initializing distributed: GLOBAL_RANK: 0, MEMBER: 1/2") == 2, said  # SLURM's own two tasks
    assert "going on from step" in said
    record = json.loads((folder / "record.json").read_text())
    assert (record["status"], record["batch"]["devices"], record["test_count"]) == ("done", 2, 3)
    whole = subprocess.run([*words, "paths.runs=whole"], capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stdout
    other = json.loads((Path("whole") / folder.relative_to("runs") / "record.json").read_text())
    assert record["metrics"] == other["metrics"]
    again = subprocess.run([*words, "hydra/launcher=slurm"], capture_output=True, text=True)
    assert "1 of 1 runs done (1 before)" in again.stdout
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["4200.sh"]


@pytest.mark.long
def test_submitits_own_processes_run_ddp(capfd):
    arguments = ["experiments=quickstart", "rows=max_unpool", "seeds=0", "trainer.devices=2", *TINY]
    assert main(["train", "-m", *arguments, "hydra/launcher=submitit_local"]) == 0, capfd.readouterr()
    record = json.loads(Path("runs/quickstart/photos-smoke/max_unpool/seed=0/record.json").read_text())
    assert (record["status"], record["batch"]["devices"], record["test_count"]) == ("done", 2, 2)


def test_a_job_is_submitted_once_the_one_is_done_that_it_starts_from(slurm, executor, tmp_path):
    source, fails, *rest = _jobs(tmp_path, "source", "fails", "after", "never")
    jobs = [source, fails]
    jobs += [replace(job, after=each.folder, source=each.title) for job, each in zip(rest, jobs, strict=True)]

    def first():
        assert sorted(path.name for path in slurm.glob("*.sh")) == ["4200.sh"]
        _record(source, status="done")
        _record(fails, status="failed", error="UserError: x")
        _end(slurm, "4200_0", "4200_1")

    def second():
        if not (slurm / "4201").exists():
            view.steps.append(second)
            return
        _record(rest[0], status="done")
        _end(slurm, "4201")

    view = _Script(first, second)
    outcomes = submit(jobs, executor, "slurm", n_jobs=9, view=view, poll=0.01, queue_every=0.05)
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done", "failed"]
    assert outcomes[3].reason == "it starts from fails, which has failed: UserError: x"
    assert sorted(path.name for path in slurm.glob("*.sh")) == ["4200.sh", "4201.sh"]
