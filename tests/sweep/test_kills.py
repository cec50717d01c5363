"""A sweep that is killed and restarted equals one that nobody disturbed; at full size: benchmarks/sweep_kills.py."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from run_support import alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and the parent-death signal")


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "sweep_kills.py"
    spec = importlib.util.spec_from_file_location("benchmark_sweep_kills", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclass looks its annotations up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.nightly  # test_named.py and test_ranks.py show one kill each
def test_a_sweep_that_was_killed_equals_one_that_was_not(benchmark, tmp_path):
    # the seed of a plan with four moments that costs little; in it the launcher is killed while its runs train
    verdict = benchmark.measure(tmp_path, rows=2, seeds=2, kills=4, steps=8, devices=2, jobs=2, seed=7)
    assert verdict.missed == []
    came = [(kill.whom, kill.phase.split(",")[0]) for kill in verdict.kills]
    assert came == [("launcher", "training"), ("process 1", "testing"), ("launcher", ""), ("process 1", "start")]
    assert verdict.runs == 4
    assert verdict.differences == []
    # the comparison sees what differs
    folder = tmp_path / "killed" / benchmark.EXPERIMENT / "scenes-paper" / "b11" / "seed=0"
    text = (folder / "per_image.csv").read_text()
    (folder / "per_image.csv").write_text(text.replace("1", "2"))
    curve = (folder / "csv/metrics.csv").read_text().splitlines()
    (folder / "csv/metrics.csv").write_text("\n".join(curve[:4] + curve[5:]))
    record = json.loads((folder / "record.json").read_text())
    record["metrics"]["sad"] += 1
    (folder / "record.json").write_text(json.dumps({**record, "peak_memory_mb": None}))
    found = benchmark.compare(tmp_path / "whole", tmp_path / "killed")[1]
    for words in ("metrics {", "per_image.csv differs", "the curve of train/loss differs", "peak_memory_mb is lost"):
        assert any(words in each for each in found), words
    assert any(each.startswith("table.csv, row ") for each in found)


def test_kills_are_planned_for_every_kind_of_victim(benchmark):
    for seed in range(50):
        for kills, devices in ((2, 2), (4, 2), (10, 3), (3, 1)):
            plan = benchmark.plan_kills(kills, 12, 24, devices, random.Random(seed))
            assert plan == benchmark.plan_kills(kills, 12, 24, devices, random.Random(seed))
            assert len(plan) == kills
            moments, victims = {each.moment for each in plan}, {each.whom for each in plan}
            assert "testing" in moments
            assert "launcher" in victims
            assert devices == 1 or "process 1" in victims
            assert kills < 6 or moments == set(benchmark.MOMENTS)
            assert all(1 <= each.step < 24 for each in plan)
            # nobody is there to be killed: a job before it starts, a further process while pictures are written
            assert {each.whom for each in plan if each.moment == "no job"} <= {"launcher"}
            assert {each.whom for each in plan if each.moment == "pictures"} <= {"launcher", "process 0"}
    order = [benchmark.MOMENTS.index(each.moment) for each in benchmark.plan_kills(9, 3, 8, 2, random.Random(0))]
    assert order == sorted(order)  # one run to spare for each group of kills: here a single group


_PRETENDED_SWEEP = """
import sys
from pathlib import Path
from indexnet.sweep.pool import Job, launch
here = Path(sys.argv[1])
command = lambda folder: [sys.executable, "-S", str(here / "job.py"), "job", str(folder)]
jobs = [Job(here / "row" / f"seed={seed}", "row", seed) for seed in (0, 1)]
outcomes = launch(jobs, command=command)
sys.exit(0 if all(outcome.status in ("done", "before") for outcome in outcomes) else 3)
"""
_PRETENDED_JOB = """
import json, os, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[-1])
leader = os.getppid()
while "LOCAL_RANK" in os.environ:
    time.sleep(0.05)
    if os.getppid() != leader: sys.exit()
def record(status):  # whole or not at all, as real ones
    (folder / "part").write_text(json.dumps({"schema": 1, "status": status, "metrics": {}}))
    os.replace(folder / "part", folder / "record.json")
record("running")
rank = subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env={**os.environ, "LOCAL_RANK": "1"})
def work(seconds=0.25):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if rank.poll() is not None: sys.exit(4)
        time.sleep(0.01)
work(0.5)
for name in ("csv", "checkpoints", "pictures"): (folder / name).mkdir(exist_ok=True)
print("training for 3 steps, batch 4", flush=True)
rows = ["step,train/loss"]
for step in range(3):
    rows.append(f"{step},0.5")
    (folder / "csv/metrics.csv").write_text("\\n".join(rows))
    work()
    (folder / "checkpoints/last.ckpt").write_text(str(step))
work()
print("testing on 3 images", flush=True)
work()
(folder / "pictures/1.png").write_text("")
work(0.5)
rank.kill()
record("done")
"""


@pytest.mark.long
def test_kills_come_at_their_moments(benchmark, tmp_path):
    for name in ("row/seed=0", "row/seed=1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "job.py").write_text(_PRETENDED_JOB)
    plan = [
        benchmark.Planned("no job", "launcher"),
        benchmark.Planned("start", "process 1"),
        benchmark.Planned("step", "process 0", 2),
        benchmark.Planned("checkpoint", "launcher"),
        benchmark.Planned("testing", "process 1"),
        benchmark.Planned("pictures", "process 0"),
    ]
    command = [sys.executable, "-c", _PRETENDED_SWEEP, str(tmp_path)]
    kills, missed = benchmark.run_disturbed(command, plan, tmp_path / "log")
    assert missed == []
    assert [(kill.moment, kill.whom) for kill in kills] == [(each.moment, each.whom) for each in plan]
    phases = ["", "start", "training", "training", "testing", "pictures"]
    assert [kill.phase.split(",")[0] for kill in kills] == phases
    assert kills[2].phase in ("training, step 2", "training, step 3")
    assert all(kill.run in ("row/seed=0", "row/seed=1") for kill in kills[1:])
    # what is done gives no more moments, and that is said
    assert benchmark.run_disturbed(command, plan[1:2], tmp_path / "log") == ([], plan[1:2])


def test_a_sweep_that_loses_runs_without_a_kill_is_no_success(benchmark, tmp_path):
    plan = [benchmark.Planned("testing", "launcher")]
    command = [sys.executable, "-S", "-c", "import sys; print('it broke'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match="ended with 3 after 0 kills: it broke"):
        benchmark.run_disturbed(command, plan, tmp_path / "log")
    with pytest.raises(RuntimeError, match="nobody disturbs ended with 3"):
        benchmark.run_whole(command, tmp_path / "log")


_SWEEP = """
import sys, time
from pathlib import Path
from indexnet.core.locks import exclusive
from indexnet.sweep.pool import Job, launch
here = Path.cwd()
with exclusive(here / ".sweep", "another sweep is at work"):
    command = lambda folder: [sys.executable, "-S", "job.py", str(folder)]
    print([outcome.status for outcome in launch([Job(here / "run", "run", 0)], command=command)])
"""
_JOB = """
import fcntl, json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
lock = (folder / ".lock").open("a")
try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: sys.exit("in use by another process")
again = (folder / "record.json").exists()
(folder / "record.json").write_text(json.dumps({"schema": 1, "status": "done" if again else "running", "metrics": {}}))
time.sleep(0 if again else 60)
"""


def test_a_sweep_starts_again_at_once_after_its_launcher_was_killed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "job.py").write_text(_JOB)
    first = subprocess.Popen([sys.executable, "-c", _SWEEP], cwd=tmp_path)
    try:
        assert wait_until((tmp_path / "run/record.json").exists)
        refused = subprocess.run([sys.executable, "-c", _SWEEP], cwd=tmp_path, capture_output=True, text=True)
        assert "another sweep is at work" in refused.stderr
    finally:
        first.send_signal(signal.SIGKILL)  # and nobody waits for it
    again = subprocess.run([sys.executable, "-c", _SWEEP], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    first.wait()
    assert again.stdout.strip() == "['done']", again.stderr


def test_a_rank_ends_with_the_process_that_started_it(tmp_path):
    rank = (
        "import sys, time; from pathlib import Path; from indexnet.run.processes import follow\n"
        "time.sleep(float(sys.argv[1])); follow(); Path(sys.argv[2]).touch(); time.sleep(60)"
    )
    leader = (
        "import os, subprocess, sys, time; from pathlib import Path; from indexnet.run.processes import LEADER\n"
        "os.environ[LEADER] = str(os.getpid()); rank = subprocess.Popen([sys.executable, '-c', *sys.argv[1:4]])\n"
        "Path(sys.argv[4]).write_text(str(rank.pid)); time.sleep(60)"
    )

    def start(delay: str, name: str) -> tuple[subprocess.Popen, int]:
        ready, pid = tmp_path / name, tmp_path / f"{name}.pid"
        process = subprocess.Popen([sys.executable, "-c", leader, rank, delay, str(ready), str(pid)])
        assert wait_until(lambda: pid.exists() and pid.read_text())
        return process, int(pid.read_text())

    process, pid = start("0", "following")
    assert wait_until((tmp_path / "following").exists)
    assert alive(pid)
    process.kill()
    process.wait()
    assert wait_until(lambda: not alive(pid))
    process, pid = start("1.5", "late")  # its leader is gone before it asks
    process.kill()
    process.wait()
    assert alive(pid)
    assert wait_until(lambda: not alive(pid))
    assert not (tmp_path / "late").exists()
    environment = {key: value for key, value in os.environ.items() if key != "INDEXNET_LEADER"}
    alone = subprocess.Popen([sys.executable, "-c", rank, "0", str(tmp_path / "alone")], env=environment)
    assert wait_until((tmp_path / "alone").exists)  # without a leader's name: whoever started it
    alone.kill()
    alone.wait()
