"""The process launcher, with jobs that only pretend to train."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from indexnet.cli import main
from indexnet.core.machine import share_gpus, visible_gpus
from indexnet.run import processes
from indexnet.run.folder import prepare
from indexnet.run.processes import job_environment
from indexnet.run.record import Record
from indexnet.sweep.launch import exit_code
from indexnet.sweep.plan import compose_table
from indexnet.sweep.pool import View, launch
from launch_support import job_script, lines_of
from rights_support import without_rights
from run_support import alive, wait_until


def test_one_failing_job_does_not_stop_the_others(jobs):
    made = jobs("ok-1", "crash", "mistake", "diverge", "die", "lost", "empty", "ok-2")
    outcomes = launch(made, command=job_script)
    assert [outcome.status for outcome in outcomes] == [
        "done", "failed", "failed", "diverged", "failed", "failed", "failed", "done",
    ]  # fmt: skip
    reasons = {outcome.job.title: outcome.reason for outcome in outcomes}
    assert reasons["crash"] == "Traceback: it broke"
    assert reasons["mistake"] == "UserError: no data in nowhere"
    assert reasons["diverge"] == "the training loss became nan at step 3 of 9"
    assert "SIGKILL" in reasons["die"]
    assert reasons["lost"] == "a process of it was killed, or hung; the same command goes on"
    assert reasons["empty"] == "job empty"  # the last thing it said
    assert exit_code(outcomes) == 3
    assert "job ok-1" in (made[0].console).read_text()
    assert [name for name, *_ in lines_of("started")] == [job.title for job in made]  # one after another, in order


def test_a_job_whose_files_cannot_be_written_does_not_stop_the_others(jobs):
    made = jobs("ok-1", "ok-2", "ok-3", "ok-4")
    made[1].console.touch(0o444)
    made[2].folder.chmod(0o555)
    outcomes = without_rights(lambda: launch(made, command=job_script))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "failed", "done"]
    assert "ok-2/console.log cannot be written (Permission denied)" in outcomes[1].reason
    assert "ok-3 is not writable" in outcomes[2].reason
    assert [name for name, *_ in lines_of("started")] == ["ok-1", "ok-4"]


def test_what_is_done_is_not_run_again(jobs):
    made = jobs("ok-1", "diverge", "crash", "ok-2")
    launch(made, command=job_script)
    Path("started").unlink()
    outcomes = launch(made, command=job_script)
    assert [outcome.status for outcome in outcomes] == ["before", "diverged", "failed", "before"]
    assert [name for name, *_ in lines_of("started")] == ["crash"]
    assert exit_code(outcomes[:1]) == 0
    assert made[2].console.read_text().count("job crash") == 2  # the first console is kept


def test_failed_jobs_run_again_on_request_and_killed_ones_always(jobs):
    made = jobs("mistake", "lost", "die", "ok")
    launch(made, command=job_script)
    Path("started").unlink()
    outcomes = launch(made, command=job_script)
    assert outcomes[0].status == "failed"
    assert outcomes[0].reason == ("failed before: UserError: no data in nowhere; retry_failed=true tries again")
    assert [name for name, *_ in lines_of("started")] == ["lost", "die"]
    launch(made, command=job_script, retry_failed=True)
    assert [name for name, *_ in lines_of("started")] == ["lost", "die", "mistake", "lost", "die"]


def test_what_failed_before_does_not_stop_a_fail_fast_sweep(jobs):
    launch(jobs("mistake"), command=job_script)
    outcomes = launch(jobs("mistake", "ok"), command=job_script, fail_fast=True)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]


def test_a_job_waits_for_its_dying_predecessor(jobs):
    (job,) = jobs("ok")
    (job.folder / ".lock").touch()
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", "import fcntl, time; file = open('ok/.lock', 'r+'); "
         "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(1.0)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    begin = time.time()
    assert launch([job], command=job_script)[0].status == "done"
    ((_, _, started),) = lines_of("started")
    assert 0.5 < float(started) - begin < 5
    assert holder.wait() == 0


def test_a_job_that_starts_again_shows_no_progress_of_its_last_try(jobs):
    (job,) = jobs("slow")
    old = job.folder / "progress.json"
    old.write_text(json.dumps({"step": 3, "steps": 9, "loss": 0.25, "eta_s": 61.0, "elapsed_s": 7.0}))
    os.utime(old, (1, 1))
    seen = []

    class Watch(View):
        def tick(self, running):
            seen.extend(each.progress() for each in running)

    launch([job], command=job_script, view=Watch())
    assert seen
    assert not any(seen)
    assert old.exists()  # the seconds of that try count


def test_fail_fast_stops_the_others(jobs):
    outcomes = launch(jobs("long", "crash", "ok-1", "ok-2"), n_jobs=2, fail_fast=True, command=job_script, grace=5)
    assert [outcome.status for outcome in outcomes] == ["stopped", "failed", "stopped", "stopped"]
    assert {name for name, *_ in lines_of("started")} == {"long", "crash"}
    (pid,) = [int(pid) for name, pid, _ in lines_of("started") if name == "long"]
    assert not alive(pid)


def test_two_at_a_time(jobs):
    assert exit_code(launch(jobs(*(f"slow-{i}" for i in range(4))), n_jobs=2, command=job_script)) == 0
    begin = {name: float(when) for name, _, when in lines_of("started")}
    end = {name: float(when) for name, when in lines_of("ended")}
    together = [sum(begin[a] <= begin[b] < end[a] for a in begin) for b in begin]
    assert max(together) == 2


def test_a_killed_job_leaves_no_rank(jobs):
    launch(jobs("ranks"), command=job_script)
    assert wait_until(lambda: not alive(int(Path("rank").read_text())))


@pytest.mark.parametrize("kind", ["long", pytest.param("deaf", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        signal.SIGKILL,
    ],
)
def test_jobs_end_with_their_launcher(jobs, kind, number):
    if number is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux sends a signal when a parent dies")
    jobs(f"{kind}-1", f"{kind}-2", "ok")
    code = (
        "import sys; from pathlib import Path; from indexnet.sweep.pool import Job, launch\n"
        f"jobs = [Job(Path.cwd() / name, name, 0) for name in ('{kind}-1', '{kind}-2', 'ok')]\n"
        "command = lambda folder: [sys.executable, '-S', 'job.py', str(folder)]\n"
        "try: launch(jobs, n_jobs=2, command=command, grace=0.5)\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert wait_until(lambda: Path(f"{kind}-1.ready").exists() and Path(f"{kind}-2.ready").exists())
        pids = [int(pid) for _, pid, _ in lines_of("started")]
        launcher.send_signal(number)
        returned = launcher.wait(15)
    finally:
        launcher.kill()
    assert returned == (130 if number is not signal.SIGKILL else -signal.SIGKILL)
    assert wait_until(lambda: not any(alive(pid) for pid in pids))
    assert len(pids) == 2  # the third never started
    assert json.loads(Path(f"{kind}-1/record.json").read_text())["status"] == "running"


def test_the_environment_of_a_job(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    dirty = dict.fromkeys(processes.INHERITED, "1") | {"HOME": "/home"}
    assert job_environment(1, 1, [], dirty) == {"HOME": "/home"}
    assert {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"} <= set(
        processes.INHERITED
    )
    assert job_environment(1, 4, [], {}) == {"OMP_NUM_THREADS": "2"}
    assert job_environment(1, 4, [], {"OMP_NUM_THREADS": "7"}) == {"OMP_NUM_THREADS": "7"}
    assert job_environment(2, 1, [], {}) == {"OMP_NUM_THREADS": "4"}
    assert job_environment(1, 99, [], {}) == {"OMP_NUM_THREADS": "1"}
    assert job_environment(1, 1, ["4", "5"], {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_jobs_share_no_gpu_as_long_as_there_are_enough():
    gpus = ["4", "5", "6", "7"]
    assert share_gpus(gpus, [], 1) == ["4"]
    assert share_gpus(gpus, [["4"]], 1) == ["5"]
    assert share_gpus(gpus, [["4"], ["6"]], 2) == ["5", "7"]  # what an ended job has freed, wherever it is
    assert share_gpus(gpus, [["4", "5"]], 2) == ["6", "7"]
    assert share_gpus(gpus, [["4", "5"], ["6", "7"], ["4", "5"]], 2) == ["6", "7"]  # too many: evenly
    assert share_gpus(gpus, [["4"], ["5"], ["6"]], 2) == ["4", "7"]
    assert share_gpus(["GPU-a"], [], 2) == ["GPU-a"]  # too few: the job says so
    assert share_gpus([], [], 1) == []


def test_running_jobs_keep_to_their_gpus(jobs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    own: dict[str, list[str]] = {}
    together = []

    class Watch(View):
        def started(self, running):
            own[running.job.title] = list(running.gpus)

        def tick(self, running):
            used = [gpu for each in running for gpu in each.gpus]
            together.append(len(used) - len(set(used)))

    names = ["slow-1", "ok-1", "ok-2", "slow-2", "ok-3"]
    assert exit_code(launch(jobs(*names), n_jobs=3, command=job_script, view=Watch())) == 0
    assert [own[name] for name in names[:3]] == [["0"], ["1"], ["2"]]
    assert not any(together)
    (cpu,) = jobs("ok-4", cpu=True)
    launch([cpu], n_jobs=2, command=job_script, view=Watch())
    assert own["ok-4"] == []


def test_visible_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_folder_of_data_that_is_not_there_starts_no_job(mistake):
    words = ["-m", "experiments=quickstart", "rows=m2o", "seeds=0", "data=mnist"]
    mistake(
        main(["train", *words, "data.root=nowhere"]),
        "data.root='nowhere' is no folder on this machine",
        "give the one that holds data=mnist",
    )
    assert not os.path.exists("runs")
    os.mkdir("here")
    (typed,) = compose_table("quickstart", [*words[2:], "data.root=here"]).configs
    Record(status="done", metrics={}).write(prepare(typed.content).path)
    assert main(["train", *words, "data.root=nowhere"]) == 0  # what is done needs no data any more
