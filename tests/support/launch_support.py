"""Jobs that only pretend to train."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from run_support import wait_until

# What a pretended job does, by the name of its folder or row; the working directory holds what the test looks at.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
kind = (folder.parent if folder.name == "seed=0" else folder).name.split("-")[0]
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
if kind == "lost":  # one of its ranks was killed
    record("running"); sys.exit(4)
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


def job_script(folder: Path) -> list[str]:
    return [sys.executable, "-S", "job.py", str(folder)]


def lines_of(name: str) -> list[list[str]]:
    return [line.split() for line in Path(name).read_text().splitlines()] if Path(name).exists() else []


def killed_when(command: list[str], condition) -> None:
    """Start a command, and kill it once a condition holds."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as launcher:
        try:
            assert wait_until(lambda: launcher.poll() is not None or condition(), 240)
        finally:
            launcher.kill()
    assert launcher.returncode == -signal.SIGKILL
