"""Kill a sweep again and again, restart it with the same command, and compare it with one that nobody disturbed.

    python benchmarks/sweep_kills.py [--rows 6] [--seeds 2] [--kills 10] [--steps 24] [--devices 2] [--folder DIR]

The sweep is a part of `tpami/table3_matting` on the procedural scenes, on the CPU, with several checkpoints and several
processes in each run. ``kill -9`` hits, at random moments, the launcher or a random process of a job, ranks included.
In the end the metrics of the records, `per_image.csv`, the weights and the report's `table.csv` must be the same to the
last bit; exit code 1 where they are not. Linux only. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import indexnet  # noqa: F401  first: it prepares torchvision

EXPERIMENT = "tpami/table3_matting"
ROWS = ("b11", "b11_carafe", "hmi", "hin_nl_c", "o2o_shared_nl_c", "m2o_nl_c")
DEVICE_COLUMNS = ("train_samples_per_s", "peak_memory_mb")
"""Columns of `table.csv` that differ between any two runs of the same thing."""

_PATIENCE = 900.0  # seconds that a launcher may take before something hangs


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        what: whom it hit: ``launcher``, or a run and its rank.
        after: seconds since a job was first at work after a start or the last kill.
        step: what the run that was at work had come to, as it says itself.
    """

    what: str
    after: float
    step: str


@dataclass
class Verdict:
    """What came of it.

    Attributes:
        kills: what was done to the disturbed sweep.
        runs: how many runs were compared.
        differences: what differs, one sentence each; empty: nothing does.
        seconds: wall times of the undisturbed and the disturbed sweep.
    """

    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    differences: list[str] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)


def command(rows: list[str], seeds: int, steps: int, devices: int, runs: Path) -> list[str]:
    """Return the command of the sweep."""
    return [
        *(sys.executable, "-m", "indexnet", "train", "-m", f"experiments={EXPERIMENT}", "data=scenes"),
        *(f"rows={','.join(rows)}", f"seeds={','.join(map(str, range(seeds)))}", f"paths.runs={runs}"),
        *("encoder.pretrained=false", "encoder.width=0.35", "training.size=64", f"training.batch_size={2 * devices}"),
        *("data.train_count=12", "data.test_count=3", f"training.steps={steps}", "trainer.checkpoint_every=2"),
        *("trainer.accelerator=cpu", f"trainer.devices={devices}", "trainer.num_workers=0"),
    ]


def run_whole(arguments: list[str]) -> float:
    """Run the sweep undisturbed; return the seconds in which jobs were at work.

    Raises:
        RuntimeError: it did not end well.
    """
    launcher = _start(arguments)
    busy, last = 0.0, time.monotonic()
    while launcher.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        busy += now - last if job_processes(launcher.pid) else 0.0
        last = now
    if launcher.returncode != 0:
        raise RuntimeError(f"the sweep that nobody disturbs ended with {launcher.returncode}: {_said(launcher)}")
    return busy


def run_disturbed(arguments: list[str], runs: Path, kills: int, life: float, rng: random.Random) -> list[Kill]:
    """Run the sweep, kill it at random moments, and start it again until it is done.

    Args:
        arguments: its command.
        runs: where its runs go.
        kills: how many; every second one hits the launcher, one of five of these before it starts its first job.
        life: seconds that a job takes; a kill comes at a random moment of the first 80 % of it.
        rng: source of the moments and the victims.

    Returns:
        The kills; fewer than ``kills`` where the sweep was done before.

    Raises:
        RuntimeError: the launcher ended otherwise than by its kill or with lost runs, or it hangs.
    """
    done: list[Kill] = []
    launcher, begun = _start(arguments), time.monotonic()
    since: float | None = None  # when jobs were first seen since the launcher started or the last kill
    wait, early = rng.uniform(0, 0.8 * life), False
    try:
        while (code := launcher.poll()) != 0:
            if code is not None:
                if code not in (-signal.SIGKILL, 3):
                    raise RuntimeError(f"the launcher ended with {code}: {_said(launcher)}")
                launcher, begun, since = _start(arguments), time.monotonic(), None
            now = time.monotonic()
            if now - begun > _PATIENCE:
                raise RuntimeError(f"the sweep hangs after {len(done)} kills")
            victims = job_processes(launcher.pid)
            if since is None and (victims or early):
                since = now
            if len(done) < kills and since is not None and now - since > wait:
                hit = ("launcher", launcher.pid)
                if len(done) % 2:
                    if not victims:  # between two jobs
                        continue
                    hit = rng.choice(victims)
                done.append(Kill(hit[0], now - since, _step(runs)))
                _kill(hit[1])
                early = len(done) % 2 == 0 and rng.random() < 0.2
                since, wait = None, rng.uniform(0, 1.0 if early else 0.8 * life)
            time.sleep(0.02)
        return done
    finally:
        launcher.kill()
        launcher.wait()


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums on one thread are the same every time
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _said(launcher: subprocess.Popen[bytes]) -> str:
    assert launcher.stderr is not None
    return launcher.stderr.read().decode(errors="replace").strip()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def job_processes(launcher: int) -> list[tuple[str, int]]:
    """Return name and process id of every process of every job below a launcher: ``ROW/seed=N`` and its rank."""
    found = []
    for first in _children(launcher):
        for rank, pid in enumerate([first, *_children(first)]):
            words = _words(pid)
            if "job" in words:
                folder = Path(words[-1])
                found.append((f"{folder.parent.name}/{folder.name} process {rank}", pid))
    return found


def _children(pid: int) -> list[int]:
    try:
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except OSError:
        return []


def _step(runs: Path) -> str:
    """Return how far the run that is at work, or was when it was killed, says it is."""
    files = sorted(runs.rglob("progress.json"), key=lambda path: path.stat().st_mtime)
    try:
        found = json.loads(files[-1].read_text())
        return f"{files[-1].parent.parent.name}/{files[-1].parent.name} at {found['step']} of {found['steps']}"
    except (IndexError, OSError, ValueError, KeyError):
        return "no run has come to a step"


def compare(whole: Path, disturbed: Path) -> tuple[int, list[str]]:
    """Compare two folders of runs.

    Returns:
        How many runs the first one has, and what differs.
    """
    import torch

    found = []
    folders = sorted(path.parent.relative_to(whole) for path in whole.rglob("record.json"))
    for folder in folders:
        a, b = whole / folder, disturbed / folder
        if not (b / "record.json").is_file():
            found.append(f"{folder} is missing")
            continue
        records = [json.loads((each / "record.json").read_text()) for each in (a, b)]
        for key in ("status", "metrics", "test_count", "steps", "batch", "config_hash"):
            if records[0][key] != records[1][key]:
                found.append(f"{folder}: {key} {records[1][key]} instead of {records[0][key]}")
        if records[0]["status"] != "done":
            found.append(f"{folder} is {records[0]['status']} in the sweep that nobody disturbed")
            continue
        if (a / "per_image.csv").read_bytes() != (b / "per_image.csv").read_bytes():
            found.append(f"{folder}: per_image.csv differs")
        states = [
            torch.load(each / "checkpoints/last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
            for each in (a, b)
        ]
        if states[0].keys() != states[1].keys():
            found.append(f"{folder}: other weights")
        found += [
            f"{folder}: weight {name} differs"
            for name, value in states[0].items()
            if not torch.equal(value, states[1][name])
        ]
    tables = [_table(runs) for runs in (whole, disturbed)]
    for row, (a_line, b_line) in enumerate(zip(*tables, strict=True), 1):
        found += [
            f"table.csv, row {row}: {key} {b_line[key]} instead of {a_line[key]}"
            for key in a_line
            if key not in DEVICE_COLUMNS and a_line[key] != b_line[key]
        ]
    return len(folders), found


def _table(runs: Path) -> list[dict[str, str]]:
    output = runs.parent / f"{runs.name}-report"
    arguments = ["report", EXPERIMENT, "--runs", str(runs), "--output", str(output)]
    subprocess.run([sys.executable, "-m", "indexnet", *arguments], check=True, stdout=subprocess.DEVNULL)
    with (output / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measure(folder: Path, *, rows: int, seeds: int, kills: int, steps: int, devices: int, seed: int = 0) -> Verdict:
    """Run both sweeps below a folder and compare them.

    Raises:
        RuntimeError: a launcher ended otherwise than by its kill, or hangs.
    """
    names, rng = list(ROWS[:rows]), random.Random(seed)
    begun = time.monotonic()
    life = run_whole(command(names, seeds, steps, devices, folder / "whole")) / (rows * seeds)
    undisturbed = time.monotonic() - begun
    begun = time.monotonic()
    done = run_disturbed(command(names, seeds, steps, devices, folder / "killed"), folder / "killed", kills, life, rng)
    disturbed = time.monotonic() - begun
    runs, differences = compare(folder / "whole", folder / "killed")
    return Verdict(done, runs, differences, (undisturbed, disturbed))


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("rows", 6), ("seeds", 2), ("kills", 10), ("steps", 24), ("devices", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual, metavar="N", help=f"default: {usual}")
    parser.add_argument("--folder", type=Path, help="an empty folder that keeps both sweeps (default: a temporary one)")
    args = parser.parse_args()
    if not 1 <= args.rows <= len(ROWS):
        parser.error(f"--rows must be 1 to {len(ROWS)}")
    options = {key: value for key, value in vars(args).items() if key != "folder"}
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        if any(args.folder.iterdir()):
            parser.error(f"--folder {args.folder} is not empty")
        verdict = measure(args.folder.resolve(), **options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            verdict = measure(Path(folder), **options)
    for number, kill in enumerate(verdict.kills, 1):
        print(f"{number:3d}  kill -9 {kill.what:40s} after {kill.after:6.1f} s   {kill.step}")
    print(f"undisturbed {verdict.seconds[0]:.0f} s, with {len(verdict.kills)} kills {verdict.seconds[1]:.0f} s")
    for text in verdict.differences:
        print(text)
    same = "the same to the last bit" if not verdict.differences else f"{len(verdict.differences)} differences"
    print(f"{verdict.runs} runs (metrics, per_image.csv, weights) and table.csv: {same}")
    if len(verdict.kills) < args.kills:
        print(f"the sweep was done after {len(verdict.kills)} of {args.kills} kills; give more --steps")
        return 1
    return 1 if verdict.differences else 0


if __name__ == "__main__":
    sys.exit(main())
