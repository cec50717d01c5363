"""A SLURM of one machine: the commands that submitit calls, as far as it looks at what they do.

``sbatch`` starts every element of an array in the background, ``srun`` starts its tasks with SLURM's variables and
stops them all when one fails, ``squeue`` lists what has not ended, ``scontrol requeue`` makes a job start again after
its end. State lies in a folder: ``<id>`` for each job in the queue, ``<id>.tasks`` with the process ids of its tasks,
``<id>.requeue``, and every batch file as ``<id>.sh``. A file ``hold`` keeps jobs in the queue, ``refuse`` makes
``sbatch`` refuse them, ``interrupt`` interrupts who submits them, once, before the numbers of the jobs are told.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SBATCH = r"""
import os, re, signal, subprocess, sys, time
from pathlib import Path
state = Path(os.environ["FAKE_SLURM"])
if (state / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified: " + (state / "refuse").read_text())
number = 4200 + len(list(state.glob("*.sh")))
text = Path(sys.argv[1]).read_text()
(state / f"{number}.sh").write_text(text)
print("Submitted batch job", number)
option = lambda name, default: (re.search(rf"^#SBATCH --{name}=(\S+)", text, re.M) or [0, default])[1]
array = option("array", None)
nodes, tasks = int(option("nodes", 1)), int(option("ntasks-per-node", 1))
for index in range(int(re.match(r"0-(\d+)", array)[1]) + 1) if array else [None]:
    name = str(number) if index is None else f"{number}_{index}"
    more = {} if index is None else {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
    environment = {
        **os.environ, **more, "SLURM_JOB_ID": str(number + (index or 0)), "SLURM_JOB_NAME": option("job-name", "x"),
        "SLURM_NTASKS": str(nodes * tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NODELIST": "127.0.0.1",
        "FAKE_JOB": name,
    }
    (state / name).write_text(option("job-name", "x"))
    script = ('while :; do rm -f "$0.requeue"; bash "$1"; [ -e "$0.requeue" ] || break; done; rm -f "$0"')
    if not (state / "hold").exists():
        subprocess.Popen(["bash", "-c", script, str(state / name), str(state / f"{number}.sh")], env=environment,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
if (state / "interrupt").exists():
    (state / "interrupt").unlink()
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
"""

_SRUN = r"""
import os, subprocess, sys, time
from pathlib import Path
state, name = Path(os.environ["FAKE_SLURM"]), os.environ["FAKE_JOB"]
words, streams = sys.argv[1:], {}
while words[0].startswith("--"):
    word = words.pop(0)
    if word in ("--output", "--error"):
        streams[word] = words.pop(0)
number, _, index = name.partition("_")
def path(pattern, task):
    text = pattern.replace("%A", number).replace("%a", index).replace("%j", name).replace("%t", str(task))
    Path(text).parent.mkdir(parents=True, exist_ok=True)
    return open(text, "ab")
tasks = []
for task in range(int(os.environ["SLURM_NTASKS"])):
    environment = {**os.environ, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0",
                   "SLURM_STEP_ID": "0"}
    tasks.append(subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=path(streams["--output"], task), stderr=path(streams["--error"], task)))
(state / f"{name}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):
        for task in tasks:
            task.kill()
    time.sleep(0.05)
sys.exit(max(abs(task.returncode) for task in tasks))
"""

_SQUEUE = r"""
import os
from pathlib import Path
queued = [p for p in Path(os.environ["FAKE_SLURM"]).iterdir() if p.name.replace("_", "").isdigit()]
print("\n".join(f"{p.name} {p.read_text()}" for p in queued))
"""

_SCONTROL = r"""
import os, sys
from pathlib import Path
(Path(os.environ["FAKE_SLURM"]) / f"{sys.argv[2]}.requeue").touch()
"""

_SCANCEL = r"""
import os, sys
from pathlib import Path
for name in sys.argv[1:]:
    (Path(os.environ["FAKE_SLURM"]) / name).unlink(missing_ok=True)
"""


def install(folder: Path) -> dict[str, str]:
    """Write the commands and return the environment that has them; state goes to ``folder/queue``."""
    commands, state = folder / "bin", folder / "queue"
    commands.mkdir()
    state.mkdir()
    scripts = {"sbatch": _SBATCH, "srun": _SRUN, "squeue": _SQUEUE, "scontrol": _SCONTROL, "scancel": _SCANCEL}
    for name, text in scripts.items():
        (commands / name).write_text(f"#!{sys.executable} -S\n{text}")
        (commands / name).chmod(0o755)
    return {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(state)}
