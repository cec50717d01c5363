"""A sweep that is killed and restarted equals one that nobody disturbed; at full size: benchmarks/sweep_kills.py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and the parent-death signal")


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "sweep_kills.py"
    spec = importlib.util.spec_from_file_location("benchmark_sweep_kills", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclass looks its annotations up there
    spec.loader.exec_module(module)
    return module


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def _wait(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.long
def test_a_sweep_that_was_killed_equals_one_that_was_not(benchmark, tmp_path):
    verdict = benchmark.measure(tmp_path, rows=1, seeds=1, kills=2, steps=20, devices=2)
    assert len(verdict.kills) == 2
    assert verdict.kills[0].what == "launcher"
    assert verdict.kills[1].what.startswith("b11/seed=0 process ")
    assert verdict.runs == 1
    assert verdict.differences == []
    # the comparison sees what differs
    folder = tmp_path / "killed" / benchmark.EXPERIMENT / "scenes-paper" / "b11" / "seed=0"
    shutil.copy(folder / "record.json", tmp_path / "record.json")
    text = (folder / "per_image.csv").read_text()
    (folder / "per_image.csv").write_text(text.replace("1", "2"))
    record = (folder / "record.json").read_text()
    (folder / "record.json").write_text(record.replace('"sad": ', '"sad": 1'))
    found = benchmark.compare(tmp_path / "whole", tmp_path / "killed")[1]
    assert any("metrics" in each for each in found)
    assert any("per_image.csv differs" in each for each in found)
    assert any(each.startswith("table.csv, row ") for each in found)


_SWEEP = """
import sys, time
from pathlib import Path
from indexnet.run.folder import exclusive
from indexnet.run.pool import Job, launch
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
        assert _wait((tmp_path / "run/record.json").exists)
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
        assert _wait(lambda: pid.exists() and pid.read_text())
        return process, int(pid.read_text())

    process, pid = start("0", "following")
    assert _wait((tmp_path / "following").exists)
    assert _alive(pid)
    process.kill()
    process.wait()
    assert _wait(lambda: not _alive(pid))
    process, pid = start("1.5", "late")  # its leader is gone before it asks
    process.kill()
    process.wait()
    assert _alive(pid)
    assert _wait(lambda: not _alive(pid))
    assert not (tmp_path / "late").exists()
    environment = {key: value for key, value in os.environ.items() if key != "INDEXNET_LEADER"}
    alone = subprocess.Popen([sys.executable, "-c", rank, "0", str(tmp_path / "alone")], env=environment)
    assert _wait((tmp_path / "alone").exists)  # without a leader's name: whoever started it
    alone.kill()
    alone.wait()
