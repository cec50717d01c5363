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

from indexnet.errors import UserError
from indexnet.run import launch as launching
from indexnet.run.folder import exclusive
from indexnet.run.launch import Job, View, exit_code, job_environment, launch, prepare_jobs, run_sweep

# What a pretended job does, by the name of its folder; the working directory holds what the test looks at.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1]); kind = folder.name.split("-")[0]
print("job", folder.name, flush=True)
with open("started", "a") as file: file.write(f"{folder.name} {os.getpid()} {time.time()}\\n")
def record(status, **more):
    (folder / "record.json").write_text(json.dumps({"status": status, "metrics": {"psnr": 1.5}, **more}))
if kind == "crash":
    print("Traceback: it broke", file=sys.stderr); sys.exit(1)
if kind == "mistake":
    record("failed", error="UserError: no data in nowhere"); sys.exit(2)
if kind == "diverge":
    record("diverged", error="the training loss became nan at step 3 of 9"); sys.exit(5)
if kind == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "empty":
    sys.exit(0)
if kind == "ranks":  # a rank of its own, as DDP has; then it is killed
    pid = os.fork()
    if pid == 0:
        time.sleep(60); os._exit(0)
    Path("rank").write_text(str(pid)); os.kill(os.getpid(), signal.SIGKILL)
if kind in ("long", "deaf"):
    if kind == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "progress.json").write_text(json.dumps({"step": 3, "steps": 9, "loss": 0.25, "eta_s": 61.0}))
    record("running"); Path(f"{folder.name}.ready").touch(); time.sleep(60)
time.sleep(1.0 if kind == "slow" else 0.2)
record("done")
with open("ended", "a") as file: file.write(f"{folder.name} {time.time()}\\n")
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(SCRIPT)

    def make(*names: str, **values) -> list[Job]:
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        return [Job(tmp_path / name, name, 0, **values) for name in names]

    return make


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-S", "job.py", str(folder)]


def _lines(name: str) -> list[list[str]]:
    return [line.split() for line in Path(name).read_text().splitlines()] if Path(name).exists() else []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def _wait(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_one_failing_job_does_not_stop_the_others(jobs):
    made = jobs("ok-1", "crash", "mistake", "diverge", "die", "empty", "ok-2")
    outcomes = launch(made, command=_command)
    assert [outcome.status for outcome in outcomes] == [
        "done", "failed", "failed", "diverged", "failed", "failed", "done",
    ]  # fmt: skip
    reasons = {outcome.job.title: outcome.reason for outcome in outcomes}
    assert reasons["crash"] == "Traceback: it broke"
    assert reasons["mistake"] == "UserError: no data in nowhere"
    assert reasons["diverge"] == "the training loss became nan at step 3 of 9"
    assert "SIGKILL" in reasons["die"]
    assert reasons["empty"] == "job empty"  # the last thing it said
    assert exit_code(outcomes) == 3
    assert "job ok-1" in (made[0].console).read_text()
    assert [name for name, *_ in _lines("started")] == [job.title for job in made]  # one after another, in order


def test_what_is_done_is_not_run_again(jobs):
    made = jobs("ok-1", "diverge", "crash", "ok-2")
    launch(made, command=_command)
    Path("started").unlink()
    outcomes = launch(made, command=_command)
    assert [outcome.status for outcome in outcomes] == ["before", "diverged", "failed", "before"]
    assert [name for name, *_ in _lines("started")] == ["crash"]
    assert exit_code(outcomes[:1]) == 0
    assert made[2].console.read_text().count("job crash") == 2  # the first console is kept


def test_fail_fast_stops_the_others(jobs):
    outcomes = launch(jobs("long", "crash", "ok-1", "ok-2"), n_jobs=2, fail_fast=True, command=_command, grace=5)
    assert [outcome.status for outcome in outcomes] == ["stopped", "failed", "stopped", "stopped"]
    assert {name for name, *_ in _lines("started")} == {"long", "crash"}
    (pid,) = [int(pid) for name, pid, _ in _lines("started") if name == "long"]
    assert not _alive(pid)


def test_two_at_a_time(jobs):
    assert exit_code(launch(jobs(*(f"slow-{i}" for i in range(4))), n_jobs=2, command=_command)) == 0
    begin = {name: float(when) for name, _, when in _lines("started")}
    end = {name: float(when) for name, when in _lines("ended")}
    together = [sum(begin[a] <= begin[b] < end[a] for a in begin) for b in begin]
    assert max(together) == 2


def test_a_killed_job_leaves_no_rank(jobs):
    launch(jobs("ranks"), command=_command)
    assert _wait(lambda: not _alive(int(Path("rank").read_text())), 5)


@pytest.mark.parametrize("kind", ["long", pytest.param("deaf", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM, signal.SIGKILL]
)
def test_jobs_end_with_their_launcher(jobs, kind, number):
    if number is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux sends a signal when a parent dies")
    jobs(f"{kind}-1", f"{kind}-2", "ok")
    code = (
        "import sys; from pathlib import Path; from indexnet.run.launch import *\n"
        f"jobs = [Job(Path.cwd() / name, name, 0) for name in ('{kind}-1', '{kind}-2', 'ok')]\n"
        "command = lambda folder: [sys.executable, '-S', 'job.py', str(folder)]\n"
        "try: launch(jobs, n_jobs=2, command=command, grace=0.5)\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert _wait(lambda: Path(f"{kind}-1.ready").exists() and Path(f"{kind}-2.ready").exists())
        pids = [int(pid) for _, pid, _ in _lines("started")]
        launcher.send_signal(number)
        returned = launcher.wait(15)
    finally:
        launcher.kill()
    assert returned == (130 if number is not signal.SIGKILL else -signal.SIGKILL)
    assert _wait(lambda: not any(_alive(pid) for pid in pids), 5)
    assert len(pids) == 2  # the third never started
    assert json.loads(Path(f"{kind}-1/record.json").read_text())["status"] == "running"


def test_the_environment_of_a_job(monkeypatch):
    monkeypatch.setattr(launching, "_cores", lambda: 8)
    dirty = dict.fromkeys(launching.INHERITED, "1") | {"HOME": "/home"}
    job = Job(Path("x"), "x", 0)
    assert job_environment(job, 0, 1, [], dirty) == {"HOME": "/home"}
    assert {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"} <= set(
        launching.INHERITED
    )
    assert job_environment(job, 0, 4, [], {}) == {"OMP_NUM_THREADS": "2"}
    assert job_environment(job, 0, 4, [], {"OMP_NUM_THREADS": "7"}) == {"OMP_NUM_THREADS": "7"}
    assert job_environment(Job(Path("x"), "x", 0, devices=2), 0, 1, [], {}) == {"OMP_NUM_THREADS": "4"}
    assert job_environment(job, 0, 99, [], {}) == {"OMP_NUM_THREADS": "1"}

    def gpu(slot, devices=1, gpus=("0", "1", "2"), n_jobs=2, cpu=False):
        job = Job(Path("x"), "x", 0, devices, cpu)
        return job_environment(job, slot, n_jobs, gpus, {}).get("CUDA_VISIBLE_DEVICES")

    assert [gpu(slot, n_jobs=4) for slot in range(4)] == ["0", "1", "2", "0"]
    assert [gpu(slot, 2, ("4", "5", "6", "7")) for slot in range(2)] == ["4,5", "6,7"]
    assert gpu(0, 2, ("GPU-a",)) == "GPU-a"
    assert gpu(0, n_jobs=1) is None  # the only job may have them all
    assert gpu(0, cpu=True) is None
    assert gpu(0, gpus=()) is None


def test_visible_gpus(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launching.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert launching.visible_gpus() == ["3", "5"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launching.visible_gpus() == []


# --- folders, locks, views -----------------------------------------------------------------------------------------


def _config(row: str | None = "r", seed: int = 0, steps: int = 1):
    from indexnet.run.config import compose, freeze

    config = freeze(compose(["task=reconstruction", f"training.steps={steps}", f"seed={seed}"]))
    config["experiment"] = {"name": "t" if row else None, "row": row, "label": row}
    return config


def test_folders_are_prepared_all_or_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="same folder"):
        prepare_jobs([_config(), _config()])
    assert not Path("runs").exists()
    (job,) = prepare_jobs([_config("old")])
    assert job == Job(tmp_path / "runs/t/photos-paper/old/seed=0", "old", 0)
    with pytest.raises(UserError, match=r"training\.steps is 1 there and 2 here"):
        prepare_jobs([_config("new"), _config("old", steps=2)])
    assert not Path("runs/t/photos-paper/new").exists()
    single = prepare_jobs([_config(None), _config(None, seed=1)], ["a", "b"])
    assert [job.title for job in single] == ["a", "b"]
    assert single[0].folder.parent == tmp_path / "runs/single"


def test_a_sweep_holds_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = "another sweep is at work in runs/t/photos-paper"
    with exclusive(Path("runs/t/photos-paper/.sweep"), ""), pytest.raises(UserError, match=message):
        run_sweep([_config()])
    assert not Path("runs/t/photos-paper/r").exists()
    with pytest.raises(UserError, match="n_jobs=0"):
        run_sweep([_config()], n_jobs=0)


def test_a_sweep_says_what_came_of_it(jobs, capsys, monkeypatch):
    monkeypatch.setattr(launching, "job_command", _command)
    monkeypatch.setattr(launching, "prepare_jobs", lambda configs, titles: jobs("ok", "crash", "diverge"))
    outcomes = run_sweep([_config("ok"), _config("crash"), _config("diverge")], n_jobs=2)
    assert exit_code(outcomes) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "started ok seed=0" in said
    assert "psnr 1.5" in said
    assert "1 of 3 runs done, 1 failed, 1 diverged" in said
    assert "runs/t/photos-paper" in said
    assert "failed: crash seed=0: Traceback: it broke crash/console.log" in said


def test_the_live_table_shows_the_running_jobs(jobs):
    import io

    from rich.console import Console

    from indexnet.run.progress import LiveView, PlainView, create_view

    class Watch(View):
        def __init__(self, *views):
            self.views = views

        def started(self, running):
            for view in self.views:
                view.started(running)

        def ended(self, outcome):
            for view in self.views:
                view.ended(outcome)

        def tick(self, running):
            ready = Path("long.ready").exists()
            live._drawn = plain._last = -1e9  # time flies
            for view in self.views:
                view.tick(running)
            if ready:
                os.kill(os.getpid(), signal.SIGTERM)

    screen, file = io.StringIO(), io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, height=30)
    assert isinstance(create_view(1, 1, terminal), LiveView)
    plain = create_view(3, 1, Console(file=file, width=100))
    assert isinstance(plain, PlainView)
    live = LiveView(3, 2, terminal)
    with live:
        launch(jobs("ok"), command=_command, view=live)
        with pytest.raises(KeyboardInterrupt):  # SIGTERM in this process; everything is put back
            launch(jobs("long", "crash"), command=_command, view=Watch(live, plain), grace=5)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        shown = live.table()
    text = screen.getvalue()
    for part in ("3 / 9", "0.25", "1 min 01 s", "ok", "psnr 1.5", "of 3 runs"):
        assert part in text, part
    assert shown.row_count == 3
    assert "started  long seed=0" in file.getvalue()
    assert "running  long seed=0: 3 / 9, loss 0.25, 1 min 01 s left" in file.getvalue()
